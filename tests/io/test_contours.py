"""Contours: filled again they are the mask, and every polygon is one that other programs accept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.draw import polygon2mask

from napari_tileseg.io.contours import fill, polygons

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]

MASKS = hnp.arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9)))


def judged(rings: list[list[list[int]]], shape: tuple[int, int]) -> Mask:
    """Fill a polygon as scikit-image does: the shell without its holes."""
    filled = [polygon2mask(shape, np.array(ring)[:, ::-1] - 0.5) for ring in rings]
    inside: Mask = filled[0]
    for hole in filled[1:]:
        inside = inside & ~hole
    return inside


@given(MASKS)
def test_polygons_cover_the_mask_and_nothing_else(mask: Mask) -> None:
    covered = np.zeros(mask.shape, int)
    for rings in polygons(mask):
        own = fill(rings, mask.shape)
        np.testing.assert_array_equal(own, judged(rings, mask.shape))
        covered += own
    np.testing.assert_array_equal(covered, mask.astype(int))


@given(MASKS)
def test_rings_are_simple_and_run_along_the_edges_of_pixels(mask: Mask) -> None:
    for shell, *holes in polygons(mask):
        for ring in (shell, *holes):
            points = [tuple(point) for point in ring[:-1]]
            assert ring[0] == ring[-1]
            assert len(set(points)) == len(points) >= 4
            steps = np.diff(ring, axis=0)
            assert ((steps == 0).sum(axis=1) == 1).all()
            assert ((steps[:-1] != 0)[:, 0] != (steps[1:] != 0)[:, 0]).all(), "a corner where the line goes straight on"
        assert area(shell) > 0
        assert all(area(hole) < 0 for hole in holes)


@given(MASKS)
def test_each_polygon_is_one_piece(mask: Mask) -> None:
    found = polygons(mask)
    assert len(found) == ndimage.label(mask)[1]
    assert all(ndimage.label(fill(rings, mask.shape))[1] == 1 for rings in found)


def area(ring: list[list[int]]) -> int:
    points = np.array(ring)
    return int((points[:-1, 0] * points[1:, 1] - points[1:, 0] * points[:-1, 1]).sum())


def test_a_hole_that_touches_the_outside_by_a_corner_is_a_hole() -> None:
    mask = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0]], bool)
    ((shell, hole),) = polygons(mask, top=10, left=20)
    assert sorted(map(tuple, hole[:-1])) == [(21, 11), (21, 12), (22, 11), (22, 12)]
    assert [22, 12] in shell


@pytest.mark.parametrize("corner", [0, 0.25, 0.5, 0.75])
def test_pixels_belong_to_a_polygon_by_their_centre(corner: float) -> None:
    square = [[corner, corner], [3 + corner, corner], [3 + corner, 3 + corner], [corner, 3 + corner]]
    inside = fill([square], (5, 5))
    first = 0 if corner <= 0.5 else 1
    assert inside.sum() == 9
    assert inside[first : first + 3, first : first + 3].all()


def test_what_lies_outside_the_picture_is_cut_off() -> None:
    square = [[-5, -5], [2, -5], [2, 50], [-5, 50]]
    np.testing.assert_array_equal(fill([square], (3, 4)), np.array([[1, 1, 0, 0]] * 3, bool))
    np.testing.assert_array_equal(fill([square], (3, 4), top=1, left=1), np.array([[1, 0, 0, 0]] * 3, bool))
