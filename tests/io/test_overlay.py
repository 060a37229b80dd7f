"""Overlays: outlines lie on the objects, planes are upright, nothing covers the inside of an object."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import grey_dilation, grey_erosion

from napari_tileseg.io.overlay import Panel, object_panels, outlines, plane_panels, write_overlay
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path


def test_outlines_are_drawn_inside_each_object(tmp_path: Path) -> None:
    labels = np.zeros((600, 600), np.int32)
    labels[100:200, 100:200] = 1
    labels[100:200, 200:300] = 2  # touches the first
    grey = np.full((600, 600, 3), 80, np.uint8)
    sheet = np.asarray(Image.open(write_overlay(tmp_path / "a.png", [[Panel("objects", grey, labels)]])))
    drawn = sheet[38 : 38 + 600, 12 : 12 + 600]
    yellow = (drawn == (255, 214, 10)).all(axis=-1)
    assert yellow[100, 100:300].all()
    assert yellow[150, 199:201].all()
    assert not yellow[labels == 0].any()
    assert not yellow[110:190, 110:190].any()


def test_classes_have_their_colours(tmp_path: Path) -> None:
    labels = np.zeros((600, 600), np.uint8)
    labels[100:200, 100:200] = 2
    panel = Panel("classes", np.zeros((600, 600, 3), np.uint8), labels, ("#ff0000", "#0000ff"))
    sheet = np.asarray(Image.open(write_overlay(tmp_path / "a.png", [[panel]], legend=(("one", "#ff0000"), ("two", "#0000ff")))))
    drawn = sheet[38 : 38 + 600, 12 : 12 + 600]
    assert (drawn[labels == 0] == 0).all()
    assert tuple(drawn[100, 150]) == (0, 0, 255)


@pytest.mark.parametrize("flips", [(1, 1, 1), (1, -1, -1), (-1, 1, -1)])
def test_planes_are_upright_however_they_are_stored(flips: tuple[int, int, int]) -> None:
    """The brightest voxel lies superior, anterior and to the patient's right."""
    world = np.zeros((20, 30, 40))  # superior, posterior and left grow
    world[18, 3, 2] = 1
    data = world[tuple(slice(None, None, flip) for flip in flips)]
    image = Volume(data, "ZYX", np.diag([*flips, 1.0]))
    reference = (data > 0).astype(np.uint8)
    rows = plane_panels(image, reference, reference, ("#ff0000",), found="found", expected="expected")
    corners = [tuple(int(place) for place in np.argwhere(panel.labels)[0]) for panel in rows[0] if panel.labels is not None]
    assert corners == [(3, 2), (1, 2), (1, 3)]  # axial, coronal, sagittal: row, column


def test_planes_have_square_pixels() -> None:
    image = Volume.from_scale(np.zeros((10, 30, 40)), "ZYX", (3.0, 1.0, 0.5))
    empty = np.zeros((10, 30, 40), np.uint8)
    rows = plane_panels(image, empty, empty, (), found="found", expected="expected")
    assert [panel.image.shape[:2] for panel in rows[0]] == [(60, 40), (60, 40), (30, 30)]


def test_dim_images_are_stretched() -> None:
    image = Volume(np.linspace(100, 300, 10000).reshape(100, 100).astype(np.uint16), "YX")
    empty = np.zeros((100, 100), np.int32)
    ((shown, *_),) = object_panels(image, empty, empty, found="", expected="")
    assert (shown.image.min(), shown.image.max()) == (0, 255)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_outlines_are_what_lies_near_another_label(width: int) -> None:
    labels = np.kron(np.random.default_rng(0).integers(0, 4, (7, 9)), np.ones((6, 5), np.int32)).astype(np.int32)
    box = (2 * width + 1,) * 2
    expected = (labels > 0) & ((grey_dilation(labels, box) != labels) | (grey_erosion(labels, box) != labels))
    np.testing.assert_array_equal(outlines(labels, width=width), expected)
