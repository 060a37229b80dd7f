"""A viewer with the dock in it, small real models, and a supervisor that is always closed; leaked widgets fail."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from napari.components import ViewerModel
from napari.settings import get_settings
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import write_package
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.widgets import bridge, followed, session
from napari_tileseg.widgets.batch import BatchWidget
from napari_tileseg.widgets.models import ModelsWidget
from napari_tileseg.widgets.models import session as models_session
from napari_tileseg.widgets.refine import RefineWidget
from napari_tileseg.widgets.segment import SegmentWidget
from napari_tileseg.widgets.train import TrainWidget
from napari_tileseg.worker import Supervisor

sys.path.insert(0, str(Path(__file__).parent))  # for what several files of tests share
from batch_desk import BatchDesk, make_folder, save_job
from models_desk import Commands, Hubs, ModelsDesk, sources
from refine_desk import RefineDesk
from train_desk import TrainDesk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_tileseg.widgets.states import Phase

PATIENCE = 180.0
"""Seconds after which a test gives up waiting; a busy machine is no bug."""

STAND_INS = Path(__file__).parents[1] / "worker" / "stand_ins"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let scikit-image warn while napari makes up its colours for labels: neither is ours."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB:UserWarning"))


class Desk:
    """A viewer with its dock, worked by mouse and keyboard."""

    def __init__(self, viewer: Any, qtbot: Any, dock: SegmentWidget) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.dock = dock
        self.session = dock.session

    @property
    def phase(self) -> Phase:
        return self.session.state.phase

    @property
    def text(self) -> str:
        """What the message says."""
        return self.dock.message.text.text() if self.dock.message.shown is not None else ""

    @property
    def box(self) -> str:
        return self.dock.box.label.text()

    def click(self) -> None:
        """Press the big button with the mouse."""
        self.qtbot.mouseClick(self.dock.button, Qt.MouseButton.LeftButton)

    def follow(self, action: Any) -> None:
        """Click a link of the message, or of a sentence at a field."""
        form = self.dock.form
        for links in (self.dock.box.links, self.dock.message.links, form.question.links, form.options_problem.links, form.unload):
            if action in links.shown and not links.isHidden():
                self.qtbot.mouseClick(links.buttons[action], Qt.MouseButton.LeftButton)
                return
        raise AssertionError(f"there is no link {action}")

    def until(self, condition: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited in vain: {self.session.state}, {self.box!r}, {self.text!r}"
            self.qtbot.wait(10)

    def wait_for(self, *phases: Phase) -> None:
        self.until(lambda: self.phase in phases or not self.session.active)
        assert self.phase in phases, self.session.state

    def run(self) -> None:
        """Press Segment and wait for the end."""
        self.click()
        self.until(lambda: not self.session.active)

    def settle(self) -> None:
        """Wait until what a run would need is worked out."""
        self.until(lambda: "tile" in self.box and "Working" not in self.box)

    @property
    def labels(self) -> Any:
        assert self.session.result is not None
        return self.session.result.layers[0]


class _Sentinel:
    """Stands for another viewer, so that closing one does not end the model's process."""

    viewer = None


@pytest.fixture(scope="session", autouse=True)
def _one_process() -> Iterator[None]:
    """Keep the model's process from test to test; starting one takes seconds."""
    torch.set_num_threads(2)
    yield
    bridge.close_supervisor()


@pytest.fixture(autouse=True)
def _sessions(monkeypatch: pytest.MonkeyPatch) -> dict[int, Any]:
    """Give every test its own sessions."""
    sessions: dict[int, Any] = {-1: _Sentinel()}
    monkeypatch.setattr(session, "_SESSIONS", sessions)
    return sessions


