"""Distances between surfaces: against the definition, by brute force, and against MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_tileseg.training.surfaces import average_distance, hausdorff, surface_distances

MASKS = hnp.arrays(np.bool_, (6, 7))


def surface(mask: np.ndarray) -> np.ndarray:
    """Return the indices of the pixels with a direct neighbour outside, one by one."""
    padded = np.pad(mask, 1)
    found = []
    for index in np.argwhere(padded):
        around = [tuple(index + step * np.eye(mask.ndim, dtype=int)[axis]) for axis in range(mask.ndim) for step in (-1, 1)]
        if not all(padded[place] for place in around):
            found.append(index - 1)
    return np.array(found)


@given(prediction=MASKS, reference=MASKS, spacing=st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)))
@settings(max_examples=60)
def test_distances_are_those_of_brute_force(prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, float]) -> None:
    found = surface_distances(prediction, reference, spacing)
    if not prediction.any() or not reference.any():
        assert found is None
        return
    assert found is not None
    here, there = surface(prediction) * spacing, surface(reference) * spacing
    apart = np.linalg.norm(here[:, None] - there[None], axis=2)
    np.testing.assert_allclose(np.sort(found.to_reference), np.sort(apart.min(axis=1)))
    np.testing.assert_allclose(np.sort(found.to_prediction), np.sort(apart.min(axis=0)))
    assert average_distance(found) == pytest.approx((apart.min(axis=1).mean() + apart.min(axis=0).mean()) / 2)


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")  # MONAI calls its own deprecated argument
def test_they_equal_monais() -> None:
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    rng = np.random.default_rng(3)
    prediction, reference = (np.zeros((12, 14, 16), bool) for _ in range(2))
    prediction[2:9, 3:11, 4:12] = rng.random((7, 8, 8)) < 0.9
    reference[3:10, 2:10, 5:14] = rng.random((7, 8, 9)) < 0.9
    spacing = (2.0, 1.0, 0.5)
    found = surface_distances(prediction, reference, spacing)
    assert found is not None
    one, another = (torch.from_numpy(mask)[None, None].float() for mask in (prediction, reference))
    largest = compute_hausdorff_distance(one, another, include_background=True, spacing=spacing)
    assert hausdorff(found, 100) == pytest.approx(float(largest), rel=1e-5)
    directed = compute_hausdorff_distance(one, another, include_background=True, percentile=95, directed=True, spacing=spacing)
    assert np.percentile(found.to_reference, 95) == pytest.approx(float(directed), rel=1e-5)
    symmetric = compute_average_surface_distance(one, another, include_background=True, symmetric=True, spacing=spacing)
    assert found.both.mean() == pytest.approx(float(symmetric), rel=1e-5)


def test_a_shifted_square_lies_as_far_as_it_was_shifted() -> None:
    reference = np.zeros((40, 40), bool)
    reference[10:20, 10:20] = True
    shifted = np.roll(reference, 4, axis=1)
    found = surface_distances(shifted, reference, (0.5, 0.25))
    assert hausdorff(found, 100) == pytest.approx(1.0)
    assert hausdorff(surface_distances(reference, reference)) == average_distance(surface_distances(reference, reference)) == 0.0
    assert np.isnan(hausdorff(None)) and np.isnan(average_distance(None))
