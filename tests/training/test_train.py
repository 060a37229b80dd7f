"""Training from images and labels to a model: what comes out, on which images, and how it goes on after an interruption."""

from __future__ import annotations

import csv
import errno
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scenes import config, folders, scene

from napari_tileseg import SegmentOptions, Volume, list_models, load_model, segment, train
from napari_tileseg.errors import Cancelled, DeviceMemoryError, OptionsError, OutputError, RunError
from napari_tileseg.training import train as training
from napari_tileseg.training import trainer as fitting
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.events import EpochEnded, Noted, StepEnded, TrainingEnded, TrainingStarted, from_dict
from napari_tileseg.training.work_folder import work_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def pairs(count: int = 4, shape: tuple[int, ...] = (48, 48), *, objects: bool = False) -> list[tuple[Any, Any]]:
    made = [scene(number, shape, objects=objects) for number in range(count)]
    return [(Volume(image, "ZYX"[-image.ndim :], name=f"scene {number}"), labels) for number, (image, labels) in enumerate(made)]


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "weights.safetensors")


def equal(one: Path, other: Path) -> bool:
    here, there = weights(one), weights(other)
    return here.keys() == there.keys() and all(torch.equal(here[key], there[key]) for key in here)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A model of a second, from folders, and all that was told."""
    root = tmp_path_factory.mktemp("trained")
    events: list[Any] = []
    train(config(root / "balls", **folders(root), classes=("background", "dim", "bright")), on_event=events.append)
    return root / "balls", events


def test_the_result_is_a_model_like_any_other(trained: tuple[Path, list[Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    path, _ = trained
    monkeypatch.setenv("TILESEG_MODELS", str(path.parent))
    assert "balls" in [spec.name for spec in list_models()]
    predictor = load_model("balls", device="cpu")
    assert predictor.spec.classes == ["background", "dim", "bright"]
    image, _ = scene(9)
    assert np.asarray(segment(image, predictor, options=SegmentOptions(device="cpu")).labels).shape == image.shape


def test_what_is_told_of_a_training(trained: tuple[Path, list[Any]]) -> None:
    path, events = trained
    assert isinstance(events[0], TrainingStarted)
    assert (events[0].train, events[0].val) == (4, 1)
    epochs = [event for event in events if isinstance(event, EpochEnded)]
    assert [event.epoch for event in epochs] == [1, 2]
    assert {"dice dim", "dice bright", "iou dim", "iou bright"} == set(epochs[0].scores)
    assert [event.step for event in events if isinstance(event, StepEnded)] == list(range(1, 9))
    assert events[-1] == TrainingEnded(str(path), events[-1].epoch, events[-1].score, "done", events[-1].seconds)
    assert all(from_dict(json.loads(json.dumps(event.to_dict()))) == event for event in events)


def test_the_card_tells_data_curves_and_scores(trained: tuple[Path, list[Any]]) -> None:
    path, events = trained
    card = (path / "CARD.md").read_text()
    assert "4 images to learn from, 1 to validate on." in card
    assert "dice bright" in card
    rows = list(csv.DictReader((path / "curves.csv").read_text().splitlines()))
    assert [float(row["loss"]) for row in rows] == [event.loss for event in events if isinstance(event, EpochEnded)]
    assert str(path.parent) not in card + (path / "model.json").read_text(), "a package names no folder of the user's"


def test_nothing_is_left_but_the_model(trained: tuple[Path, list[Any]]) -> None:
    path, _ = trained
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["balls", "images", "labels"]


def test_it_learns(tmp_path: Path) -> None:
    spec = train(config(tmp_path / "m", epochs=6, epoch_steps=15, learning_rate=1e-2, average=0.9), pairs(6))
    assert spec.training["score"] > 0.8


def test_intensities_that_nothing_normalises_are_learnt_as_they_are(tmp_path: Path) -> None:
    raw = [(image.with_data(np.asarray(image.data).astype(np.uint16) * 16 + 300), labels) for image, labels in pairs(6)]
    fields = {"epochs": 6, "epoch_steps": 15, "learning_rate": 1e-2, "average": 0.9, "normalization": {"kind": "none"}}
    spec = train(config(tmp_path / "m", **fields), raw)
    assert spec.normalization.kind == "none"
    assert spec.training["score"] > 0.8


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ((48, 48), {"network": "unet2015", "arguments": {"features": [4, 8, 8]}}),
        ((48, 48), {"network": "vnet2d", "arguments": {"stages": 3, "features": 4}}),
        ((16, 24, 24), {}),
        ((48, 48), {"optimizer": "sgd", "schedule": "one_cycle", "accumulation": 2, "loss": "focal_tversky"}),
    ],
    ids=["valid convolutions", "V-Net", "volumes", "SGD"],
)
def test_networks_and_ways_to_learn(tmp_path: Path, shape: tuple[int, ...], changes: dict[str, Any]) -> None:
    events: list[Any] = []
    spec = train(config(tmp_path / "m", **changes), pairs(3, shape), on_event=events.append)
    assert spec.spatial_ndim == len(shape)
    assert all(np.isfinite(event.loss) for event in events if isinstance(event, EpochEnded))
    found = segment(scene(7, shape)[0], load_model(str(tmp_path / "m"), device="cpu"), axes="ZYX"[-len(shape) :])
    assert np.asarray(found.labels).max() <= 2


@pytest.mark.parametrize("shape", [(48, 48), (16, 24, 24)])
def test_objects(tmp_path: Path, shape: tuple[int, ...]) -> None:
    spec = train(config(tmp_path / "m", task="instances"), pairs(3, shape, objects=True))
    assert (spec.output, spec.decoder, spec.heads) == ("instances", "watershed", ["foreground", "border", "distance"])
    assert "ap50" in spec.training["scores"]
    load_model(str(tmp_path / "m"), device="cpu")


def test_the_planes_of_a_stack_are_learnt_one_by_one(tmp_path: Path) -> None:
    spec = train(config(tmp_path / "m", dimensions="2", epochs=1), pairs(2, (12, 32, 32)))
    assert spec.axes == "CYX"


def test_unlabelled_pixels_count_for_nothing(tmp_path: Path) -> None:
    image, labels = scene(1, (64, 64))
    sparse = np.full_like(labels, 255)
    sparse[:, ::8] = labels[:, ::8]
    lying = np.where(sparse == 255, 254, sparse)  # the same, said otherwise
    specs = [
        train(config(tmp_path / str(value), unlabelled=value, epochs=1, values=(0, 1, 2)), [(image, drawn)])
        for value, drawn in ((255, sparse), (254, lying))
    ]
    assert specs[0].training["curves"] == specs[1].training["curves"]
    assert equal(tmp_path / "255", tmp_path / "254")


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        train(config(tmp_path / name, seed=seed, epochs=1), pairs())
    assert equal(tmp_path / "a", tmp_path / "b")
    assert not equal(tmp_path / "a", tmp_path / "c")


def stopper(epochs: int) -> tuple[Callable[[Any], None], Callable[[], bool]]:
    """Return a listener and a wish to stop, after some epochs."""
    seen: list[Any] = []
    return (lambda event: seen.append(event) if isinstance(event, EpochEnded) else None), (lambda: len(seen) >= epochs)


def test_a_stopped_training_keeps_its_best_and_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    train(config(tmp_path / "straight", epochs=3), pairs())
    listen, stop = stopper(1)
    stopped = train(config(tmp_path / "m", epochs=3), pairs(), on_event=listen, cancel=stop)
    assert stopped.training["ended"] == "stopped"
    assert (tmp_path / "m" / "model.json").is_file()
    events: list[Any] = []
    train(config(tmp_path / "m", epochs=3), pairs(), on_event=events.append)
    assert [event.epoch for event in events if isinstance(event, EpochEnded)] == [2, 3]
    assert [event.message for event in events if isinstance(event, Noted)][:1] == ["Going on after epoch 1 of 3."]
    assert equal(tmp_path / "m", tmp_path / "straight")
    assert not work_folder(tmp_path / "m").exists()


def test_a_training_goes_on_with_its_own_settings_only(tmp_path: Path) -> None:
    listen, stop = stopper(1)
    train(config(tmp_path / "m"), pairs(), on_event=listen, cancel=stop)
    with pytest.raises(OptionsError, match=r"other settings \(batch, seed\)"):
        train(config(tmp_path / "m", batch=1, seed=5), pairs())
    with pytest.raises(OptionsError, match="other images"):
        train(config(tmp_path / "m"), pairs(3))
    train(config(tmp_path / "m", seed=5), pairs(), resume=False, overwrite=True)


def test_what_stopped_before_it_learnt_says_so(tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        train(config(tmp_path / "m"), pairs(), cancel=lambda: True)
    assert not (tmp_path / "m").exists()


def test_it_stops_early_and_the_best_epoch_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.7, 0.6, 0.65, 0.6, 0.9])
    monkeypatch.setattr(training.Validation, "score", lambda self, found: next(scores))
    events: list[Any] = []
    spec = train(config(tmp_path / "m", epochs=6, patience=2), pairs(), on_event=events.append)
    assert spec.training["epoch"] == 2
    assert events[-1].reason == "early"
    assert len(spec.training["curves"]["loss"]) == 4


@pytest.mark.parametrize(("scores", "kept"), [([0.0, 0.0, 0.0], 3), ([0.0, 0.2, 0.0], 2), ([0.0, 0.0, 0.1], 3)])
def test_where_no_epoch_finds_anything_the_last_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: list[float], kept: int
) -> None:
    given = iter(scores)
    monkeypatch.setattr(training.Validation, "score", lambda self, found: next(given))
    events: list[Any] = []
    spec = train(config(tmp_path / "m", epochs=3), pairs(), on_event=events.append)
    assert spec.training["epoch"] == kept
    told = [event.message for event in events if isinstance(event, Noted)]
    assert any("No epoch has found anything" in message for message in told) == (max(scores) == 0)
    assert any("No epoch has found anything" in note for note in spec.training["notes"]) == (max(scores) == 0)


def test_nothing_found_is_no_better_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training.Validation, "score", lambda self, found: 0.0)
    spec = train(config(tmp_path / "m", epochs=6, patience=2), pairs())
    assert (spec.training["ended"], spec.training["epochs"], spec.training["epoch"]) == ("early", 3, 3)


def test_a_loss_that_is_no_number_keeps_the_best_and_names_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = training.Objective.forward
    calls: list[int] = []

    def poisoned(self: Any, scores: torch.Tensor, batch: Any) -> torch.Tensor:
        calls.append(1)
        return forward(self, scores, batch) * (float("nan") if len(calls) == 6 else 1)

    monkeypatch.setattr(training.Objective, "forward", poisoned)
    with pytest.raises(RunError, match=r"became nan at step 6 in a batch of scene \d") as caught:
        train(config(tmp_path / "m"), pairs())
    assert caught.value.kept == tmp_path / "m"
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "m").values())


def test_a_batch_too_large_is_halved_and_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = training.Objective.forward

    def small(self: Any, scores: torch.Tensor, batch: Any) -> torch.Tensor:
        if len(scores) > 2:
            raise torch.OutOfMemoryError
        return forward(self, scores, batch)

    monkeypatch.setattr(training.Objective, "forward", small)
    events: list[Any] = []
    train(config(tmp_path / "m", batch=8, epochs=1), pairs(), on_event=events.append)
    told = [event.message for event in events if isinstance(event, Noted)]
    assert told == ["The device has no memory for the batch; 2 crops are learnt at once, and the result is nearly the same."]


def test_a_crop_too_large_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Any, scores: torch.Tensor, batch: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(training.Objective, "forward", full)
    with pytest.raises(DeviceMemoryError, match="single crop of 48 x 48"):
        train(config(tmp_path / "m"), pairs())


def test_a_full_disk_is_named_and_the_checkpoint_before_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listen, stop = stopper(1)
    train(config(tmp_path / "m", epochs=3), pairs(), on_event=listen, cancel=stop)
    before = (work_folder(tmp_path / "m") / "checkpoint.pt").read_bytes()

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fitting.os, "fsync", full)
        with pytest.raises(OutputError, match="The disk is full"):
            train(config(tmp_path / "m", epochs=3), pairs())
    assert (work_folder(tmp_path / "m") / "checkpoint.pt").read_bytes() == before
    assert train(config(tmp_path / "m", epochs=3), pairs()).training["epochs"] == 3


def test_a_model_is_trained_further_with_a_new_head(trained: tuple[Path, list[Any]], tmp_path: Path) -> None:
    path, _ = trained
    events: list[Any] = []
    merged = [(image, np.minimum(labels, 1)) for image, labels in pairs()]
    few = TrainConfig(
        output=str(tmp_path / "m"),
        start=str(path),
        freeze="encoder",
        classes=("background", "ball"),
        epochs=1,
        epoch_steps=2,
        batch=2,
        device="cpu",
    )
    spec = train(few, merged, on_event=events.append)
    assert spec.classes == ["background", "ball"]
    assert any("Not taken over from balls" in event.message for event in events if isinstance(event, Noted))
    before, after = weights(path), weights(tmp_path / "m")
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith(("stem", "downs", "encoders")) and "num" not in key)
    assert not torch.equal(before["decoders.0.body.0.weight"], after["decoders.0.body.0.weight"])
    assert after["head.weight"].shape[0] == 2


def test_images_that_do_not_fit_into_memory_are_read_from_the_disk(tmp_path: Path) -> None:
    train(config(tmp_path / "memory"), pairs())
    train(config(tmp_path / "disk", memory_limit=1), pairs())
    assert equal(tmp_path / "memory", tmp_path / "disk")


def test_a_model_that_is_there_is_not_overwritten(trained: tuple[Path, list[Any]]) -> None:
    path, _ = trained
    before = (path / "model.json").read_bytes()
    with pytest.raises(OutputError, match="is there already"):
        train(config(path), pairs())
    assert (path / "model.json").read_bytes() == before


def test_pixel_sizes_are_brought_to_one(tmp_path: Path) -> None:
    data = []
    for number, size in enumerate((0.5, 0.5, 0.5, 1.0)):
        image, labels = scene(number, (48, 48) if size == 0.5 else (24, 24))
        data.append((Volume.from_scale(image, "YX", (size, size), units=("micrometer",) * 2, name=f"s{number}"), labels))
    spec = train(config(tmp_path / "m", epochs=1), data)
    assert spec.spacing == (0.5, 0.5)
    assert spec.window == (48, 48)


def test_a_pause_waits(tmp_path: Path) -> None:
    asked: list[int] = []

    def paused() -> bool:
        asked.append(1)
        return len(asked) < 4

    train(config(tmp_path / "m", epochs=1), pairs(), paused=paused)
    assert len(asked) > 4


def test_the_preview_holds_labels_of_the_chosen_image(tmp_path: Path) -> None:
    shown: list[Any] = []

    def listen(event: Any) -> None:
        if isinstance(event, EpochEnded):
            shown.append((event.preview, np.load(event.preview_path)))

    data = pairs(6)
    train(config(tmp_path / "m", epochs=1, val_share=0.4, preview="scene 0", seed=1), data, on_event=listen)
    name, labels = shown[0]
    assert name in {image.name for image, _ in data}
    assert labels.shape == (48, 48)
