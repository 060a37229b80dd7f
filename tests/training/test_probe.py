"""What a training is going to take is told before it begins, and is near to what it then takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import torch
from scenes import SMALL, config, folders, scene
from test_command import call, of

from napari_tileseg import Volume, train
from napari_tileseg.errors import Cancelled
from napari_tileseg.training import probe as probing
from napari_tileseg.training.events import EpochEnded, TrainingExpected, TrainingStarted
from napari_tileseg.training.train import preview

if TYPE_CHECKING:
    from pathlib import Path


def pairs(shape: tuple[int, ...] = (48, 48)) -> list[tuple[Any, Any]]:
    return [
        (Volume(image, "ZYX"[-image.ndim :], name=f"s{n}"), labels) for n, (image, labels) in enumerate(scene(n, shape) for n in range(5))
    ]


@pytest.mark.parametrize(("shape", "task"), [((48, 48), "classes"), ((48, 48), "instances"), ((16, 24, 24), "classes")])
def test_time_and_memory_are_told_after_what_was_found(tmp_path: Path, shape: tuple[int, ...], task: str) -> None:
    told: list[Any] = []
    found = preview(config(tmp_path / "m", task=task), pairs(shape), on_event=told.append)
    assert [type(event) for event in told] == [TrainingStarted, TrainingExpected]
    assert told[0] == found
    expected = told[1]
    assert expected.epoch_seconds == pytest.approx(4 * expected.step_seconds + expected.validation_seconds)
    assert expected.seconds == pytest.approx(2 * expected.epoch_seconds)
    assert expected.step_seconds > 0
    assert expected.validation_seconds > 0
    assert expected.memory > 0
    assert list(tmp_path.iterdir()) == [], "nothing is written"


@pytest.mark.slow
def test_it_is_near_to_what_the_training_takes(tmp_path: Path) -> None:
    fields = {"epoch_steps": 30, "epochs": 2, "batch": 8, "window": (64, 64)}
    told: list[Any] = []
    preview(config(tmp_path / "m", **fields), pairs((96, 96)), on_event=told.append)
    train(config(tmp_path / "m", **fields), pairs((96, 96)), on_event=told.append)
    taken = next(event.seconds for event in told if isinstance(event, EpochEnded))
    assert 0.2 < told[1].epoch_seconds / taken < 5


def test_more_images_to_validate_on_take_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_timed", lambda *given: 6.0)
    told: list[Any] = []
    preview(config(tmp_path / "m", val_share=0.4), pairs(), on_event=told.append)
    assert told[1].validation_seconds == 12.0
    preview(config(tmp_path / "m", val_share=0.0), pairs(), on_event=told.append)
    assert told[3].validation_seconds == 0.0


def test_a_batch_that_does_not_fit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = probing.Objective.forward

    def narrow(self: Any, scores: torch.Tensor, batch: Any) -> torch.Tensor:
        if len(scores) > 1:
            raise torch.OutOfMemoryError
        return forward(self, scores, batch)

    monkeypatch.setattr(probing.Objective, "forward", narrow)
    told: list[Any] = []
    preview(config(tmp_path / "m"), pairs(), on_event=told.append)
    assert told[1].size == 1


def test_it_can_be_stopped(tmp_path: Path) -> None:
    told: list[Any] = []
    with pytest.raises(Cancelled):
        preview(config(tmp_path / "m"), pairs(), on_event=told.append, cancel=lambda: bool(told))
    assert len(told) == 1


def test_the_dry_run_tells_it(tmp_path: Path) -> None:
    quick = ["-o", tmp_path / "m", "--dry-run", "--device", "cpu", "--set", f"arguments={json.dumps(SMALL['arguments'])}", "--epochs", "3"]
    places = of(folders(tmp_path))
    status, told, _ = call(*places, *quick)
    assert status == 0
    assert "An epoch takes about" in told
    assert "All 3 epochs take at most about" in told
    events = [json.loads(line) for line in call(*places, *quick, "--json")[1].splitlines()]
    assert [event["event"] for event in events] == ["preview", "expected"]
    assert "takes" not in call(*places, *quick, "--no-probe")[1]
