"""Surfaces of labels as STL, OBJ and PLY: closed, in the unit of the image, each label by itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import OutputError
from napari_tileseg.io.looks import Look, Looks
from napari_tileseg.io.order import ordered
from napari_tileseg.io.output import survey
from napari_tileseg.io.planes import masks
from napari_tileseg.io.smoothing import smoothed
from napari_tileseg.io.units import is_length, length_factor
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["Surface", "surfaces", "write_obj", "write_ply", "write_stl"]

_STL = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
_PLY_VERTEX = np.dtype([("place", "<f4", 3), ("color", "u1", 3)])
_PLY_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3), ("label", "<i4")])
_LISTED = 12
"""So many names of labels are told when the one that is wanted is not there."""


@dataclass(frozen=True, eq=False)
class Surface:
    """The closed surface of one label.

    Parameters
    ----------
    label : int
    look : Look
        Its name and colour.
    points : ndarray of float32, shape (N, 3)
        x, y and z in the world of the image (LPS for images of medicine), in its unit.
    faces : ndarray of int, shape (M, 3)
        Triangles: indices of points, counter-clockwise as seen from outside.
    """

    label: int
    look: Look
    points: NDArray[np.float32]
    faces: NDArray[np.int64]


def surfaces(
    labels: Volume,
    classes: tuple[str, ...] = (),
    colors: tuple[str, ...] = (),
    *,
    only: Sequence[int | str] = (),
    smooth: int = 0,
) -> Iterator[Surface]:
    """Yield the surface of each label but 0, by marching cubes through the middle between its voxels and others.

    Parameters
    ----------
    labels : Volume
        Axes Z, Y and X in any order; with an axis C one mask for each class.
    classes, colors : tuple of str
        As `Looks` takes them.
    only : sequence of int or str
        Which labels, by their number (of masks their place, from 1 on), or by the name of the label or of its class, in
        capitals or not; all by default.
    smooth : int
        How often each surface is smoothed.

    Raises
    ------
    OutputError
        If the labels are no single volume, are no whole numbers from 0 up, or hold none of those that are wanted.
    """
    from skimage.measure import marching_cubes

    if sorted(labels.axes) not in (["X", "Y", "Z"], ["C", "X", "Y", "Z"]):
        raise OutputError(f"A mesh is made of a volume (axes ZYX or CZYX); these labels have {labels.axes}. Save them as .ome.tif.")
    canonical = ordered(labels, "CZYX")
    found = survey(canonical)
    if found.lowest < 0:
        raise OutputError("A mesh is made of labels from 0 up; some of these are negative. Save them as .ome.tif.")
    layers = canonical.sizes.get("C", 0)
    looks = Looks(classes, colors, found.highest, layers)
    matrix, offset = _to_world(canonical)
    wanted = _Wanted(only)
    for layer in range(layers or 1):
        volume = _layer(canonical, layer) if layers else canonical
        for label, box, mask in masks(volume):
            look = looks.of(label, layer)
            if not wanted.takes(layer + 1 if layers else label, look):
                continue
            points, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5)
            start = [part.start - 1 for part in box]
            world = (points + start) @ matrix.T + offset
            # Marching cubes turns its triangles outward in a right-handed grid.
            turned = faces if np.linalg.det(matrix) > 0 else faces[:, ::-1]
            smooth_world = smoothed(world, faces, smooth)
            yield Surface(label, look, smooth_world[:, ::-1].astype(np.float32), turned.astype(np.int64))
    wanted.check()


class _Wanted:
    """Which labels are asked for, and which of them were met."""

    def __init__(self, only: Sequence[int | str]) -> None:
        self._left = {str(item).strip().casefold(): str(item).strip() for item in only}
        self._words = frozenset(self._left)
        self._there: dict[str, None] = {}

    def takes(self, number: int, look: Look) -> bool:
        """Say whether a label is wanted, by its number, its name or that of its class."""
        said = {str(number), look.name.casefold(), look.kind.casefold()}
        self._there |= {look.name: None} if len(self._there) < _LISTED else {}
        for word in said & self._words:
            self._left.pop(word, None)
        return not self._words or bool(said & self._words)

    def check(self) -> None:
        """Raise if something was not met.

        Raises
        ------
        OutputError
        """
        if self._left:
            there = ", ".join(self._there) or "nothing"
            missing = '" or "'.join(self._left.values())
            raise OutputError(f'There is no "{missing}" in these labels. They hold {there}{" ..." * (len(self._there) == _LISTED)}.')


def _layer(labels: Volume, layer: int) -> Volume:
    axes, affine, units = labels.drop("C")
    return Volume(np.asarray(labels.data[layer]), axes, affine, units, labels.name)


def _to_world(labels: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return matrix and offset from indices (z, y, x) to the world, in the unit of X."""
    _, affine, units = labels.drop("C")
    factors = np.array([length_factor(unit, units[-1]) if is_length(unit) and is_length(units[-1]) else 1.0 for unit in units])
    return affine[:-1, :-1] * factors[:, None], affine[:-1, -1] * factors


