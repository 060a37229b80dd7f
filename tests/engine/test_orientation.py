"""A model that knows volumes from one side gives the same labels, however a volume is stored."""

from __future__ import annotations

from itertools import pairwise, permutations, product

import numpy as np
import pytest
import torch
from torch import nn

from napari_tileseg.engine.grid import Grid, taps
from napari_tileseg.engine.orientation import facing
from napari_tileseg.engine.tiles import plan_tiles
from napari_tileseg.estimation import estimate
from napari_tileseg.models.predictor import from_module
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment
from napari_tileseg.volume import Volume


def spec(**more: object) -> ModelSpec:
    values = {"name": "test", "axes": "CZYX", "channels": 1, "classes": ["background", "thing"], "window": (6, 8, 10), "orientation": "SAR"}
    return ModelSpec(**{**values, **more})


class Lopsided(nn.Module):
    """A network that knows up from down, and left from right."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(1, 2, 3, padding=1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        ramp = torch.arange(batch.shape[-1], dtype=torch.float32) * 0.1
        return self.conv(batch) + torch.stack([ramp * 0, ramp - 0.5]).reshape(1, 2, 1, 1, -1)


def stored(array: np.ndarray, order: tuple[int, ...], flips: tuple[int, ...]) -> Volume:
    """Store a volume whose axes lead to S, A and R in another way, with the affine that says so."""
    linear = np.diag([1.0, -1.0, -1.0])  # Z to S, Y to A, X to R in a world whose Y grows to P and X to L
    for axis in flips:
        array = np.flip(array, axis)
        linear[:, axis] *= -1
    affine = np.eye(4)
    affine[:3, :3] = linear[:, order]
    return Volume(array.transpose(order), "ZYX", affine, ("millimeter",) * 3)


WAYS = [pytest.param(order, flips, id=f"{order}{flips}") for order in permutations(range(3)) for flips in [(), (0,), (1, 2), (0, 1, 2)]]


@pytest.mark.parametrize(("order", "flips"), WAYS)
@pytest.mark.parametrize("blending", ["gaussian", "crop"])
def test_labels_do_not_depend_on_how_a_volume_is_stored(order: tuple[int, ...], flips: tuple[int, ...], blending: str) -> None:
    array = np.random.default_rng(0).normal(size=(15, 17, 23)).astype(np.float32)
    model = from_module(Lopsided(), spec(blending=blending, overlap=0.5), device="cpu")
    straight = segment(stored(array, (0, 1, 2), ()), model).labels
    assert 0.1 < straight.mean() < 0.9
    found = segment(stored(array, order, flips), model).labels
    expected = np.flip(straight, flips) if flips else straight
    assert (found == expected.transpose(order)).mean() > 0.9999


class LopsidedPlane(nn.Module):
    """The same for planes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(1, 2, 3, padding=1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        ramp = torch.arange(batch.shape[-1], dtype=torch.float32) * 0.1
        return self.conv(batch) + torch.stack([ramp * 0, ramp - 0.5]).reshape(1, 2, 1, -1)


@pytest.mark.parametrize(("order", "flips"), WAYS)
def test_planes_are_cut_from_the_volume_as_the_network_knows_it(order: tuple[int, ...], flips: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).normal(size=(7, 17, 23)).astype(np.float32)
    model = from_module(LopsidedPlane(), spec(axes="CYX", window=(8, 10), overlap=0.5), device="cpu")
    straight = segment(stored(array, (0, 1, 2), ()), model).labels
    assert 0.1 < straight.mean() < 0.9
    volume = stored(array, order, flips)
    found = segment(volume, model)
    expected = np.flip(straight, flips) if flips else straight
    assert (found.labels == expected.transpose(order)).mean() > 0.9999
    across = "ZYX"[order.index(0)]
    assert found.provenance["axes"].endswith(f"{across} = 7 planes, each by itself.")
    assert estimate(volume, model.spec).tiles == found.windows


def test_volume_without_a_place_in_the_body_is_taken_as_it_is() -> None:
    assert facing(Volume(np.zeros((3, 4, 5)), "ZYX"), spec()) is None
    assert facing(Volume(np.zeros((3, 4, 5)), "ZYX", units=("millimeter",) * 3), spec(orientation="")) is None
    turned = facing(Volume(np.zeros((3, 4, 5)), "ZYX", units=("millimeter",) * 3), spec())
    assert turned is not None
    assert turned.flips == (False, True, True)


def test_orientation_names_each_direction_once() -> None:
    for letters in product("RLAPSI", repeat=3):
        codes = "".join(letters)
        valid = {frozenset("RL"), frozenset("AP"), frozenset("SI")} == {
            next(frozenset(pair) for pair in ("RL", "AP", "SI") if letter in pair) for letter in codes
        }
        if valid:
            assert spec(orientation=codes).orientation == codes
        else:
            with pytest.raises(ValueError):
                spec(orientation=codes)


@pytest.mark.parametrize("blending", ["gaussian", "crop"])
@pytest.mark.parametrize("offset", [None, (1, 2)])
def test_tiles_from_the_end_are_the_mirror_image(blending: str, offset: tuple[int, ...] | None) -> None:
    for shape in [(30, 41), (5, 9), (12, 8)]:
        plain = plan_tiles(shape, (12, 16), overlap=0.25, blending=blending, output_offset=offset)
        turned = plan_tiles(shape, (12, 16), overlap=0.25, blending=blending, output_offset=offset, from_end=(True, False))
        assert turned.steps[1] == plain.steps[1]
        mirrored = [(shape[0] - step.start - 12, (shape[0] - step.keep[1], shape[0] - step.keep[0])) for step in plain.steps[0]]
        assert [(step.start, step.keep) for step in turned.steps[0]] == mirrored[::-1]


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("ratio", [0.4, 0.75, 1.0, 1.3, 2.0])
def test_points_meet_where_they_should(ratio: float, centred: bool) -> None:
    grid = Grid.match((21,), {"X": ratio}, 0.0, points=True, centred=centred)
    assert grid.model == (round(20 * ratio + 1),)
    if ratio == 1.0:
        assert grid.same
        return
    expected = np.arange(grid.model[0]) / ratio
    if centred:
        expected += 10.5 - grid.model[0] / 2 / ratio
    np.testing.assert_allclose(grid.centres(0, 0, grid.model[0]), expected)
    back = grid.reversed()
    np.testing.assert_allclose(back.centres(0, 0, 21), (np.arange(21) - (expected[0])) * ratio, atol=1e-9)
    turned = Grid.match((21,), {"X": ratio}, 0.0, points=True, centred=centred, from_end="X")
    for order in (0, 1):
        places, weights = taps(order, 0, grid.model[0], grid, 0)
        mirrored, same = taps(order, 0, grid.model[0], turned, 0)
        assert np.array_equal(mirrored, 20 - places[::-1])
        assert np.array_equal(same, weights[::-1])


def test_regions_of_points_cover_each_pixel_once() -> None:
    for ratio, turned, centred in product([0.4, 0.77, 1.6], ["", "Z"], [False, True]):
        grid = Grid.match((30, 4), {"Z": ratio, "Y": 1.0}, 0.0, points=True, centred=centred, from_end=turned)
        cuts = [0, 3, 4, 9, grid.model[0]]
        spans = [grid.image_region(((start, stop), (0, 4)))[0] for start, stop in pairwise(cuts)]
        assert [row for start, stop in spans for row in range(start, stop)] == list(range(30))
        for (start, stop), (low, high) in zip(spans, pairwise(cuts), strict=True):
            found = grid.nearest(0, start, stop)
            assert ((found >= low) & (found < high)).all()
