"""A training without labels goes through the pipe: told, paused, stopped with a model, and gone on with to the same weights."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from napari_tileseg.models.package import read_spec
from napari_tileseg.training.events import SamplesMade, StepEnded, TrainingEnded, TrainingStarted
from napari_tileseg.training.unsupervised.config import UnsupervisedConfig
from napari_tileseg.training.unsupervised.train import unfinished_file
from napari_tileseg.worker.messages import CancelledRun, Done, Evented, Failed, from_line, to_line

if TYPE_CHECKING:
    from pathlib import Path

PATIENCE = 300


@pytest.fixture
def config(tmp_path: Path) -> UnsupervisedConfig:
    generator = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(3):
        array = generator.integers(0, 255, (48, 48)).astype(np.uint8)
        Image.fromarray(array).save(tmp_path / "images" / f"{number}.png")
    return UnsupervisedConfig.parse(
        name="usual",
        images=str(tmp_path / "images"),
        output=str(tmp_path / "usual"),
        network="vae",
        steps=6,
        batch=4,
        report_every=2,
        device="cpu",
    )


def start(bench: Any, config: UnsupervisedConfig, **options: Any) -> tuple[Any, Any]:
    recorder = bench.recorder()
    return bench.supervisor.start_training(config, on_message=recorder, **options), recorder


def weights(path: Path) -> dict[str, Any]:
    return load_file(path / "weights.safetensors")


def test_the_events_travel() -> None:
    for event in (
        StepEnded(2, 6, 0.5, 1e-3, 1.0, 2.0, "generator", {"generator": 0.5}),
        SamplesMade("generator", 2, "/made/samples.npy", False),
    ):
        assert from_line(to_line(Evented(event), 3)).body == Evented(event)


@pytest.mark.slow
def test_it_is_told_as_any_training_is(bench: Any, config: UnsupervisedConfig, tmp_path: Path) -> None:
    views = tmp_path / "views"
    views.mkdir()
    run, recorder = start(bench, config, dry=True)
    assert run.wait(PATIENCE)
    [found] = recorder.events
    assert isinstance(found, TrainingStarted)
    assert (found.train, found.val, found.epochs) == (2, 1, 0)
    assert found.report == ("2 images to learn from, 1 held out to set the threshold.", "48 x 48 pixels, one channel.")
    assert found.settings["learning_rate"] == 1e-3
    assert not config.place.exists()
    run, recorder = start(bench, config, views=views)
    assert run.wait(PATIENCE)
    assert isinstance(recorder.messages[-1], Done), recorder.messages[-1]
    steps = [event for event in recorder.events if isinstance(event, StepEnded)]
    assert [(event.step, event.steps, event.stage) for event in steps] == [
        (2, 6, "autoencoder"),
        (4, 6, "autoencoder"),
        (6, 6, "autoencoder"),
    ]
    assert {"loss", "reconstruction", "divergence"} == set(steps[-1].losses)
    shown = [event for event in recorder.events if isinstance(event, SamplesMade)][-1]
    made = np.load(shown.path)
    assert shown.pairs and made.shape == (8, 1, 28, 28) and 0 <= made.min() < made.max() <= 1
    assert isinstance(recorder.events[-1], TrainingEnded) and recorder.events[-1].reason == "done"
    spec = read_spec(config.place)
    assert spec.output == "anomaly" and spec.decoder_parameters["threshold"] > 0
    run, recorder = start(bench, config)
    assert run.wait(PATIENCE)
    assert isinstance(recorder.messages[-1], Failed) and "already" in recorder.messages[-1].message


@pytest.mark.slow
@pytest.mark.parametrize("network", ["vae", "gan"])
def test_stopped_it_keeps_a_model_and_goes_on_to_the_same_weights(
    bench: Any, config: UnsupervisedConfig, tmp_path: Path, network: str
) -> None:
    config = config.model_copy(update={"network": network, "steps": 40, "report_every": 1})
    straight = config.model_copy(update={"output": str(tmp_path / "straight")})
    run, recorder = start(bench, straight)
    assert run.wait(PATIENCE)
    assert isinstance(recorder.messages[-1], Done), recorder.messages[-1]
    run, recorder = start(bench, config)
    recorder.until(lambda event: isinstance(event, StepEnded) and event.step > 2)
    run.pause()
    time.sleep(0.3)
    before = run.tiles
    time.sleep(0.3)
    assert run.tiles == before and before[0] < 40, "nothing is learnt meanwhile"
    run.cancel()
    assert run.wait(PATIENCE)
    assert isinstance(recorder.messages[-1], CancelledRun), recorder.messages[-1]
    assert recorder.events[-1].reason == "stopped"
    spec = read_spec(config.place)
    assert spec.output == "anomaly" and spec.training["stopped"].startswith("after ")
    assert "Stopped after" in (config.place / "CARD.md").read_text(encoding="utf-8")
    assert unfinished_file(config.place).is_file()
    assert any((weights(config.place)[key] != weights(straight.place)[key]).any() for key in weights(straight.place))
    run, recorder = start(bench, config)
    assert run.wait(PATIENCE)
    assert isinstance(recorder.messages[-1], Done), recorder.messages[-1]
    assert next(event.step for event in recorder.events if isinstance(event, StepEnded)) > before[0]
    for key, value in weights(straight.place).items():
        np.testing.assert_array_equal(weights(config.place)[key], value)
    assert not unfinished_file(config.place).exists()
