"""Distances from pixels to the edge of their object, along rays."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_tileseg.engine import stars
from napari_tileseg.engine.rays import Rays, circle, golden_spiral
from napari_tileseg.training.ray_distances import ray_distances
from napari_tileseg.training.targets import object_maps

SAMPLES = Path(__file__).parents[2] / "sample_data"
LABELS = st.sampled_from([(9, 7), (5, 4, 6)]).flatmap(lambda shape: hnp.arrays(np.int32, shape, elements=st.integers(-1, 2)))


def rays_for(labels: np.ndarray, count: int = 8) -> Rays:
    return circle(count) if labels.ndim == 2 else golden_spiral(count, (2.0, 1.0, 1.0))


def measured(labels: np.ndarray, rays: Rays, grid: tuple[int, ...] | None = None) -> np.ndarray:
    return ray_distances(torch.from_numpy(labels.copy()).long()[None], rays, grid or (1,) * labels.ndim)[0].numpy()


def walked(labels: np.ndarray, place: tuple[int, ...], direction: np.ndarray) -> float:
    """Walk a ray by steps of 1 until it leaves the object, and return how far its edge is."""
    steps = 0
    while True:
        step = (steps + 1) * direction
        there = np.array(place) + (np.sign(step) * np.floor(np.abs(step).round(9) + 0.5)).astype(int)
        if (there < 0).any() or (there >= labels.shape).any() or labels[tuple(there)] != labels[place]:
            return float(steps + 0.5 / np.abs(direction).max())
        steps += 1


@given(labels=LABELS)
def test_distances_are_those_of_a_walk(labels: np.ndarray) -> None:
    rays = rays_for(labels)
    found = measured(labels, rays)
    for place in np.ndindex(labels.shape):
        expected = [walked(labels, place, direction) if labels[place] > 0 else 0.0 for direction in rays.directions]
        np.testing.assert_allclose(found[(slice(None), *place)], expected, rtol=1e-6)


@given(labels=LABELS, step=st.integers(1, 4))
def test_a_grid_takes_some_of_the_pixels(labels: np.ndarray, step: int) -> None:
    rays = rays_for(labels)
    grid = (1, *(step,) * (labels.ndim - 1))
    np.testing.assert_array_equal(
        measured(labels, rays, grid), measured(labels, rays)[(slice(None), *(slice(None, None, by) for by in grid))]
    )


@given(labels=hnp.arrays(np.int32, (9, 7), elements=st.integers(0, 2)), count=st.sampled_from([4, 12, 32]))
def test_a_mirror_image_has_the_rays_of_the_mirror(labels: np.ndarray, count: int) -> None:
    plain, rays = measured(labels, circle(count)), np.arange(count)
    np.testing.assert_allclose(measured(labels[::-1], circle(count)), plain[-rays % count][:, ::-1], rtol=1e-6)
    np.testing.assert_allclose(measured(labels[:, ::-1], circle(count)), plain[(count // 2 - rays) % count][:, :, ::-1], rtol=1e-6)
    turned = measured(np.rot90(labels), circle(count))  # X becomes minus Y
    np.testing.assert_allclose(turned, np.rot90(plain[(rays + count // 4) % count], axes=(1, 2)), rtol=1e-6)


def test_crops_of_a_batch_do_not_meet() -> None:
    labels = torch.ones(2, 6, 8, dtype=torch.int64)
    labels[1] = 0
    both = ray_distances(labels, circle(4), (1, 1))
    assert both.shape == (2, 4, 6, 8)
    torch.testing.assert_close(both[:1], ray_distances(labels[:1], circle(4), (1, 1)))
    assert not both[1].any()
    # To the border of the crop: 8 pixels to the right of the first one's left edge, half of that pixel not counted.
    assert both[0, 0, 0, 0] == 7.5


@pytest.mark.parametrize(("count", "share"), [(16, 0.8), (32, 0.95)])
def test_the_decoder_gives_nuclei_back(count: int, share: float) -> None:
    labels = tifffile.imread(SAMPLES / "nuclei_fluorescence_labels.tif")[:256, :320].astype(np.int32)
    likely = object_maps(labels)[0].clip(1e-6, 1 - 1e-6)
    scores = np.concatenate([np.log(likely / (1 - likely))[None], measured(labels, circle(count))])
    found = stars.decode(scores, stars.DEFAULTS)
    overlaps = [best_overlap(labels, found, number) for number in np.unique(labels)[1:] if (labels == number).sum() >= 40]
    assert len(overlaps) >= 12
    assert np.mean(np.array(overlaps) > 0.9) >= share
    assert min(overlaps) > 0.75


def test_the_decoder_gives_balls_back() -> None:
    grid = np.indices((24, 40, 40))
    labels = np.zeros(grid.shape[1:], np.int32)
    for number, (centre, radius) in enumerate([((10, 12, 12), 7), ((12, 26, 26), 9), ((8, 10, 30), 6)], start=1):
        apart = [(grid[axis] - centre[axis]) * (1.5 if axis == 0 else 1) for axis in range(3)]
        labels[sum(along**2 for along in apart) < radius**2] = number
    likely = object_maps(labels)[0].clip(1e-6, 1 - 1e-6)
    rays = golden_spiral(64, (1.5, 1.0, 1.0))
    scores = np.concatenate([np.log(likely / (1 - likely))[None], measured(labels, rays)])
    found = stars.decode(scores, {**stars.DEFAULTS, "anisotropy_z": 1.5})
    assert found.max() == 3
    assert all(best_overlap(labels, found, number) > 0.85 for number in (1, 2, 3))


def best_overlap(labels: np.ndarray, found: np.ndarray, number: int) -> float:
    """Return the IoU of an object and the one that meets it most."""
    inside = labels == number
    meets = np.bincount(found[inside])
    meets[0] = 0
    other = found == meets.argmax() if meets.any() else np.zeros_like(inside)
    return float((inside & other).sum() / (inside | other).sum())
