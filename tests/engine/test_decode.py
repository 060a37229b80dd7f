"""Decoding equals the plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from napari_tileseg.engine.decode import Classes, Masks, argmax, masks
from napari_tileseg.engine.tiles import Tile

SCORES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)),
    elements=st.one_of(st.integers(-2, 2).map(float), st.floats(-1e6, 1e6, width=32)),
)


@given(SCORES)
def test_the_first_of_the_largest_scores_wins(scores: np.ndarray) -> None:
    labels = argmax(torch.from_numpy(scores.copy()))
    assert labels.dtype == torch.uint8
    np.testing.assert_array_equal(labels.numpy(), scores.argmax(0))


@given(SCORES, st.floats(0, 1))
def test_masks_are_where_the_sigmoid_reaches_the_threshold(scores: np.ndarray, threshold: float) -> None:
    expected = torch.sigmoid(torch.from_numpy(scores)).ge(threshold).numpy()
    np.testing.assert_array_equal(masks(torch.from_numpy(scores.copy()), threshold).numpy(), expected)


@pytest.mark.parametrize(("heads", "dtype"), [(256, np.uint8), (257, np.uint16), (300, np.uint16)])
def test_labels_are_as_small_as_the_classes_allow(heads: int, dtype: type) -> None:
    scores = torch.randn((heads, 3, 4), generator=torch.Generator().manual_seed(0))
    scores[-1, 0, 0] = 99
    decoder = Classes([str(index) for index in range(heads)])
    ((region, labels),) = decoder.add(Tile((0, 0), (3, 4)), scores.clone())
    assert region.shape == (3, 4)
    assert labels.dtype == dtype
    np.testing.assert_array_equal(labels, scores.numpy().argmax(0))
    assert labels[0, 0] == heads - 1


def test_pixels_are_counted_by_class() -> None:
    scores = torch.tensor([[[3.0, 0.0, 0.0]], [[1.0, 2.0, 1.0]]])
    classes = Classes(["background", "cell"])
    list(classes.add(Tile((0, 0), (1, 3)), scores.clone()))
    assert classes.voxels == {"background": 1, "cell": 2}
    both = Masks(["cell", "border"], 0.8)
    list(both.add(Tile((0, 0), (1, 3)), scores.clone()))
    assert both.voxels == {"cell": 1, "border": 1}
    assert both.objects is None
