"""The feed gives what the tiles see, asks for every pixel once, and does not wait for ever."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.engine.arrays import ArraySource
from napari_tileseg.engine.feed import Feed, read_padded
from napari_tileseg.engine.tiles import Tile, plan_tiles
from napari_tileseg.errors import Cancelled


class Counting(ArraySource):
    """An image that remembers how often each pixel was asked for."""

    def __init__(self, array: np.ndarray) -> None:
        super().__init__(array)
        object.__setattr__(self, "reads", np.zeros(array.shape[1:], dtype=int))

    def read(self, region: tuple[slice, ...]) -> np.ndarray:
        assert all(0 <= part.start < part.stop <= size for part, size in zip(region, self.shape[1:], strict=True))
        self.reads[region] += 1  # type: ignore[attr-defined]
        return super().read(region)


@given(
    shape=st.tuples(st.integers(1, 30), st.integers(1, 20)),
    window=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    overlap=st.sampled_from([0.0, 0.3, 0.5, 0.8]),
    blending=st.sampled_from(["gaussian", "crop"]),
    data=st.data(),
)
def test_every_row_sees_its_pixels(
    shape: tuple[int, int], window: tuple[int, int], overlap: float, blending: str, data: st.DataObject
) -> None:
    image = np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32)
    plan = plan_tiles(shape, window, overlap=overlap, blending=blending)
    first = data.draw(st.integers(0, plan.n_rows - 1))
    source = Counting(image)
    padded = np.pad(image, ((0, 0), *plan.padding), mode="reflect" if plan.mirrored else "constant")
    with Feed(source, plan, first=first) as feed:
        for row in plan.rows(first):
            block = feed.take(row)
            top = row.seen[0] + plan.padding[0][0]
            np.testing.assert_array_equal(block, padded[:, top : top + window[0]])
    if not plan.mirrored:
        assert source.reads.max() == 1  # type: ignore[attr-defined]


def test_a_box_far_outside_is_mirrored_again_and_again() -> None:
    image = np.arange(3, dtype=np.float32).reshape(1, 1, 3)
    block = read_padded(ArraySource(image), Tile((0, -5), (1, 8)), mirrored=True)
    assert block[0, 0].tolist() == [1, 0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2, 1]


def test_errors_of_the_source_reach_the_caller() -> None:
    class Broken(ArraySource):
        def read(self, region: tuple[slice, ...]) -> np.ndarray:
            raise OSError("the disk is gone")

    plan = plan_tiles((8, 8), (4, 4), overlap=0.5)
    with Feed(Broken(np.zeros((1, 8, 8))), plan) as feed, pytest.raises(OSError, match="the disk is gone"):
        feed.take(plan.row(0))


def test_waiting_for_a_slow_source_can_be_cancelled() -> None:
    gate = threading.Event()

    class Slow(ArraySource):
        def read(self, region: tuple[slice, ...]) -> np.ndarray:
            gate.wait(30)
            return super().read(region)

    def check() -> None:
        raise Cancelled("stop")

    plan = plan_tiles((8, 8), (4, 4), overlap=0.5)
    try:
        with pytest.raises(Cancelled), Feed(Slow(np.zeros((1, 8, 8))), plan, check=check) as feed:
            feed.take(plan.row(0))
        assert not gate.is_set()  # the feed was left while the read was still going on
    finally:
        gate.set()