def _title(labels: Volume) -> str:
    return f"Made with napari-tileseg; lengths in {labels.unit['X']}"


def write_stl(
    labels: Volume,
    path: Path,
    *,
    classes: tuple[str, ...],
    colors: tuple[str, ...],
    provenance: Mapping[str, Any] | None,
    only: Sequence[int | str] = (),
    smooth: int = 0,
) -> None:
    """Write the surfaces of all labels, or of `only` some, as one binary STL, which knows neither names nor colours nor units.

    Raises
    ------
    OutputError
        As `surfaces`.
    """
    count = 0
    with path.open("wb") as file:
        file.write(_title(labels).encode("ascii", "replace")[:80].ljust(80) + bytes(4))
        for surface in surfaces(labels, classes, colors, only=only, smooth=smooth):
            corners = surface.points[surface.faces]
            normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            records = np.zeros(len(corners), _STL)
            records["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
            records["corners"] = corners
            file.write(records.tobytes())
            count += len(records)
        file.seek(80)
        file.write(np.uint32(count).astype("<u4").tobytes())


def write_obj(
    labels: Volume,
    path: Path,
    *,
    classes: tuple[str, ...],
    colors: tuple[str, ...],
    provenance: Mapping[str, Any] | None,
    only: Sequence[int | str] = (),
    smooth: int = 0,
) -> None:
    """Write the surface of each label, or of `only` some, as an object of its name, with its colour at the vertices.

    Raises
    ------
    OutputError
        As `surfaces`.
    """
    before = 1  # OBJ counts from 1, through all objects
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"# {_title(labels)}\n")
        for surface in surfaces(labels, classes, colors, only=only, smooth=smooth):
            color = " ".join(f"{part / 255:.4g}" for part in surface.look.own)
            file.write("o " + re.sub(r"\s+", "_", surface.look.name) + "\n")
            file.writelines(f"v {x:.7g} {y:.7g} {z:.7g} {color}\n" for x, y, z in surface.points.tolist())
            file.writelines(f"f {a} {b} {c}\n" for a, b, c in (surface.faces + before).tolist())
            before += len(surface.points)


def write_ply(
    labels: Volume,
    path: Path,
    *,
    classes: tuple[str, ...],
    colors: tuple[str, ...],
    provenance: Mapping[str, Any] | None,
    only: Sequence[int | str] = (),
    smooth: int = 0,
) -> None:
    """Write the surfaces of all labels, or of `only` some, as one binary PLY, with colours at the vertices and the label at each face.

    Raises
    ------
    OutputError
        As `surfaces`.
    """
    vertices, faces, before = [], [], 0
    for surface in surfaces(labels, classes, colors, only=only, smooth=smooth):
        vertex, face = np.zeros(len(surface.points), _PLY_VERTEX), np.zeros(len(surface.faces), _PLY_FACE)
        vertex["place"], vertex["color"] = surface.points, surface.look.own
        face["count"], face["corners"], face["label"] = 3, surface.faces + before, surface.label
        vertices.append(vertex.tobytes())
        faces.append(face.tobytes())
        before += len(vertex)
    head = ["ply", "format binary_little_endian 1.0", f"comment {_title(labels)}", f"element vertex {before}"]
    head += [f"property float {axis}" for axis in "xyz"] + [f"property uchar {name}" for name in ("red", "green", "blue")]
    head += [f"element face {sum(map(len, faces)) // _PLY_FACE.itemsize}", "property list uchar int vertex_indices", "property int label"]
    with path.open("wb") as file:
        file.write(("\n".join([*head, "end_header"]) + "\n").encode("ascii", "replace"))
        file.writelines([*vertices, *faces])
