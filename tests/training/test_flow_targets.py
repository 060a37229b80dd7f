"""Flows that are learnt: they turn with a crop, and the decoder still finds the objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.engine import flows
from napari_tileseg.engine.heat import flows_of
from napari_tileseg.training.augment import Augmentation, cut, random_field
from napari_tileseg.training.data import Example
from napari_tileseg.training.vectors import turned

SAMPLES = Path(__file__).parents[2] / "sample_data"


def example(labels: np.ndarray) -> Example:
    maps = flows_of(labels).astype(np.float16)
    return Example("nuclei", "nuclei", labels[None].astype(np.float16), labels, maps, vectors=True)


def nuclei() -> np.ndarray:
    return tifffile.imread(SAMPLES / "nuclei_fluorescence_labels.tif")[200:480, 300:640].astype(np.int32)


def best_overlaps(labels: np.ndarray, found: np.ndarray, least: int) -> np.ndarray:
    """Return the IoU of each object of that many pixels with the one that meets it most."""
    table = np.histogram2d(labels.ravel(), found.ravel(), bins=[np.arange(labels.max() + 2), np.arange(found.max() + 2)])[0]
    sizes, others = table.sum(1)[1:, None], table.sum(0)[None, 1:]
    overlaps = table[1:, 1:] / (sizes + others - table[1:, 1:])
    kept: np.ndarray = overlaps.max(1)[sizes[:, 0] >= least]
    return kept


def decoded(labels: np.ndarray, directions: np.ndarray) -> np.ndarray:
    scores = np.concatenate([np.where(labels > 0, 6, -6)[None], flows.FLOW_SCALE * directions]).astype(np.float32)
    return flows.decode(scores, {**flows.DEFAULTS, "flow_threshold": 0.0})


@given(angle=st.floats(-3.2, 3.2), zoom=st.floats(0.3, 3), mirror=st.booleans(), seed=st.integers(0, 9))
def test_vectors_turn_back_as_they_came(angle: float, zoom: float, mirror: bool, seed: int) -> None:
    vectors = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, 3, 4)).astype(np.float32))
    vectors = vectors / vectors.square().sum(0).sqrt()
    vectors[:, 0, 0] = 0
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.diag([-1.0 if mirror else 1.0, 1.0]) / zoom
    found = turned(vectors, matrix)
    assert not found[:, 0, 0].any()
    lengths = found.square().sum(0).sqrt().flatten()[1:]
    torch.testing.assert_close(lengths, torch.ones(11))
    torch.testing.assert_close(turned(found, np.linalg.inv(matrix)), vectors, atol=1e-5, rtol=0)


@pytest.mark.parametrize("matrix", [[[-1, 0], [0, 1]], [[1, 0], [0, -1]], [[0, 1], [-1, 0]], [[0, 1], [1, 0]]])
def test_flows_of_a_turned_image_are_turned_flows(matrix: list[list[int]]) -> None:
    labels = nuclei()[:120, :120]
    crop = cut(example(labels), np.array(matrix, float), np.array([59.5, 59.5]), (120, 120))
    expected = flows_of(crop.labels.numpy().astype(np.int32))
    inside = crop.labels.numpy() > 0
    # The middle of an object is a pixel, and of several that are as near as each other the first in its own order.
    close = (np.abs(crop.maps.numpy() - expected) < 0.02).all(0)
    assert close[inside].mean() > 0.97


@pytest.mark.parametrize("bent", [False, True])
def test_the_decoder_finds_the_objects_of_a_turned_crop(bent: bool) -> None:
    labels = nuclei()
    angle, zoom = 0.5, 1.2
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    generator = np.random.default_rng(2)
    field = random_field(Augmentation(size=(240, 240), elastic=1.5, elastic_share=1.0), generator) if bent else None
    crop = cut(example(labels), matrix, np.array([140.0, 170.0]), (240, 240), zoom, field)
    within = crop.labels.numpy().astype(np.int32)
    overlaps = best_overlaps(within, decoded(within, crop.maps.numpy()), 60)
    assert len(overlaps) >= 6
    assert overlaps.min() > (0.6 if bent else 0.8)
    assert np.mean(overlaps > 0.9) >= 0.8


def test_flows_that_do_not_turn_lose_the_objects() -> None:
    labels = nuclei()
    crop = cut(example(labels), np.array([[-1.0, 0], [0, 1]]), np.array([139.5, 169.5]), (280, 340))
    unturned = crop.maps.numpy() * np.array([-1, 1]).reshape(2, 1, 1)
    within = crop.labels.numpy().astype(np.int32)
    assert np.mean(best_overlaps(within, decoded(within, crop.maps.numpy()), 60) > 0.9) > 0.9
    assert np.mean(best_overlaps(within, decoded(within, unturned), 60) > 0.9) < 0.2
