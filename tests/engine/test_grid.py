"""Two grids over one box: read in tiles or whole, there and back."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.engine.grid import Grid, ResampledSink, ResampledSource

SIZES = st.integers(1, 40)


class Whole:
    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape = array.shape

    def read(self, region: tuple[slice, ...]) -> np.ndarray:
        assert all(0 <= span.start < span.stop <= size for span, size in zip(region, self.shape[1:], strict=True))
        return self.array[(slice(None), *region)]


class Canvas:
    def __init__(self, shape: tuple[int, ...]) -> None:
        self.array = np.full(shape, -1)

    def write(self, region: tuple[slice, ...], labels: np.ndarray) -> None:
        assert (self.array[region] == -1).all(), "a pixel was written twice"
        self.array[region] = labels

    def write_scores(self, region: tuple[slice, ...], scores: np.ndarray) -> None:
        self.write(region, scores[0])


@given(image=st.tuples(SIZES, SIZES), model=st.tuples(SIZES, SIZES), data=st.data())
@settings(deadline=None, max_examples=80)
def test_a_tile_holds_what_the_whole_image_has_there(image: tuple[int, int], model: tuple[int, int], data: st.DataObject) -> None:
    source = ResampledSource(Whole(np.random.default_rng(0).random((2, *image)).astype(np.float32)), Grid(image, model))
    whole = source.read((slice(0, model[0]), slice(0, model[1])))
    assert whole.shape == source.shape == (2, *model)
    y0, x0 = data.draw(st.integers(0, model[0] - 1)), data.draw(st.integers(0, model[1] - 1))
    y1, x1 = data.draw(st.integers(y0 + 1, model[0])), data.draw(st.integers(x0 + 1, model[1]))
    np.testing.assert_allclose(source.read((slice(y0, y1), slice(x0, x1))), whole[:, y0:y1, x0:x1], atol=1e-6)


@given(image=st.tuples(SIZES, SIZES), model=st.tuples(SIZES, SIZES), cuts=st.lists(st.integers(1, 39), max_size=5))
@settings(deadline=None, max_examples=80)
def test_labels_come_back_to_every_pixel_once_however_they_are_cut(image: tuple[int, int], model: tuple[int, int], cuts: list[int]) -> None:
    grid = Grid(image, model)
    labels = np.arange(model[0] * model[1]).reshape(model)
    canvas = Canvas(image)
    sink = ResampledSink(canvas, grid)
    edges = [0, *sorted({cut for cut in cuts if cut < model[0]}), model[0]]
    for start, stop in itertools.pairwise(edges):
        sink.write((slice(start, stop), slice(0, model[1])), labels[start:stop])
    expected = labels[np.ix_(grid.nearest(0, 0, image[0]), grid.nearest(1, 0, image[1]))]
    np.testing.assert_array_equal(canvas.array, expected)


@given(size=SIZES, other=SIZES)
def test_a_constant_stays_constant_and_weights_add_up(size: int, other: int) -> None:
    _, weights = Grid((size,), (other,)).weights(0, 0, other)
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


def test_a_ramp_stays_a_ramp() -> None:
    ramp = np.linspace(0, 1, 20, dtype=np.float32)[None, None].repeat(4, axis=1)
    fine = ResampledSource(Whole(ramp), Grid((4, 20), (4, 60))).read((slice(0, 4), slice(0, 60)))
    assert np.diff(fine[0, 0, 2:-2]) == pytest.approx(1 / 57, rel=1e-3)


def test_fine_texture_is_averaged_not_picked() -> None:
    board = np.indices((64, 64)).sum(axis=0)[None] % 2
    coarse = ResampledSource(Whole(board.astype(np.float32)), Grid((64, 64), (16, 16))).read((slice(0, 16), slice(0, 16)))
    assert coarse == pytest.approx(0.5, abs=0.05)


def test_pixel_sizes_that_nearly_agree_are_left_alone() -> None:
    assert Grid.match((10, 20), {"Y": 1.05, "X": 0.95}).same
    assert Grid.match((10, 20), None).same
    assert Grid.match((10, 20), {"Y": 3.0, "X": 1.0}).model == (30, 20)
