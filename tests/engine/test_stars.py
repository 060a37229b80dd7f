"""Star-convex objects: shapes come back, areas in common are right, cuts and turns change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from skimage.draw import polygon

from napari_tileseg.engine import stars
from napari_tileseg.engine.decoders import find_decoder
from napari_tileseg.engine.objects import Objects
from napari_tileseg.engine.polygons import Polygons
from napari_tileseg.engine.polyhedra import Polyhedra
from napari_tileseg.engine.rays import circle, golden_spiral
from napari_tileseg.engine.scan import Turn
from napari_tileseg.engine.tiles import Tile
from napari_tileseg.errors import ModelError, OptionsError

if TYPE_CHECKING:
    from numpy.typing import NDArray

RAYS = 32


def discs(seed: int, shape: tuple[int, ...] = (140, 110), count: int = 18) -> NDArray[np.float32]:
    """Return what a good network says of balls: in each, distances to its border from every pixel."""
    rng = np.random.default_rng(seed)
    directions = (circle(RAYS) if len(shape) == 2 else golden_spiral(RAYS)).directions
    grid = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), -1).astype(float)
    scores = np.full((1 + RAYS, *shape), -6, np.float32)
    scores[1:] = 0
    for _ in range(count):
        centre, radius = rng.uniform(0, 1, len(shape)) * shape, rng.uniform(5, 9)
        away = grid - centre
        square = (away**2).sum(-1)
        inside = square < (0.8 * radius) ** 2
        along = away[inside] @ directions.T
        scores[1:, inside] = (np.sqrt(along**2 + radius**2 - square[inside][:, None]) - along).T
        scores[0, inside] = 3 - square[inside] / radius**2 * 2 + rng.normal(0, 0.1, inside.sum())
    return scores


def in_slabs(
    scores: NDArray[np.float32], height: int, decoder: object = stars, parameters: dict[str, float] | None = None
) -> NDArray[np.int32]:
    shape = scores.shape[1:]
    objects = Objects(decoder, parameters or {}, classes=["background", "object"])  # type: ignore[arg-type]
    found = np.full(shape, -1, np.int32)
    for top in range(0, shape[0], height):
        part = torch.from_numpy(scores[:, top : top + height].copy())
        for region, given in objects.add(Tile((top, *(0 for _ in shape[1:])), (top + part.shape[1], *shape[1:])), part):
            found[region.slices] = given
    for region, given in objects.finish():
        found[region.slices] = given
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("height", [11, 140])
def test_cut_into_slabs_objects_are_the_same(seed: int, height: int) -> None:
    scores = discs(seed, count=10)
    bare = scores.copy()
    rim = np.ones(scores.shape[1:], bool)
    rim[2:-2, 2:-2] = False
    bare[0, rim] = -100
    whole = stars.decode(bare, {})
    assert np.array_equal(in_slabs(scores, height), whole)
    assert whole.max() >= 6


@pytest.mark.parametrize("shape", [(140, 110), (20, 40, 50)])
def test_every_ball_is_found_once(shape: tuple[int, ...]) -> None:
    directions = (circle(RAYS) if len(shape) == 2 else golden_spiral(RAYS)).directions
    scores = np.full((1 + RAYS, *shape), -6, np.float32)
    grid = np.stack(np.meshgrid(*[np.arange(size) for size in shape], indexing="ij"), -1).astype(float)
    true = np.zeros(shape, np.int32)
    for number, place in enumerate([(0.3, 0.3), (0.31, 0.7), (0.75, 0.5)], start=1):
        centre = np.array([0.5, *place][-len(shape) :]) * shape
        away = grid - centre
        square = (away**2).sum(-1)
        true[square < 64] = number
        inside = square < 36
        along = away[inside] @ directions.T
        scores[1:, inside] = (np.sqrt(along**2 + 64 - square[inside][:, None]) - along).T
        scores[0, inside] = 2 - square[inside] / 64
    found = stars.decode(scores, {})
    assert found.max() == 3
    for number in range(1, 4):
        mask = true == number
        other = found == np.bincount(found[mask]).argmax()
        assert (mask & other).sum() / (mask | other).sum() > (0.9 if len(shape) == 2 else 0.7)


def test_scanned_along_another_axis_objects_are_the_same() -> None:
    scores = discs(5, count=10)
    parameters = {"rim_y": 6.0, "rim_x": 3.0}
    turn = Turn(1, 2)
    turned = in_slabs(np.ascontiguousarray(scores.transpose(0, 2, 1)), 13, turn.decoder(find_decoder("stardist")), parameters).T
    whole = in_slabs(scores, 140, stars, parameters)
    assert np.array_equal(turned > 0, whole > 0)
    assert len(np.unique(np.stack([turned.ravel(), whole.ravel()]), axis=1).T) == len(np.unique(whole))


@pytest.mark.parametrize("seed", range(5))
def test_the_area_in_common_is_that_of_the_pixels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distances = np.maximum(rng.uniform(3, 25, (12, 1)) * (1 + 0.2 * rng.normal(size=(12, RAYS))), 0.5).astype(np.float32)
    away = np.round(rng.uniform(-12, 12, (11, 2))).astype(np.float32)
    shapes = Polygons(circle(RAYS), distances)
    found = shapes.common(0, np.arange(1, 12), away)
    scale, size = 8, 1000
    corners = np.floor(distances[..., None] * circle(RAYS).directions + 1e-5)

    def drawn(number: int, shift: NDArray[np.float32]) -> NDArray[np.bool_]:
        mask = np.zeros((size, size), bool)
        mask[polygon(*((corners[number] + shift) * scale + size / 2 - 0.5).T, mask.shape)] = True
        return mask

    first = drawn(0, np.zeros(2, np.float32))
    pixels = [(first & drawn(number + 1, shift)).sum() / scale**2 for number, shift in enumerate(away)]
    assert np.allclose(found, pixels, atol=0.02 * shapes.sizes[0] + 0.5)
    assert np.allclose(shapes.common(0, np.array([0]), np.zeros((1, 2), np.float32)), shapes.sizes[0], rtol=0.03)


def test_volumes_and_the_inside_of_a_ball() -> None:
    rays = golden_spiral(96, (2.0, 1.0, 1.0))
    assert np.allclose(np.linalg.norm(rays.directions, axis=1), 1)
    distances = np.full((2, 96), 10, np.float32)
    ball = 4 / 3 * np.pi * 1000
    assert 0.9 * ball < rays.volumes(distances)[0] < ball
    points = np.random.default_rng(0).normal(size=(1, 500, 3)).astype(np.float32)
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    assert rays.inside(points * 8.5, distances[:1]).all()
    assert not rays.inside(points * 10.01, distances[:1]).any()
    shapes = Polyhedra(rays, distances)
    common = shapes.common(0, np.array([1, 1, 1]), np.array([[0, 0, 0], [0, 10, 0], [0, 0, 21]], np.float32))
    lens = np.pi * (20 - 10) ** 2 * (100 + 40 * 10) / (12 * 10)  # of two balls of radius 10, 10 apart
    assert np.allclose(common, [shapes.sizes[0], lens, 0], rtol=0.2)


def test_overlap_decides_who_stays() -> None:
    scores = np.full((1 + RAYS, 40, 60), -6, np.float32)
    for column, logit in ((20, 2.0), (26, 1.0)):
        scores[0, 20, column], scores[1:, 20, column] = logit, 10
    assert stars.decode(scores, {"nms_thresh": 0.9}).max() == 2
    assert stars.decode(scores, {"nms_thresh": 0.3}).max() == 1
    assert stars.decode(scores, {"nms_thresh": 0.9}, threshold=0.8).max() == 1
    assert stars.decode(scores, {"nms_thresh": 0.9, "prob_thresh": 0.8}).max() == 1
    assert not stars.decode(scores, {}, min_size=1000).any()
    assert not stars.decode(scores, {}, threshold=1).any()


def test_strange_scores_are_refused() -> None:
    with pytest.raises(ModelError, match="at least 3 distances"):
        stars.decode(np.zeros((3, 9, 9), np.float32), {})
    with pytest.raises(OptionsError, match="from 0 to 1"):
        stars.decode(np.zeros((9, 9, 9), np.float32), {}, threshold=2)