@pytest.fixture
def no_leaks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail when a dock outlives its viewer."""
    monkeypatch.setenv("NAPARI_STRICT_QT", "raise")
    yield
    if request.node.rep_call.failed:
        return  # the traceback holds everything
    end = time.monotonic() + 5
    while (left := _docks()) and time.monotonic() < end:  # work beside the window holds its dock until it is done
        time.sleep(0.1)
    assert not left, f"{left} docks outlived their viewers"


def _docks() -> int:
    """Return how many docks are in memory."""
    QApplication.sendPostedEvents(None, 52)  # DeferredDelete
    gc.collect()
    kinds = (SegmentWidget, BatchWidget, ModelsWidget, RefineWidget, TrainWidget)
    return sum(type(item) in kinds for item in gc.get_objects())


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models with random weights that take next to no time."""
    folder = tmp_path_factory.mktemp("own_models")
    _package(folder, "small-classes", ["background", "left", "right"], colors=["#ff0000", "#00ff00"], normalization={"kind": "zscore"})
    _package(folder, "small-masks", ["one", "two"], output="sigmoid", colors=["#ff0000", "#00ff00"])
    heads = {"output": "instances", "decoder": "watershed", "heads": ["interior", "boundary", "distance"]}
    _package(folder, "small-objects", ["background", "blob"], seed=7, **heads)  # this one finds something in noise
    _package(folder, "small-regions", ["background", "whole", "core"], output="regions", heads=["whole", "core"], region_values=(1, 2))
    strange = {"output": "anomaly", "heads": ["score"], "decoder_parameters": {"threshold": 0.2, "median": 3.0}}
    _package(folder, "small-anomaly", ["normal", "anomaly"], **strange)
    rays = {"output": "instances", "decoder": "stardist", "heads": ["probability", *(f"ray {number}" for number in range(8))]}
    _package(folder, "small-stars", ["background", "blob"], seed=7, **rays)
    _package(folder, "small-pair", ["background", "left"], channels=["nuclei", "membrane"])
    return folder


