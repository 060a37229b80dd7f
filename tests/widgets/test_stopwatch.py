"""Before the first run the dock offers to time one tile, and says afterwards how long the image will take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.widgets.states import Action, Phase

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IMAGE = np.random.default_rng(0).normal(size=(96, 80)).astype(np.float32)


@pytest.fixture(autouse=True)
def _nothing_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no earlier run tell."""
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("napari_tileseg.widgets.plan.SPEEDS._seconds", {})


def opened(desk: Callable[..., Any], *, show: bool = False) -> Any:
    here = desk(show=show)
    here.viewer.add_image(IMAGE, name="noise")
    assert here.dock.form.model.choose("small-classes")
    here.settle()
    return here


def test_one_click_measures_and_the_viewer_stays_free(desk: Callable[..., Any]) -> None:
    here = opened(desk, show=True)
    assert "About" not in here.box
    assert here.dock.box.links.shown == (Action.MEASURE,)
    ticks = 0
    here.follow(Action.MEASURE)
    said = set()
    while here.dock.stopwatch.words:
        said.add(here.dock.stopwatch.words)
        assert here.dock.box.links.shown == (Action.STOP,)
        assert here.dock.button.isEnabled(), "who is in a hurry need not wait"
        here.qtbot.wait(5)
        ticks += 1
    assert "Loading the model" in said
    here.until(lambda: "About" in here.box)
    assert here.dock.box.links.shown == ()
    assert here.dock.box.links.isHidden()
    assert here.session.loaded is not None
    assert here.phase is Phase.NONE
    assert here.dock.form.memory.isVisible(), "it can be unloaded"
    here.dock.form.options.widgets["tta"].value = "flips"
    here.until(lambda: here.dock.box.links.shown == (Action.MEASURE,))
    assert "About" not in here.box, "that takes another time"


def test_a_model_that_cannot_be_loaded_is_named_and_measuring_can_be_stopped(
    desk: Callable[..., Any], small_models: Path, monkeypatch: pytest.MonkeyPatch, stand_in: Callable[..., None]
) -> None:
    stand_in(at=1, do="raise")
    here = opened(desk)
    here.follow(Action.MEASURE)
    here.until(lambda: here.text != "")
    assert here.text.startswith("The time could not be measured.")
    assert here.dock.box.links.shown == (Action.MEASURE,)
    assert here.dock.button.isEnabled()
    here.follow(Action.MEASURE)
    here.follow(Action.STOP)
    here.until(lambda: not here.dock.stopwatch.words)
    assert here.text == ""
    assert here.dock.box.links.shown == (Action.MEASURE,)
