"""Weights of tiles: those of MONAI, and what every recipe must have."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map

from napari_tileseg.engine.weights import gaussian, importance, taper
from napari_tileseg.errors import OptionsError

SHAPES = st.lists(st.integers(1, 40), min_size=2, max_size=3).map(tuple)


@given(SHAPES, st.sampled_from([0.05, 0.125, 0.2, 0.5]))
def test_gaussian_is_monais(shape: tuple[int, ...], sigma: float) -> None:
    expected = compute_importance_map(shape, mode="gaussian", sigma_scale=sigma).numpy()
    np.testing.assert_allclose(gaussian(shape, sigma), expected, rtol=0, atol=2e-7)  # three roundings of float32


@given(SHAPES, st.sampled_from(["gaussian", "constant", "nnunet", "cellpose", "crop"]))
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


def test_the_taper_is_cellposes() -> None:
    # From transforms._taper_mask of Cellpose 3.1 at its corner, the middle of a border, and the middle.
    weights = taper((224, 224))
    assert np.allclose([weights[0, 0], weights[0, 112], weights[112, 112]], [0.00478012, 0.06913807, 0.99998994], rtol=1e-5)
    assert np.allclose(taper((100, 224)), weights[62:162])
