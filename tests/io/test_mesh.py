"""Meshes: closed, turned outward, in the place and unit of the image, and read by programs that are not ours."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from napari_tileseg.errors import OutputError
from napari_tileseg.io import check_writable, write_labels
from napari_tileseg.io.mesh import Surface, surfaces
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES, COLORS = ("background", "left part", "right"), ("#ff0000", "#0080ff")


def phantom(mirrored: float = 1.0) -> Volume:
    """Return two touching boxes, one with a hollow, and two voxels that touch by a corner; an oblique, anisotropic grid."""
    values = np.zeros((9, 12, 14), np.uint8)
    values[2:5, 3:9, 4:10] = 1
    values[5:8, 3:9, 4:10] = 2
    values[3, 5, 6] = 0
    values[0, 0, 0] = values[1, 1, 1] = 2
    turn = np.array([[1, 0, 0], [0, 0.8, 0.6], [0, -0.6, 0.8]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([2.0 * mirrored, 0.5, 0.25])
    affine[:3, 3] = (10, -20, 5)
    return Volume(values, "ZYX", affine, ("millimeter",) * 3, "brain")


def volume_inside(points: NDArray[Any], faces: NDArray[Any]) -> float:
    corners = points.astype(np.float64)[faces]
    return float(np.einsum("ij,ij->", corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) / 6)


def read_stl(path: Path) -> NDArray[Any]:
    content = path.read_bytes()
    count = int(np.frombuffer(content, "<u4", 1, 80)[0])
    assert len(content) == 84 + 50 * count
    records = np.frombuffer(content, np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")]), count, 84)
    corners = records["corners"]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    np.testing.assert_allclose(np.linalg.norm(records["normal"], axis=1), 1, atol=1e-5)
    assert (np.einsum("ij,ij->i", normals, records["normal"]) > 0).all()
    return corners


@pytest.mark.parametrize("mirrored", [1.0, -1.0])
def test_surfaces_are_closed_and_turned_outward(mirrored: float) -> None:
    labels = phantom(mirrored)
    made = list(surfaces(labels, CLASSES, COLORS))
    assert [surface.label for surface in made] == [1, 2]
    for surface in made:
        edges = np.concatenate([surface.faces[:, pair] for pair in ([0, 1], [1, 2], [2, 0])])
        there = {tuple(edge) for edge in edges.tolist()}
        assert len(there) == len(edges), "an edge that two faces run along in the same direction"
        assert all((b, a) in there for a, b in there), "an edge with a face on one side only"
        voxels = np.count_nonzero(np.asarray(labels.data) == surface.label) * 0.25
        assert 0.8 * voxels < volume_inside(surface.points, surface.faces) < voxels


def test_surfaces_lie_half_a_voxel_around_their_voxels() -> None:
    values = np.zeros((5, 6, 7), np.uint8)
    values[1:3, 2:4, 3:6] = 1
    (surface,) = surfaces(Volume.from_scale(values, "ZYX", (2, 1, 0.5), translate=(100, 10, 1), units=("micrometer",) * 3))
    np.testing.assert_allclose(surface.points.min(axis=0), (1 + 2.5 * 0.5, 10 + 1.5, 100 + 0.5 * 2))
    np.testing.assert_allclose(surface.points.max(axis=0), (1 + 5.5 * 0.5, 10 + 3.5, 100 + 2.5 * 2))


def test_order_of_axes_and_mixed_units_make_no_difference() -> None:
    labels = phantom()
    expected = [surface.points for surface in surfaces(labels)]
    turned = Volume(np.asarray(labels.data).transpose(2, 1, 0), "XYZ", labels.affine[[2, 1, 0, 3]][:, [2, 1, 0, 3]], labels.units)
    for found, points in zip(surfaces(turned), expected, strict=True):
        np.testing.assert_allclose(found.points, points, atol=1e-5)
    mixed = np.diag([1000.0, 1, 1, 1]) @ labels.affine
    labels = Volume(labels.data, "ZYX", mixed, ("micrometer", "millimeter", "millimeter"))
    for found, points in zip(surfaces(labels), expected, strict=True):
        np.testing.assert_allclose(found.points, points, rtol=1e-5)


def test_stl_holds_all_surfaces(tmp_path: Path) -> None:
    corners = read_stl(write_labels(phantom(), tmp_path / "a.stl", classes=CLASSES, provenance={"model": "m"}))
    expected = np.concatenate([surface.points[surface.faces] for surface in surfaces(phantom())])
    np.testing.assert_array_equal(corners, expected)


def test_obj_names_and_colours_each_label(tmp_path: Path) -> None:
    lines = write_labels(phantom(), tmp_path / "a.obj", classes=CLASSES, colors=COLORS).read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if line.startswith("o ")] == ["o left_part", "o right"]
    points = np.array([line.split()[1:] for line in lines if line.startswith("v ")], float)
    faces = np.array([line.split()[1:] for line in lines if line.startswith("f ")], int)
    expected = list(surfaces(phantom()))
    np.testing.assert_allclose(points[:, :3], np.concatenate([surface.points for surface in expected]), rtol=1e-5)
    whole = sum(volume_inside(item.points, item.faces) for item in expected)
    assert volume_inside(points[:, :3], faces - 1) == pytest.approx(whole, rel=1e-4)
    assert {tuple(row) for row in points[:, 3:].round(3).tolist()} == {(1, 0, 0), (0, 0.502, 1)}


def test_ply_colours_vertices_and_labels_faces(tmp_path: Path) -> None:
    content = write_labels(phantom(), tmp_path / "a.ply", classes=CLASSES, colors=COLORS).read_bytes()
    head, _, body = content.partition(b"end_header\n")
    counts = [int(line.split()[2]) for line in head.decode().splitlines() if line.startswith("element")]
    vertices = np.frombuffer(body, np.dtype([("place", "<f4", 3), ("color", "u1", 3)]), counts[0])
    face = np.dtype([("count", "u1"), ("corners", "<i4", 3), ("label", "<i4")])
    faces = np.frombuffer(body, face, counts[1], counts[0] * vertices.dtype.itemsize)
    assert len(body) == vertices.nbytes + faces.nbytes
    assert set(faces["label"].tolist()) == {1, 2}
    for label, color in ((1, [255, 0, 0]), (2, [0, 128, 255])):
        assert (vertices["color"][faces["corners"][faces["label"] == label]] == color).all()


def test_masks_that_overlap_are_surfaces_each(tmp_path: Path) -> None:
    masks = np.zeros((2, 4, 5, 6), np.uint8)
    masks[0, 1:3, 1:4, 1:4] = masks[1, 1:3, 2:5, 2:5] = 1
    found = list(surfaces(Volume(masks, "CZYX"), ("gland", "tumour")))
    assert [surface.look.name for surface in found] == ["gland", "tumour"]


@pytest.mark.parametrize("suffix", [".stl", ".obj", ".ply"])
@pytest.mark.parametrize(
    ("values", "axes", "reason"),
    [
        (np.ones((4, 5), np.uint8), "YX", "axes ZYX or CZYX"),
        (np.ones((2, 3, 4, 5), np.uint8), "TZYX", "axes ZYX or CZYX"),
        (-np.ones((3, 4, 5), np.int8), "ZYX", "negative"),
        (np.ones((3, 4, 5)), "ZYX", "whole numbers"),
    ],
)
def test_what_is_no_mesh_is_one_sentence(tmp_path: Path, suffix: str, values: Any, axes: str, reason: str) -> None:
    with pytest.raises(OutputError, match=reason):
        write_labels(Volume(values, axes), tmp_path / f"a{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".stl", ".obj", ".ply"])
def test_no_label_is_an_empty_mesh(tmp_path: Path, suffix: str) -> None:
    assert write_labels(Volume(np.zeros((3, 4, 5), np.uint8), "ZYX"), tmp_path / f"a{suffix}").stat().st_size


def test_how_it_was_made_stands_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "Gehirn ü.stl"
    write_labels(phantom(), path, classes=CLASSES, colors=COLORS, provenance={"model": "m"})
    beside = tmp_path / "Gehirn ü.stl.json"
    told = json.loads(beside.read_text(encoding="utf-8"))
    assert told == {"file": path.name, "classes": list(CLASSES), "colors": list(COLORS), "provenance": {"model": "m"}}
    for refuse in (check_writable, lambda place, overwrite: write_labels(phantom(), place, overwrite=overwrite)):
        with pytest.raises(OutputError, match="is there already"):
            refuse(path, overwrite=False)
    write_labels(phantom(), path, provenance={"model": "n"}, overwrite=True)
    assert json.loads(beside.read_text(encoding="utf-8"))["provenance"] == {"model": "n"}


def test_what_is_left_of_a_file_that_is_gone_is_in_nobodys_way(tmp_path: Path) -> None:
    path, beside = tmp_path / "a.stl", tmp_path / "a.stl.json"
    write_labels(phantom(), path, provenance={"model": "m"})
    path.unlink()
    assert check_writable(path, overwrite=False) == path
    assert beside.is_file()  # asking changes nothing
    write_labels(phantom(), path, provenance={"model": "n"})
    assert json.loads(beside.read_text(encoding="utf-8"))["provenance"] == {"model": "n"}


@pytest.mark.parametrize("text", ['{"file": "b.stl", "classes": [], "colors": [], "provenance": {}}', '{"file": "a.stl"}', "mine", "[1]"])
def test_json_that_is_not_of_the_file_is_not_replaced_unasked(text: str, tmp_path: Path) -> None:
    path, beside = tmp_path / "a.stl", tmp_path / "a.stl.json"
    beside.write_text(text, encoding="utf-8")
    for refuse in (check_writable, lambda place, overwrite: write_labels(phantom(), place, overwrite=overwrite)):
        with pytest.raises(OutputError, match=r"stl\.json"):
            refuse(path, overwrite=False)
    assert beside.read_text(encoding="utf-8") == text


# A part of the labels, and smooth


def sphere(radius: float = 9.0) -> Volume:
    z, y, x = np.ogrid[-12:13, -12:13, -12:13]
    return Volume.from_scale((z**2 + y**2 + x**2 <= radius**2).astype(np.uint8), "ZYX", (0.5, 0.5, 0.5), units=("micrometer",) * 3)


@pytest.mark.parametrize(
    ("only", "found"),
    [
        ((), [1, 2]),
        ((1,), [1]),
        (("2",), [2]),
        (("LEFT part",), [1]),
        (("right", 1), [1, 2]),
    ],
)
def test_labels_are_chosen_by_number_or_name(only: tuple[int | str, ...], found: list[int]) -> None:
    assert [surface.label for surface in surfaces(phantom(), CLASSES, COLORS, only=only)] == found


def test_objects_are_chosen_by_their_number_their_name_or_their_class(tmp_path: Path) -> None:
    values = np.zeros((5, 6, 30), np.uint16)
    for label in (7, 8, 300):
        values[1:3, 1:4, 2 * (label % 13) : 2 * (label % 13) + 1] = label
    labels = Volume(values, "ZYX")
    for only, found in (((8,), ["o nucleus_8"]), (("nucleus 300", "7"), ["o nucleus_7", "o nucleus_300"]), (("nucleus",), 3 * ["o"])):
        text = write_labels(labels, tmp_path / "a.obj", classes=("background", "nucleus"), only=only, overwrite=True).read_text("utf-8")
        names = [line for line in text.splitlines() if line.startswith("o ")]
        assert len(names) == len(found)
        assert found[0] == "o" or names == found


def test_masks_are_chosen_by_their_place_or_name() -> None:
    masks = np.zeros((2, 4, 5, 6), np.uint8)
    masks[0, 1:3, 1:4, 1:4] = masks[1, 1:3, 2:5, 2:5] = 1
    labels = Volume(masks, "CZYX")
    for only in ((2,), ("tumour",)):
        assert [surface.look.name for surface in surfaces(labels, ("gland", "tumour"), only=only)] == ["tumour"]


@pytest.mark.parametrize("suffix", [".stl", ".obj", ".ply"])
def test_a_label_that_is_not_there_is_one_sentence(tmp_path: Path, suffix: str) -> None:
    with pytest.raises(OutputError, match=r'^There is no "liver" in these labels\. They hold left part, right\.$'):
        write_labels(phantom(), tmp_path / f"a{suffix}", classes=CLASSES, only=("right", "liver"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wish", [{"only": (1,)}, {"smooth": 5}])
def test_other_formats_hold_all_labels(tmp_path: Path, wish: dict[str, Any]) -> None:
    with pytest.raises(OutputError, match=r'"a.nrrd" holds all labels.*\.stl, \.obj or \.ply'):
        write_labels(phantom(), tmp_path / "a.nrrd", **wish)
    assert not list(tmp_path.iterdir())


def rise(surface: Surface) -> float:
    """Return how steeply the faces of a sphere stand against it, in the mean."""
    corners = surface.points.astype(np.float64)[surface.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = corners.mean(axis=1) - surface.points.mean(axis=0)
    cosines = np.einsum("ij,ij->i", normals, outward) / np.linalg.norm(normals, axis=1) / np.linalg.norm(outward, axis=1)
    return float(1 - cosines.mean())


def test_smooth_surfaces_are_round_closed_and_as_large() -> None:
    (rough,), (smooth,) = (list(surfaces(sphere(), smooth=rounds)) for rounds in (0, 10))
    np.testing.assert_array_equal(smooth.faces, rough.faces)
    before, after = (volume_inside(item.points, item.faces) for item in (rough, smooth))
    assert after == pytest.approx(before, rel=0.02)
    assert rise(smooth) < 0.25 * rise(rough)