@pytest.fixture(autouse=True)
def _own_models(small_models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let every test find the small models; a process that was started with another folder is not kept for the next one."""
    monkeypatch.setenv("TILESEG_MODELS", str(small_models))
    yield
    if os.environ["TILESEG_MODELS"] != str(small_models):
        bridge.close_supervisor()


def _package(folder: Path, name: str, classes: list[str], *, channels: list[str] | None = None, seed: int = 4, **more: Any) -> None:
    torch.manual_seed(seed)
    channels = channels or ["grey"]
    outputs = len(more.get("heads", classes))
    arguments = {"spatial_dims": 2, "in_channels": len(channels), "out_channels": outputs, "channels": [4, 8], "stem_channels": 4}
    network = build_network("residual_unet", **arguments)
    spec = ModelSpec(
        name=name,
        axes="CYX",
        channels=channels,
        classes=classes,
        window=(32, 32),
        architecture="residual_unet",
        arguments=arguments,
        **more,
    )
    write_package(folder / name, spec, network.state_dict())


@pytest.fixture
def desk(no_leaks: None, make_napari_viewer: Any, qtbot: Any) -> Callable[..., Desk]:
    """Return a function that opens a viewer with the dock."""

    def make(*, show: bool = False, viewer: Any = None) -> Desk:
        viewer = viewer or make_napari_viewer(show=show)
        get_settings().application.confirm_close_window = False
        dock = SegmentWidget(viewer)
        viewer.window.add_dock_widget(dock, name="Segment (TileSeg)", area="right")
        return Desk(viewer, qtbot, dock)

    return make


@pytest.fixture
def batch(no_leaks: None, make_napari_viewer: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., BatchDesk]:
    """Return a function that opens a viewer with the Batch dock."""
    monkeypatch.setattr(followed, "_CALM", 0.0)

    def make(*, show: bool = False, viewer: Any = None) -> BatchDesk:
        viewer = viewer or make_napari_viewer(show=show)
        get_settings().application.confirm_close_window = False
        dock = BatchWidget(viewer)
        viewer.window.add_dock_widget(dock, name="Batch (TileSeg)", area="right")
        return BatchDesk(viewer, qtbot, dock)

    return make


@pytest.fixture
def commands() -> Commands:
    """What stands for the commands of the Models dock."""
    return Commands()


@pytest.fixture
def hubs() -> Hubs:
    """What stands for the hubs."""
    return Hubs()


@pytest.fixture
def models(
    request: pytest.FixtureRequest, qtbot: Any, monkeypatch: pytest.MonkeyPatch, commands: Commands, hubs: Hubs
) -> Callable[..., ModelsDesk]:
    """Return a function that opens the Models dock, alone or in a viewer; its commands are stand-ins unless `real`."""
    monkeypatch.setattr(models_session, "_CALM", 0.0)
    appearance = get_settings().appearance
    before = appearance.font_size
    appearance.font_size = 9
    request.addfinalizer(lambda: setattr(appearance, "font_size", before))

    def make(*, window: bool = False, show: bool = False, viewer: Any = None, real: bool = False, **more: Any) -> ModelsDesk:
        if window and viewer is None:
            request.getfixturevalue("no_leaks")
            viewer = request.getfixturevalue("make_napari_viewer")(show=show)
            get_settings().application.confirm_close_window = False
        alone = viewer is None
        viewer = viewer or ViewerModel()
        dock = ModelsWidget(viewer, None if real else sources(commands, hubs, **more))
        if alone:
            qtbot.addWidget(dock)
            dock.setVisible(show)
        else:
            viewer.window.add_dock_widget(dock, name="Models (TileSeg)", area="right")
        request.addfinalizer(dock.session.close)
        return ModelsDesk(viewer, qtbot, dock, commands)

    return make


@pytest.fixture
def _edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep edits in a folder of the test."""
    monkeypatch.setenv("TILESEG_EDITS", str(tmp_path / "edits"))


@pytest.fixture
def refine(no_leaks: None, _edits: None, make_napari_viewer: Any, qtbot: Any) -> Callable[..., RefineDesk]:
    """Return a function that opens a viewer with the Refine dock."""

    def make(*, show: bool = False, viewer: Any = None) -> RefineDesk:
        viewer = viewer or make_napari_viewer(show=show)
        get_settings().application.confirm_close_window = False
        dock = RefineWidget(viewer)
        viewer.window.add_dock_widget(dock, name="Refine (TileSeg)", area="right")
        return RefineDesk(viewer, qtbot, dock)

    return make


@pytest.fixture
def train(
    no_leaks: None, make_napari_viewer: Any, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., TrainDesk]]:
    """Return a function that opens a viewer with the Train dock; models go into a folder of the test."""
    monkeypatch.setattr(followed, "_CALM", 0.0)
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "models"))
    bridge.close_supervisor()  # the process of the test before looks elsewhere

    def make(*, show: bool = False, viewer: Any = None) -> TrainDesk:
        viewer = viewer or make_napari_viewer(show=show)
        get_settings().application.confirm_close_window = False
        dock = TrainWidget(viewer)
        viewer.window.add_dock_widget(dock, name="Train (TileSeg)", area="right")
        return TrainDesk(viewer, qtbot, dock)

    return make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dozen small images."""
    return make_folder(tmp_path / "raw", 12)


@pytest.fixture
def settings_file(tmp_path: Path) -> Path:
    """A job file with a model that is quick."""
    return save_job(tmp_path)


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Return a function that makes the model's process do what a plan says: wait, crash, be deaf."""
    monkeypatch.syspath_prepend(STAND_INS)
    made: list[Supervisor] = []

    def plan(**steps: Any) -> None:
        monkeypatch.setenv("TILESEG_STAND_IN", json.dumps(steps, default=str))
        made.append(Supervisor(scratch=tmp_path / "scratch", backend="tileseg_stand_in"))
        monkeypatch.setattr(bridge, "_supervisors", [made[-1]])

    yield plan
    for supervisor in made:
        supervisor.close()
