"""``Scope``: which objects, and where, a tool acts on: one object, a selection, a class, a slice, the volume."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

from napari_tileseg.errors import InputError
from napari_tileseg.refine.blocks import Box, grown, shape_of, shifted
from napari_tileseg.refine.canvas import Place
from napari_tileseg.refine.census import census

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.index import Position

__all__ = ["Piece", "Scope", "Where", "scope_of", "touching"]


@dataclass(frozen=True, eq=False)
class Piece:
    """One object in one place: what a tool works on at a time.

    Parameters
    ----------
    id : int
    place : Place
        A volume or plane, or a slice of it.
    box : Box
        The smallest box around the object in that place, one slice for each axis along which the place extends.
    size : int
        Pixels.
    inside : ndarray of bool, optional
        The pixels of the box that belong to it, where it is one part of a class; otherwise all that have its id.
    """

    id: int
    place: Place
    box: Box
    size: int
    inside: NDArray[np.bool_] | None = None

    def mask(self, block: NDArray[Any], box: Box | None = None) -> NDArray[np.bool_]:
        """Return where the object is in a block of labels that was read from a box (its own by default) of its place."""
        found: NDArray[np.bool_] = block == self.id
        if self.inside is not None:
            allowed = np.zeros_like(found)
            allowed[shifted(self.box, [part.start for part in box or self.box])] = self.inside
            found &= allowed
        return found


@dataclass(frozen=True)
class Scope:
    """What a tool acts on.

    Parameters
    ----------
    ids : tuple of int, optional
        The objects (or classes); all if not given.
    at : tuple of int, optional
        Index along each axis over which objects do not extend (time). Without it, every time point by itself.
    cut : (int, int), optional
        Axis of the labels and index along it: only that slice is looked at and changed.
    points : tuple of pixels, optional
        Only the connected parts at these pixels: what is clicked in labels whose values are classes.
    """

    ids: tuple[int, ...] | None = None
    at: Position | None = None
    cut: tuple[int, int] | None = None
    points: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def clicked(cls, canvas: Canvas, *points: Sequence[float]) -> Scope:
        """Return the objects at points (in pixels of the labels); of classes the connected parts there.

        Raises
        ------
        InputError
            If there is none, or the points are at several time points.
        """
        pixels = tuple(canvas.pixel(point) for point in points)
        ids = canvas.ids_at(*pixels)
        if not ids:
            raise InputError("There is no object there. Click on one.")
        positions = {canvas.position(pixel) for pixel in pixels}
        if len(positions) > 1:
            raise InputError("The points are at several time points. Choose objects of one.")
        return cls(tuple(ids), positions.pop(), None, pixels if canvas.classes else ())

    @classmethod
    def selection(cls, ids: Iterable[int], at: Position | None = None) -> Scope:
        """Return some objects."""
        return cls(tuple(dict.fromkeys(int(object_id) for object_id in ids)), at)

    @classmethod
    def of_class(cls, value: int, at: Position | None = None) -> Scope:
        """Return all that has one value, in labels whose values are classes."""
        return cls((int(value),), at)

    @classmethod
    def slice(cls, axis: int, index: int, at: Position | None = None, ids: Iterable[int] | None = None) -> Scope:
        """Return one slice across `axis` of the labels."""
        return cls(None if ids is None else tuple(ids), at, (axis, index))

    @classmethod
    def volume(cls, at: Position | None = None) -> Scope:
        """Return everything, at one position or at all."""
        return cls(None, at)

    def places(self, canvas: Canvas) -> list[Place]:
        """Return the volumes, planes or slices, each of which is looked at by itself."""
        positions = canvas.index.positions() if self.at is None else [self.at]
        places = [canvas.place(position) for position in positions]
        if self.cut is None:
            return places
        axis, index = self.cut[0] % canvas.ndim, self.cut[1]
        if not 0 <= index < canvas.shape[axis]:
            raise InputError(f"There is no slice {index} along axis {axis}: the labels have shape {canvas.shape}.")
        if len(canvas.space) < 3 or axis not in canvas.space:
            return [place for place in places if place.fixed[axis] in (index, None)]
        return [Place(tuple(index if number == axis else at for number, at in enumerate(place.fixed))) for place in places]

    def pieces(self, canvas: Canvas) -> Iterator[Piece]:
        """Yield the objects, place by place and by ascending id.

        Raises
        ------
        InputError
            If none of the ids that were asked for is there.
        """
        if self.ids is not None and not self.ids:
            raise InputError("Nothing is selected. Select an object first.")
        found = False
        for place in self.places(canvas):
            for piece in self._in(canvas, place):
                found = True
                yield piece
        if self.ids is not None and not found:
            names = ", ".join(str(object_id) for object_id in self.ids[:5]) + ("..." if len(self.ids) > 5 else "")
            where = "in this slice" if self.cut else "here"
            raise InputError(f"There is no object {names} {where}. Choose another one.")

    def _in(self, canvas: Canvas, place: Place) -> Iterator[Piece]:
        wanted = None if self.ids is None else set(self.ids)
        if self.points:
            yield from self._parts(canvas, place)
        elif len(place.axes) < len(canvas.space):
            whole = tuple(slice(0, canvas.shape[axis]) for axis in place.axes)
            found = census(canvas.read(place.full(whole)).reshape(shape_of(whole)))
            for row, object_id in enumerate(found.ids.tolist()):
                if wanted is None or object_id in wanted:
                    yield Piece(object_id, place, _box(found.first[row], found.stop[row]), int(found.sizes[row]))
        else:
            position = tuple(place.fixed[axis] for axis in canvas.outer)
            ids = canvas.index.ids(position).tolist() if wanted is None else sorted(wanted)  # type: ignore[arg-type]  # outer axes are fixed
            for object_id in ids:
                size = canvas.index.size(object_id, position)  # type: ignore[arg-type]  # outer axes are fixed
                if size:
                    yield Piece(object_id, place, place.local(canvas.index.box(object_id, position)), size)  # type: ignore[arg-type]

    def _parts(self, canvas: Canvas, place: Place) -> Iterator[Piece]:
        taken: list[Piece] = []
        for point in self.points:
            if any(at is not None and at != point[axis] for axis, at in enumerate(place.fixed)):
                continue
            pixel = tuple(point[axis] for axis in place.axes)
            if any(_covers(piece, pixel) for piece in taken):
                continue
            piece = _part(canvas, place, pixel)
            if piece is not None and (self.ids is None or piece.id in self.ids):
                taken.append(piece)
                yield piece


Where = Scope | int | Iterable[int] | None
"""What tools take: a scope, one id, several ids, or None for everything."""


def scope_of(where: Where) -> Scope:
    """Return the scope that is meant."""
    if isinstance(where, Scope):
        return where
    if where is None:
        return Scope()
    return Scope((int(where),)) if isinstance(where, int | np.integer) else Scope.selection(where)


def touching(ndim: int) -> NDArray[np.bool_]:
    """Return which neighbours belong together: those at sides, edges and corners, as where objects are found."""
    return np.ones((3,) * ndim, np.bool_)


def _box(first: NDArray[np.int64], stop: NDArray[np.int64]) -> Box:
    return tuple(slice(int(a), int(b)) for a, b in zip(first, stop, strict=True))


def _covers(piece: Piece, pixel: tuple[int, ...]) -> bool:
    if any(not part.start <= at < part.stop for part, at in zip(piece.box, pixel, strict=True)):
        return False
    local = tuple(at - part.start for part, at in zip(piece.box, pixel, strict=True))
    return piece.inside is None or bool(piece.inside[local])


def _part(canvas: Canvas, place: Place, pixel: tuple[int, ...]) -> Piece | None:
    """Find the connected part at a pixel, in a box that is doubled until the part no longer leaves it."""
    shape = [canvas.shape[axis] for axis in place.axes]
    reach = 32
    while True:
        box = grown(tuple(slice(at, at + 1) for at in pixel), [reach] * len(pixel), shape)
        block = canvas.read(place.full(box)).reshape(shape_of(box))
        local = tuple(at - part.start for at, part in zip(pixel, box, strict=True))
        value = int(block[local])
        if not value:
            return None
        labels, _ = ndimage.label(block == value, structure=touching(block.ndim))
        inside: NDArray[np.bool_] = labels == labels[local]
        found = census(inside.astype(np.uint8), [part.start for part in box])
        tight = _box(found.first[0], found.stop[0])
        leaves = any(
            (part.start == outer.start > 0) or (part.stop == outer.stop < size) for part, outer, size in zip(tight, box, shape, strict=True)
        )
        if not leaves:
            return Piece(value, place, tight, int(found.sizes[0]), inside[shifted(tight, [part.start for part in box])].copy())
        reach *= 2
