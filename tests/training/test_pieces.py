"""The parts of a training one by one: what is drawn, what counts, how parts of a batch add up, how the rate falls."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scenes import folders, scene

from napari_tileseg import Volume
from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.training.augment import Augmentation, cut, recolor
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.data import Example
from napari_tileseg.training.fit import Finished, FitOptions, fit, learning_rate
from napari_tileseg.training.objective import Objective, crop_to
from napari_tileseg.training.plan import make_plan
from napari_tileseg.training.prepare import IGNORED, prepare_items, to_classes
from napari_tileseg.training.report import inspect
from napari_tileseg.training.sampling import Batch, Sampler

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.models.spec import ModelSpec


def example(labels: NDArray[np.int32], places: dict[int, NDArray[np.int32]] | None = None) -> Example:
    image = np.arange(labels.size, dtype=np.float16).reshape(1, *labels.shape) / labels.size
    return Example("x", "x", image, labels, np.zeros((0, *labels.shape), np.float16), places, IGNORED)


def batch(labels: torch.Tensor, maps: int = 0) -> Batch:
    count = len(labels)
    return Batch(torch.zeros(count, 1, *labels.shape[1:]), labels, torch.zeros(count, maps, *labels.shape[1:]), torch.ones(count))


# What is drawn


def test_beyond_the_image_labels_are_unknown_and_pixels_mirrored() -> None:
    item = example(np.ones((8, 8), np.int32))
    crop = cut(item, np.eye(2), np.array([3.5, 3.5]), (12, 12), padding="reflect")
    assert (crop.labels[2:10, 2:10] == 1).all()
    assert (crop.labels[:2] == IGNORED).all()
    expected = np.pad(item.image[0].astype(np.float32), 2, mode="reflect")
    np.testing.assert_allclose(crop.image[0].numpy(), expected, atol=1e-5)


def test_crops_are_centred_on_every_class_alike() -> None:
    labels = np.zeros((60, 60), np.int32)
    labels[5:55, 5:40] = 1
    labels[50, 50] = 2  # one pixel of a rare class
    places = {1: np.argwhere(labels == 1).astype(np.int32), 2: np.argwhere(labels == 2).astype(np.int32)}
    sampler = Sampler([example(labels, places)], Augmentation((9, 9), zoom=(1.0, 1.0)), channels=1, batch=200, centred=1.0)
    drawn = sampler.batch(0)
    rare = (drawn.labels == 2).flatten(1).any(1).float().mean()
    assert 0.35 < rare < 0.65
    assert drawn.names == ("x",) * 200


def test_of_sparse_labels_only_labelled_places_are_drawn() -> None:
    labels = np.full((60, 60), IGNORED, np.int32)
    labels[30, 10:14], labels[30, 44:48] = 0, 1
    places = {value: np.argwhere(labels == value).astype(np.int32) for value in (0, 1)}
    sampler = Sampler([example(labels, places)], Augmentation((5, 5), zoom=(1.0, 1.0)), channels=1, batch=50, centred=0.0)
    assert (sampler.batch(0).labels != IGNORED).flatten(1).any(1).all()


def test_stain_changes_colours_but_neither_white_nor_shape() -> None:
    image = torch.rand(3, 12, 12, generator=torch.Generator().manual_seed(0))
    image[:, :3] = 1.0
    changed = recolor(image, Augmentation((12, 12), stain=0.3, clip=(0.0, 1.0)), np.random.default_rng(0))
    assert changed.shape == image.shape
    torch.testing.assert_close(changed[:, :3], image[:, :3])
    assert (changed[:, 3:] - image[:, 3:]).abs().max() > 0.02


@given(st.lists(st.integers(0, 300), min_size=2, max_size=6, unique=True), st.integers(0, 2**32 - 1))
def test_numbers_become_classes_and_can_be_told_back(values: list[int], seed: int) -> None:
    drawn = np.random.default_rng(seed).integers(0, len(values), (5, 5))
    labels = np.asarray(values)[drawn]
    np.testing.assert_array_equal(to_classes(labels, values, None), drawn)
    known = to_classes(labels, values[1:], values[0])
    np.testing.assert_array_equal(known, np.where(drawn == 0, IGNORED, drawn - 1))


def test_a_file_that_changes_while_it_is_looked_at_is_named(tmp_path: Path) -> None:
    places = folders(tmp_path)
    config = TrainConfig(**places)
    report = inspect(config)
    spec = make_plan(config, report, "m").spec
    path = tmp_path / "images" / f"{report.train[1].name}.png"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(InputError, match=f'"{report.train[1].name}" has changed'):
        prepare_items(report.train, report, spec, folder=tmp_path / "prepared")


def test_large_images_lie_on_the_disk_and_give_the_same_crops(tmp_path: Path) -> None:
    config = TrainConfig()
    report = inspect(config, [scene(number, (64, 64)) for number in range(3)])
    spec = make_plan(config, report, "m").spec
    made = [prepare_items(report.train, report, spec, folder=tmp_path, memory_limit=limit) for limit in (1, 10**9)]
    assert all(isinstance(item.image, np.memmap) for item in made[0])
    assert not any(isinstance(item.image, np.memmap) for item in made[1])
    drawn = [Sampler(items, Augmentation((32, 32)), channels=1, batch=4).batch(3) for items in made]
    torch.testing.assert_close(drawn[0].image, drawn[1].image, rtol=0, atol=0)


def test_objects_of_all_sizes_are_drawn_and_numbers_are_small(tmp_path: Path) -> None:
    image, labels = scene(0, (64, 64), objects=True)
    large = labels.astype(np.int64) * 2**28
    config = TrainConfig(task="instances", val_share=0)
    report = inspect(config, [(Volume(image, "YX"), large)])
    item = prepare_items(report.train, report, make_plan(config, report, "m").spec, folder=tmp_path)[0]
    assert set(np.unique(item.labels)) == set(range(int(labels.max()) + 1))
    assert item.places is not None
    assert set(item.labels[tuple(item.places[1].T)]) == set(range(1, int(labels.max()) + 1))


# What counts


@pytest.mark.parametrize("name", ["ce_dice", "focal", "lovasz_softmax", "tversky", "instances"])
def test_what_is_unknown_has_no_gradient(name: str) -> None:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 3, (2, 16, 16), generator=generator)
    labels[:, :, 8:] = IGNORED
    scores = torch.randn(2, 3, 16, 16, generator=generator, requires_grad=True)
    loss = Objective(name, {})(scores, batch(labels, 2))
    loss.backward()
    assert torch.isfinite(loss)
    assert scores.grad is not None
    assert scores.grad[..., 8:].abs().max() < 1e-6
    assert scores.grad[..., :8].abs().max() > 1e-4


def test_labels_are_cut_to_what_the_network_returns() -> None:
    labels = torch.arange(100).reshape(1, 10, 10)
    torch.testing.assert_close(crop_to(labels, torch.zeros(1, 2, 6, 4)), labels[:, 2:8, 3:7])


# How it is learnt


def draw(number: int) -> Batch:
    generator = torch.Generator().manual_seed(number)
    labels = torch.randint(0, 2, (4, 16, 16), generator=generator)
    return replace(batch(labels), image=labels[:, None] + 0.1 * torch.randn(4, 1, 16, 16, generator=generator))


class PixelLoss(torch.nn.Module):
    def forward(self, scores: torch.Tensor, drawn: Batch) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(scores, drawn.labels)


def learn(**options: Any) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 1))
    *_, finished = fit(network, PixelLoss(), draw, FitOptions(steps=5, precision="float32", average=0.5, **options))
    assert isinstance(finished, Finished)
    return finished.state


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_accumulated_parts_are_one_batch(optimizer: str) -> None:
    whole, parts = learn(optimizer=optimizer), learn(optimizer=optimizer, accumulation=4)
    for key, value in whole.items():
        torch.testing.assert_close(parts[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "one_cycle", "constant"])
def test_rates_rise_to_the_highest_and_fall(schedule: str) -> None:
    options = FitOptions(steps=100, learning_rate=0.1, warmup=0.1, schedule=schedule)
    rates = [learning_rate(step / 100, options) for step in range(101)]
    top = rates.index(max(rates))
    assert max(rates) == pytest.approx(0.1)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert rates[-1] == pytest.approx(0.1 if schedule == "constant" else 0.0, abs=1e-12)


@pytest.mark.parametrize(("field", "value"), [("optimizer", "lion"), ("schedule", "steps")])
def test_unknown_ways_to_learn_are_refused(field: str, value: str) -> None:
    with pytest.raises(OptionsError, match=field):
        FitOptions(steps=1, **{field: value})  # type: ignore[arg-type]


def test_a_model_that_grey_images_may_feed_takes_both(tmp_path: Path) -> None:
    grey, labels = scene(0, objects=True)
    colour = np.stack([grey] * 3, axis=-1)
    data = [(Volume(grey, "YX", name="grey"), labels), (Volume(colour, "YXC", name="colour"), labels[::-1].copy())]
    config = TrainConfig(start="nuclei-2d", task="instances", val_share=0.5)
    report = inspect(config, data)
    assert len(report.facts) == 2
    spec: ModelSpec = make_plan(config, report, "m").spec
    assert (spec.output, len(spec.channels), spec.heads) == ("instances", 3, ["foreground", "border", "distance"])
