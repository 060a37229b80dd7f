"""A training goes through the pipe: the same model as in this process, stopped, paused, cut off and gone on with."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
import pytest
from PIL import Image
from safetensors.numpy import load_file

from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.events import EpochEnded, StepEnded, TrainingEnded
from napari_tileseg.training.train import train
from napari_tileseg.training.work_folder import work_folder
from napari_tileseg.worker.messages import CancelledRun, Died, Done

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.worker.training_run import TrainingRun

PATIENCE = 300


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    generator = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(4):
        labels = np.zeros((32, 32), np.uint8)
        row, column = generator.integers(0, 20, 2)
        labels[row : row + 10, column : column + 10] = 1
        Image.fromarray(labels).save(tmp_path / "labels" / f"{number}.png")
        Image.fromarray((labels * 120 + generator.integers(0, 50, labels.shape)).astype(np.uint8)).save(
            tmp_path / "images" / f"{number}.png"
        )
    return TrainConfig(
        images=str(tmp_path / "images"),
        labels=str(tmp_path / "labels"),
        output=str(tmp_path / "model"),
        arguments={"channels": [8, 16], "stem_channels": 8},
        batch=2,
        epochs=3,
        epoch_steps=4,
        device="cpu",
    )


def start(bench: Any, config: TrainConfig) -> tuple[TrainingRun, Any]:
    from napari_tileseg.worker.training_run import TrainingRun

    recorder = bench.recorder()
    run = bench.supervisor.start_training(config, on_message=recorder)
    assert isinstance(run, TrainingRun)
    return run, recorder


def weights(path: Path) -> dict[str, Any]:
    return load_file(path / "weights.safetensors")


def same(one: Path, other: Path) -> bool:
    here, there = weights(one), weights(other)
    return here.keys() == there.keys() and all(np.array_equal(here[key], there[key]) for key in here)


def test_the_model_is_that_of_this_process(bench: Any, config: TrainConfig, tmp_path: Path) -> None:
    run, recorder = start(bench, config)
    assert run.wait(PATIENCE)
    assert isinstance(recorder.messages[-1], Done)
    assert isinstance(recorder.events[-1], TrainingEnded)
    assert (run.epoch, run.tiles) == (3, (12, 12))
    train(config.model_copy(update={"output": str(tmp_path / "here")}))
    here = weights(tmp_path / "here")
    for key, value in weights(tmp_path / "model").items():
        np.testing.assert_allclose(value, here[key], atol=1e-5)  # the processes may have other numbers of threads


def test_a_stopped_training_keeps_the_best_and_a_paused_one_waits(bench: Any, config: TrainConfig, tmp_path: Path) -> None:
    long = config.model_copy(update={"epochs": 2000, "patience": 0})
    run, recorder = start(bench, long)
    recorder.until(lambda event: isinstance(event, EpochEnded))
    run.pause()
    time.sleep(0.5)
    before = len(recorder.events)
    time.sleep(0.7)
    assert len(recorder.events) == before
    run.pause(False)
    recorder.until(lambda event: isinstance(event, StepEnded) and event.step > run.tiles[0] - 1)
    run.cancel()
    assert run.wait(PATIENCE)
    assert isinstance(recorder.messages[-1], CancelledRun)
    assert (tmp_path / "model" / "model.json").is_file()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_killed_training_loses_an_epoch_at_most(bench: Any, config: TrainConfig, tmp_path: Path) -> None:
    run, _ = start(bench, config.model_copy(update={"output": str(tmp_path / "straight"), "epochs": 6}))
    assert run.wait(PATIENCE)
    long = config.model_copy(update={"epochs": 6})
    for _ in range(3):
        run, recorder = start(bench, long)
        epoch = recorder.until(lambda event: isinstance(event, EpochEnded)).epoch
        recorder.until(lambda event, epoch=epoch: isinstance(event, StepEnded) and event.step > 4 * epoch + 1)
        psutil.Process(bench.supervisor.pid).kill()
        assert run.wait(PATIENCE)
        assert isinstance(recorder.messages[-1], Died)
        assert "safe" in recorder.messages[-1].message
        assert not (tmp_path / "model").exists()
        assert work_folder(tmp_path / "model").is_dir()
    run, recorder = start(bench, long)
    assert run.wait(PATIENCE)
    assert next(event for event in recorder.events if isinstance(event, EpochEnded)).epoch == 4
    assert same(tmp_path / "model", tmp_path / "straight")
