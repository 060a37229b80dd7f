"""Splines, slices and scores between grids: equal to scikit-image's resize, whatever part is read, and resumable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import resize

from napari_tileseg.engine.grid import Grid
from napari_tileseg.engine.interpolate import InterpolatedSource, Kernel, Return, choose_kernel
from napari_tileseg.engine.limits import Limits
from napari_tileseg.engine.restore import Restorer
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.models.resampling import Interpolation

if TYPE_CHECKING:
    from numpy.typing import NDArray

AUTO = Interpolation(order=3, antialias=False, slices="auto", clip=True)


class ArraySource:
    """An image in memory."""

    def __init__(self, array: NDArray[np.float32]) -> None:
        self.array = array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        return self.array[(slice(None), *region)]


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("shape", [(63, 120, 30), (90, 77, 55), (20, 70, 11)])
def test_a_part_is_what_it_is_in_the_whole_and_in_scikit_image(order: int, shape: tuple[int, int, int]) -> None:
    source = ArraySource(noise(1, 90, 70, 25))
    limits = Limits([source], source)
    resampled = InterpolatedSource(source, Grid((90, 70, 25), shape), Kernel((order,) * 3, clip=order == 3), limits, "ZYX")
    expected = resize(source.array[0].astype(float), shape, order, mode="edge", anti_aliasing=False)
    part = tuple(slice(size // 3, size // 3 + 7) for size in shape)
    np.testing.assert_allclose(resampled.read(tuple(slice(0, size) for size in shape))[0], expected, atol=2e-7)
    np.testing.assert_allclose(resampled.read(part)[0], expected[part], atol=2e-7)


def test_slices_are_interpolated_and_clipped_each_by_itself() -> None:
    source = ArraySource(noise(1, 9, 40, 30))
    kernel = choose_kernel(AUTO, {"Z": 4.0, "Y": 1.0, "X": 1.0}, {"Z": 2.0, "Y": 0.7, "X": 0.8}, "ZYX")
    assert kernel == Kernel((0, 3, 3), "Z", clip=True)
    shape = (18, 57, 38)
    found = InterpolatedSource(source, Grid((9, 40, 30), shape), kernel, Limits([source], source), "ZYX")
    planes = [resize(plane.astype(float), shape[1:], 3, mode="edge", anti_aliasing=False) for plane in source.array[0]]
    expected = np.stack([planes[index // 2] for index in range(18)])
    np.testing.assert_allclose(found.read((slice(3, 9), slice(0, 57), slice(10, 38)))[0], expected[3:9, :, 10:38], atol=2e-7)


@pytest.mark.parametrize(
    ("rule", "source", "target", "across"),
    [
        pytest.param("auto", (4, 1, 1), (1, 1, 1), "Z", id="the image is coarse across its slices"),
        pytest.param("auto", (1, 1, 1), (1, 4, 1), "Y", id="the model is"),
        pytest.param("auto", (3, 1, 1), (1, 1, 1), "", id="not coarse enough"),
        pytest.param("auto", (4, 4, 1), (9, 1, 1), "", id="two axes are coarse"),
        pytest.param("always", (2, 1, 1), (1, 1, 1), "Z", id="always"),
        pytest.param("always", (1, 1, 1), (1, 1, 1), "", id="no axis is coarser than the others"),
        pytest.param("never", (9, 1, 1), (1, 1, 1), "", id="never"),
    ],
)
def test_which_slices(rule: Any, source: tuple[float, ...], target: tuple[float, ...], across: str) -> None:
    kernel = choose_kernel(Interpolation(slices=rule), dict(zip("ZYX", source, strict=True)), dict(zip("ZYX", target, strict=True)), "ZYX")
    assert kernel.across == across


@settings(max_examples=30)
@given(data=st.data(), model=st.integers(1, 30), image=st.integers(1, 60), order=st.sampled_from([0, 1]))
def test_scores_come_back_whatever_the_slabs_and_interruptions(data: st.DataObject, model: int, image: int, order: int) -> None:
    scores = torch.from_numpy(noise(3, model, 6, 5))
    shape = (image, 9, 4)
    expected = np.stack([resize(one.double().numpy(), shape, order, mode="edge", anti_aliasing=False) for one in scores])
    found = np.full((3, *shape), np.nan, np.float32)
    back = Return(Grid(shape, (model, 6, 5)), (order,) * 3)
    restorer, start = Restorer(back), 0
    while start < model:
        stop = data.draw(st.integers(start + 1, model))
        for region, piece in restorer.take(Tile((start, 0, 0), (stop, 6, 5)), scores[:, start:stop].clone()):
            assert np.isnan(found[(slice(None), *region.slices)]).all(), "each pixel is given once"
            found[(slice(None), *region.slices)] = piece.numpy()
        start = stop
        if data.draw(st.booleans()):  # killed, and continued where the journal says
            start = restorer.kept(stop)
            restorer = Restorer(back, skip=start)
    np.testing.assert_allclose(found, expected, atol=1e-6)
