"""Cutting, warping and recolouring: image and labels stay together, and nothing is invented."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.errors import OptionsError
from napari_tileseg.training.augment import Augmentation, cut, random_field, random_matrix, recolor
from napari_tileseg.training.data import Example
from napari_tileseg.training.sampling import Sampler

STRONG = Augmentation(
    size=(24, 16),
    wide_share=0.5,
    rotation=180,
    rotation_share=0.7,
    stretch=0.1,
    right_angles=True,
    flips=(True, True),
    gamma=0.5,
    contrast=0.3,
    brightness=0.1,
    noise=0.1,
    blur=1.5,
    blur_share=0.5,
    gradient=0.2,
    inversion_share=0.3,
    grey_share=0.3,
    permute_share=0.3,
    clip=(-0.2, 1.5),
)


def example(shape: tuple[int, ...], *, channels: int = 1, seed: int = 0, group: str = "blobs") -> Example:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 4, shape).astype(np.int32)
    image = generator.random((channels, *shape)).astype(np.float16)
    return Example("example", group, image, labels, labels[None].astype(np.float16))


@pytest.mark.parametrize("shape", [(9, 12), (7, 6, 8)])
def test_an_unturned_crop_is_a_slice(shape: tuple[int, ...]) -> None:
    whole = example(shape, channels=2)
    size = (4,) * len(shape)
    start = np.arange(len(shape)) + 1
    crop = cut(whole, np.eye(len(shape)), start + 1.5, size)
    window = tuple(slice(low, low + 4) for low in start)
    np.testing.assert_allclose(crop.image, whole.image[(slice(None), *window)], atol=1e-5)
    np.testing.assert_array_equal(crop.labels, whole.labels[window])
    np.testing.assert_allclose(crop.maps, whole.maps[(slice(None), *window)], atol=1e-5)


@given(turns=st.integers(0, 3), mirror=st.booleans())
def test_quarter_turns_and_mirrors_are_exact(turns: int, mirror: bool) -> None:
    whole = example((10, 10))
    matrix = np.linalg.matrix_power(np.array([[0.0, 1.0], [-1.0, 0.0]]), turns)
    if mirror:
        matrix = matrix @ np.diag([1.0, -1.0])
    crop = cut(whole, matrix, np.array([4.5, 4.5]), (10, 10))
    found = crop.labels.numpy()
    # Row r of the crop is read at matrix @ (r - middle) + middle.
    rows, columns = np.tensordot(matrix, np.indices((10, 10)) - 4.5, 1) + 4.5
    np.testing.assert_array_equal(found, whole.labels[rows.round().astype(int), columns.round().astype(int)])
    np.testing.assert_allclose(crop.maps[0], found, atol=1e-3)


def test_outside_of_the_image_everything_is_zero() -> None:
    crop = cut(example((6, 6)), np.eye(2), np.array([2.5, 2.5]), (12, 12))
    assert not crop.labels[:3].any()
    assert crop.image[:, :, :3].abs().max() < 1e-5
    assert crop.labels[3:9, 3:9].any()


def test_an_image_of_one_pixel_can_be_cut() -> None:
    crop = cut(example((1, 1), seed=3), np.eye(2), np.zeros(2), (3, 3))
    assert crop.image.shape == (1, 3, 3)
    assert torch.isfinite(crop.image).all()


@given(seed=st.integers(0, 10**6))
def test_image_and_labels_are_warped_alike(seed: int) -> None:
    shape = (60, 60)
    y, x = np.indices(shape)
    labels = (np.hypot(y - 30, x - 30) < 15).astype(np.int32)
    whole = Example("disc", "disc", labels[None].astype(np.float16), labels, labels[None].astype(np.float16))
    generator = np.random.default_rng(seed)
    matrix, zoom = random_matrix(STRONG, generator)
    field = random_field(replace(STRONG, elastic=2.0, elastic_share=0.7), generator)
    crop = cut(whole, matrix, np.array([30.0, 30.0]), STRONG.size, zoom, field)
    # Linear and nearest sampling agree within half a pixel of the outline, that is, everywhere but where the image is between 0 and 1.
    certain = (crop.image[0] < 0.01) | (crop.image[0] > 0.99)
    np.testing.assert_array_equal(crop.labels[certain], crop.image[0][certain] > 0.5)
    assert 0.49 < zoom < 2.01


@pytest.mark.parametrize("shape", [(9, 12), (9, 8, 10)])
def test_an_even_displacement_is_another_centre(shape: tuple[int, ...]) -> None:
    whole, size, centre = example(shape), (4,) * len(shape), np.full(len(shape), 3.5)
    matrix = np.eye(len(shape))[::-1] * 1.0
    by = torch.arange(len(shape), dtype=torch.float32)
    moved = cut(whole, matrix, centre, size, field=by.expand(*size, -1))
    other = cut(whole, matrix, centre + matrix @ by.double().numpy(), size)
    torch.testing.assert_close(moved.image, other.image, atol=1e-4, rtol=0)
    assert torch.equal(moved.labels, other.labels)


def test_an_elastic_warp_is_smooth_and_as_strong_as_asked() -> None:
    elastic = Augmentation(size=(40, 30, 20), elastic=2.0, elastic_share=1.0)
    fields = torch.stack([random_field(elastic, np.random.default_rng(seed)) for seed in range(40)])
    assert fields.shape == (40, 40, 30, 20, 3)
    assert 1.0 < fields.std() < 2.0, "linear interpolation between the nodes weakens it a little"
    assert fields.diff(dim=1).abs().mean() < 0.25, "neighbours move together"
    assert random_field(replace(elastic, elastic_share=0.0), np.random.default_rng(0)) is None


@given(seed=st.integers(0, 10**6), channels=st.sampled_from([1, 3]))
def test_recoloured_images_stay_finite_and_in_range(seed: int, channels: int) -> None:
    generator = np.random.default_rng(seed)
    image = torch.from_numpy(generator.normal(0.5, 1, (channels, 9, 8)).astype(np.float32))
    changed = recolor(image, STRONG, generator)
    assert changed.shape[1:] == image.shape[1:]
    assert len(changed) in (1, channels)
    assert changed.dtype == torch.float32
    assert changed.min() >= -0.2
    assert changed.max() <= 1.5


def test_without_augmentation_nothing_changes() -> None:
    image = torch.rand(3, 8, 8)
    torch.testing.assert_close(recolor(image, Augmentation(size=(8, 8)), np.random.default_rng(0)), image)


def test_a_batch_depends_on_seed_and_number_only() -> None:
    examples = [example((40, 50), channels=3, seed=seed) for seed in range(3)]
    make = lambda seed: Sampler(examples, STRONG, channels=3, batch=4, seed=seed)  # noqa: E731
    first, again, later, other = make(0).batch(7), make(0).batch(7), make(0).batch(8), make(1).batch(7)
    torch.testing.assert_close(first.image, again.image)
    torch.testing.assert_close(first.labels, again.labels)
    assert not torch.equal(first.image, later.image)
    assert not torch.equal(first.image, other.image)
    assert first.image.shape == (4, 3, 24, 16)
    assert first.labels.dtype == torch.int64


def test_shares_decide_which_groups_are_seen() -> None:
    dark = replace(example((30, 30), group="dark"), image=np.zeros((1, 30, 30), np.float16))
    light = replace(example((30, 30), group="light"), image=np.ones((1, 30, 30), np.float16))
    plain = Augmentation(size=(8, 8))
    batch = Sampler([dark, light, light], plain, channels=1, batch=300, shares={"dark": 0.8, "light": 0.2}).batch(0)
    assert 0.7 < float((batch.image.amax((1, 2, 3)) == 0).float().mean()) < 0.9
    assert Sampler([dark, light], plain, channels=1, batch=20, shares={"light": 1.0}).batch(0).image.min() > 0.99


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_large_images_are_seen_more_often_within_their_group_only(power: float) -> None:
    examples = [
        replace(example((side, side), group=group), name=name)
        for name, side, group in [("small", 8, "cells"), ("large", 32, "cells"), ("huge", 64, "tissue")]
    ]
    sampler = Sampler(examples, Augmentation(size=(4, 4)), channels=1, batch=1000, shares={"cells": 0.5, "tissue": 0.5}, by_size=power)
    seen = Counter(sampler.batch(0).names)
    assert seen["huge"] == pytest.approx(500, abs=80)
    assert seen["small"] == pytest.approx(500 / (1 + 16**power), abs=45)


def test_centred_crops_show_an_object() -> None:
    labels = np.zeros((200, 200), np.int32)
    labels[150:154, 40:44] = 1
    rare = Example("rare", "rare", np.zeros((1, 200, 200), np.float16), labels, np.zeros((0, 200, 200), np.float16))
    batch = Sampler([rare], Augmentation(size=(16, 16)), channels=1, batch=10, centred=1.0).batch(0)
    assert (batch.labels.amax((1, 2)) == 1).all()


def test_nothing_to_sample_is_refused() -> None:
    with pytest.raises(OptionsError, match="nothing to train on"):
        Sampler([], STRONG, channels=1, batch=1)
    with pytest.raises(OptionsError, match="The groups are blobs"):
        Sampler([example((9, 9))], STRONG, channels=1, batch=1, shares={"other": 1.0})
