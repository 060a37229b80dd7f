"""Small real models, and supervisors that are always closed."""

from __future__ import annotations

import json
import queue
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_tileseg.job import Job
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import write_package
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.volume import Volume
from napari_tileseg.worker import Run, Supervisor
from napari_tileseg.worker.messages import Evented, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.engine.events import Event
    from napari_tileseg.worker.batch_run import BatchRun

PATIENCE = 300
"""Seconds after which a test gives up waiting; nothing should come near."""


class Recorder:
    """A callback that keeps what it gets and lets a test wait for something to come."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._fresh: queue.SimpleQueue[Message] = queue.SimpleQueue()

    def __call__(self, message: Message) -> None:
        self.messages.append(message)
        self._fresh.put(message)

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        """Wait for a message, or the event in one, that fits; those before it are not looked at again."""
        while True:
            message = self._fresh.get(timeout=PATIENCE)
            found = message.event if isinstance(message, Evented) else message
            if wanted(found):
                return found

    @property
    def events(self) -> list[Event]:
        return [message.event for message in self.messages if isinstance(message, Evented)]

    @property
    def kinds(self) -> list[str]:
        return [type(message).__name__ for message in self.messages if not isinstance(message, Evented)]


class Bench:
    """A supervisor with a recorder for each run."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor

    def start(self, job: Job, volume: Volume, *, previous: Run | None = None) -> tuple[Run, Recorder]:
        recorder = Recorder()
        return self.supervisor.start(job, volume, on_message=recorder, previous=previous), recorder

    def recorder(self) -> Recorder:
        return Recorder()

    def start_batch(self, job: BatchJob, **more: Any) -> tuple[BatchRun, Recorder]:
        recorder = Recorder()
        return self.supervisor.start_batch(job, on_message=recorder, **more), recorder

    def run(self, job: Job, volume: Volume, *, previous: Run | None = None) -> tuple[Run, Recorder]:
        run, recorder = self.start(job, volume, previous=previous)
        assert run.wait(PATIENCE), f"{run} did not end"
        return run, recorder


@pytest.fixture(scope="session", autouse=True)
def _threads() -> None:
    torch.set_num_threads(2)


def _package(folder: Path, name: str, classes: list[str], **more: Any) -> str:
    torch.manual_seed(4)
    heads = len(more.get("heads", classes))
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": heads, "channels": [4, 8], "stem_channels": 4}
    network = build_network("residual_unet", **arguments)
    card = {"name": name, "axes": "CYX", "channels": ["grey"], "classes": classes, "window": (32, 32)}
    spec = ModelSpec(**card, architecture="residual_unet", arguments=arguments, **more)
    write_package(folder / name, spec, network.state_dict())
    return str(folder / name)


@pytest.fixture(scope="session")
def classes_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A package of three classes with random weights."""
    return _package(tmp_path_factory.mktemp("packages"), "classes", ["background", "left", "right"])


@pytest.fixture(scope="session")
def objects_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A package that finds objects, with random weights."""
    more = {"output": "instances", "decoder": "watershed", "heads": ["interior", "boundary", "distance"]}
    return _package(tmp_path_factory.mktemp("packages"), "objects", ["background", "blob"], **more)


@pytest.fixture
def volume() -> Volume:
    """A volume of 6 x 2 tiles."""
    image = np.random.default_rng(1).normal(size=(112, 48)).astype(np.float32)
    return Volume(image, "YX", name="noise")


@pytest.fixture
def job(classes_model: str) -> Job:
    return Job(model=classes_model)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A supervisor of the real pipeline; tests share its process, because starting one takes seconds."""
    supervisor = Supervisor(scratch=tmp_path_factory.mktemp("scratch"))
    yield Bench(supervisor)
    supervisor.close()


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    """Return a function that makes a supervisor whose pipeline does what a plan says."""
    monkeypatch.syspath_prepend(Path(__file__).parent / "stand_ins")
    made = []

    def make(**plan: Any) -> Bench:
        monkeypatch.setenv("TILESEG_STAND_IN", json.dumps(plan, default=str))
        made.append(Supervisor(scratch=tmp_path / "scratch", backend="tileseg_stand_in"))
        return Bench(made[-1])

    yield make
    for supervisor in made:
        supervisor.close()


@pytest.fixture(scope="session")
def coarse_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A package whose pixels are 2 µm wide."""
    more = {"spacing": (2.0, 2.0), "spacing_unit": "micrometer"}
    return _package(tmp_path_factory.mktemp("packages"), "coarse", ["background", "left", "right"], **more)
