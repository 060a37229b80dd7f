"""Labels of a first model come to the second one's grid as channels."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from napari_tileseg.engine.cascade import LabelSource, StackedSource, resampled_labels
from napari_tileseg.engine.grid import Grid
from napari_tileseg.engine.interpolate import Kernel


def labels_of(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return np.digitize(noise, np.quantile(noise, [0.2, 0.6, 0.8])) - 1


def whole(labels: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return for each pixel of the new grid the label with the largest share, by SciPy, and by how much it leads."""
    zooms = [new / old for new, old in zip(shape, labels.shape, strict=True)]
    values = np.unique(labels)
    shares = np.stack([ndimage.zoom((labels == value).astype(float), zooms, order=1, mode="nearest", grid_mode=True) for value in values])
    ordered = np.sort(shares, axis=0)
    return values[shares.argmax(0)], ordered[-1] - (ordered[-2] if len(values) > 1 else 0)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    image=st.tuples(*[st.integers(4, 16)] * 3),
    model=st.tuples(*[st.integers(4, 20)] * 3),
    data=st.data(),
)
def test_the_largest_share_wins_whatever_is_read_at_once(
    seed: int, image: tuple[int, ...], model: tuple[int, ...], data: st.DataObject
) -> None:
    labels, grid = labels_of(seed, image), Grid(image, model)
    expected, lead = whole(labels, model)
    found = resampled_labels(lambda region: labels[region], tuple(slice(0, size) for size in model), grid, (1, 1, 1))
    clear = lead > 1e-6
    np.testing.assert_array_equal(found[clear], expected[clear])
    spans = [sorted(data.draw(st.tuples(st.integers(0, size - 1), st.integers(1, size)))) for size in model]
    region = tuple(slice(low, max(high, low + 1)) for low, high in spans)
    np.testing.assert_array_equal(resampled_labels(lambda part: labels[part], region, grid, (1, 1, 1)), found[region])


def test_where_two_share_a_place_the_nearest_one_wins() -> None:
    labels = np.array([[0, 0, 2, 2, 1, 1]])
    found = resampled_labels(lambda region: labels[region], (slice(0, 1), slice(0, 3)), Grid((1, 6), (1, 3)), (1, 1))
    assert found.tolist() == [[0, 2, 1]]
    slanted = np.array([[0, 1], [2, 2]])  # 2 has half of the middle, 0 and 1 a quarter each
    middle = resampled_labels(lambda region: slanted[region], (slice(0, 1), slice(0, 1)), Grid((2, 2), (1, 1)), (1, 1))
    assert middle.tolist() == [[2]]


def test_slices_are_not_mixed() -> None:
    labels = np.zeros((3, 4, 4), int)
    labels[1] = 1
    found = resampled_labels(lambda region: labels[region], (slice(0, 6), slice(0, 8), slice(0, 8)), Grid((3, 4, 4), (6, 8, 8)), (0, 1, 1))
    assert found.any(axis=(1, 2)).tolist() == [False, False, True, True, False, False]


def test_each_class_is_a_channel_beside_those_of_the_image() -> None:
    labels = np.array([[0, 1, 2], [-1, 3, 1]])
    masks = LabelSource(lambda region: labels[region], (1, 2, 3), Grid((2, 3), (2, 3)), Kernel((1, 1)))
    stacked = StackedSource(masks, masks)
    assert stacked.shape == (6, 2, 3)
    found = stacked.read((slice(0, 2), slice(1, 3)))
    assert found.dtype == np.float32
    assert found[:3].tolist() == [[[1, 0], [0, 1]], [[0, 1], [0, 0]], [[0, 0], [1, 0]]]
