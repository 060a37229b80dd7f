"""Weights of tiles: those of MONAI, and what every recipe must have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map

from napari_tileseg.engine.weights import gaussian, importance
from napari_tileseg.errors import OptionsError

SHAPES = st.lists(st.integers(1, 40), min_size=2, max_size=3).map(tuple)


@given(SHAPES, st.sampled_from([0.05, 0.125, 0.2, 0.5]))
def test_gaussian_is_monais(shape: tuple[int, ...], sigma: float) -> None:
    expected = compute_importance_map(shape, mode="gaussian", sigma_scale=sigma).numpy()
    np.testing.assert_allclose(gaussian(shape, sigma), expected, rtol=0, atol=2e-7)  # three roundings of float32


@given(SHAPES, st.sampled_from(["gaussian", "constant", "nnunet", "crop"]))
def test_every_pixel_counts_and_the_map_is_shared_safely(shape: tuple[int, ...], blending: str) -> None:
    weights = importance(shape, blending)
    assert weights.shape == shape
    assert weights.dtype == np.float32
    assert weights.min() > 0
    assert not weights.flags.writeable
    assert importance(shape, blending) is weights


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(OptionsError, match="Use gaussian, constant, nnunet, cellpose or crop"):
        importance((4, 4), "hann")
