"""``Wand``: the wand in the hand. A click paints; dragging makes the tolerance larger or smaller, and shows what would be painted."""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from skimage.measure import find_contours

from napari_tileseg.errors import InputError, TileSegError
from napari_tileseg.refine.blocks import shape_of, shifted, union
from napari_tileseg.refine.wand import wand
from napari_tileseg.widgets.layers import layer_matrix
from napari_tileseg.widgets.refine.mouse import Click
from napari_tileseg.widgets.regions import canvas_of, zoom_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import napari
    from napari.layers import Labels
    from numpy.typing import NDArray

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.widgets.refine.deeds import Deeds
    from napari_tileseg.widgets.refine.session import RefineSession
    from napari_tileseg.widgets.refine.work import Work

__all__ = ["Wand", "usual_reach", "usual_tolerance"]

_DOUBLE = 80.0
"""Pixels of the screen to the right over which the tolerance doubles; to the left it halves."""

_SHARE = 20
"""One part in so many of the shorter side in view is what the wand reaches where no object tells how large they are."""

_ROOM = 1.5
"""How far the wand reaches, in radii of the usual object: a click is rarely in the middle."""

_LEAST, _LEAST_UNKNOWN = 3.0, 12.0
"""Pixels that it reaches at least, where objects are known and where not."""

_CALM = 2.0
"""A look may take one part in so many of the time of a drag; of large floods few are shown."""

_MOST_SHOWN = 1 << 22
"""Pixels of the box of what is drawn around."""


def usual_tolerance(low: float, high: float) -> float:
    """Return the tolerance to start with: a share of the contrast that measured best on nuclei, fluorescent and stained."""
    return 0.15 * (high - low)


def usual_reach(viewer: napari.viewer.Viewer, canvas: Canvas, layer: Labels) -> float:
    """Return how far the wand reaches to start with, in the canvas's unit.

    A little more than the radius of the usual object, where objects are known; else a share of what is in view.
    """
    shown = [axis - (viewer.dims.ndim - layer.ndim) for axis in viewer.dims.displayed[-2:]]
    step = min(canvas.spacing[axis] for axis in canvas.space)
    if canvas.looked and not canvas.classes and len(canvas.index):
        sizes = np.concatenate([canvas.index.table(at)[1] for at in canvas.index.positions()])
        size = float(np.median(sizes)) * canvas.pixel_size
        radius = math.sqrt(size / math.pi) if len(canvas.space) == 2 else (size * 3 / (4 * math.pi)) ** (1 / 3)
        return max(_ROOM * radius, _LEAST * step)
    sides = [canvas.shape[axis] * canvas.spacing[axis] for axis in shown if 0 <= axis < canvas.ndim]
    view = canvas_of(viewer)
    if view is not None:
        sides += [2 * half for half in view[1]]
    return max(min(sides, default=0.0) / _SHARE, _LEAST_UNKNOWN * step)


class Wand:
    """What the wand does where the mouse is.

    Parameters
    ----------
    session : RefineSession
    deeds : Deeds
        Whose `tolerance` and `reach` count.
    """

    def __init__(self, session: RefineSession, deeds: Deeds) -> None:
        self._session, self._deeds = session, deeds
        self._start: float | None = None
        self._next = 0.0

    def click(self, work: Work, click: Click) -> None:
        """Paint what is like a pixel."""
        if click.point is None:
            raise InputError("The wand works in a slice. Show the labels in 2D (the button with the square below the layer list).")
        session, deeds = self._session, self._deeds
        cut = deeds.cut(work) if session.act_on != "volume" else None
        make = partial(self._edit, work, click.point, cut, more=click.more)

        def done(edit: Edit) -> Edit:
            deeds.last = _given(edit) or deeds.last
            return edit

        if len(work.canvas.space) == 2 or cut is not None:
            session.attempt(lambda: done(make()))
        else:
            session.run("Growing the region", lambda cancelled: done(make(cancel=cancelled)))

    def drag(self, work: Work, points: NDArray[np.float64], *, complete: bool) -> None:
        """Follow the mouse from where it was pressed: the tolerance changes; when it is let go, paint."""
        session, deeds = self._session, self._deeds
        if self._start is None:
            self._start = deeds.tolerance
        deeds.tolerance = self._start * 2.0 ** (self._right(work, points) / _DOUBLE)
        pixel = tuple(int(at) for at in np.round(points[0]))
        inside = all(0 <= at < size for at, size in zip(pixel, work.canvas.shape, strict=True))
        more = session.mouse.more
        if complete:
            self.forget()
            session.pick("")
            self.click(work, Click(0, pixel if inside else None, more))
        elif inside and work.canvas.looked and time.perf_counter() >= self._next:
            begun = time.perf_counter()
            self._look(work, pixel, more=more)
            self._next = time.perf_counter() + (_CALM - 1) * (time.perf_counter() - begun)

    def forget(self) -> None:
        """Forget a drag that has not ended."""
        self._start, self._next = None, 0.0
        self._session.marks.draw()

    def _look(self, work: Work, pixel: tuple[int, ...], *, more: bool) -> None:
        """Draw around what would be painted."""
        try:
            edit = self._edit(work, pixel, self._deeds.cut(work), more=more)
        except TileSegError:  # it is said when the mouse is let go
            self._session.marks.draw()
            return
        self._session.marks.draw(_outlines(edit, pixel))
        self._session.pick(f"tolerance {self._deeds.tolerance:.3g}: {edit.pixels} pixels. Let go to paint them.")

    def _edit(self, work: Work, pixel: Sequence[float], cut: tuple[int, int] | None, *, more: bool, cancel: object = None) -> Edit:
        deeds = self._deeds
        value = deeds.last if more and deeds.last else deeds.value(work)
        reach = deeds.reach or None
        image = deeds.pixels("image")
        return wand(work.canvas, image, pixel, deeds.tolerance, value=value, cut=cut, reach=reach, cancel=cancel)  # type: ignore[arg-type]  # told by click

    def _right(self, work: Work, points: NDArray[np.float64]) -> float:
        """Return how far the mouse has moved to the right, in pixels of the screen."""
        viewer = self._session.viewer
        assert viewer is not None  # a tool is held in a viewer
        axis = viewer.dims.displayed[-1] - (viewer.dims.ndim - work.layer.ndim)
        step = float(np.linalg.norm(layer_matrix(work.layer)[:-1, axis]))
        return float(points[-1][axis] - points[0][axis]) * step * zoom_of(viewer)


def _given(edit: Edit) -> int:
    """Return the label that an edit gives; 0 where it gives none."""
    return max((int(delta.after[delta.changed].max(initial=0)) for delta in edit.deltas), default=0)


def _outlines(edit: Edit, pixel: tuple[int, ...]) -> list[NDArray[np.float64]]:
    """Return lines (n, ndim) around what an edit changes in one plane; none where that is large."""
    if not edit.deltas:
        return []
    box = edit.deltas[0].box
    for delta in edit.deltas[1:]:
        box = union(box, delta.box)
    shape = shape_of(box)
    axes = sorted(sorted(range(len(shape)), key=lambda axis: shape[axis])[-2:])  # along the others it is one pixel thick
    if math.prod(shape) > _MOST_SHOWN or any(size > 1 for axis, size in enumerate(shape) if axis not in axes):
        return []
    mask = np.zeros(shape, np.bool_)
    for delta in edit.deltas:
        mask[shifted(delta.box, [part.start for part in box])] |= delta.changed
    plane = np.pad(mask.reshape([shape[axis] for axis in axes]), 1)
    lines = []
    for found in find_contours(plane.astype(np.float32), 0.5):
        line = np.tile(np.asarray(pixel, np.float64), (len(found), 1))
        for number, axis in enumerate(axes):
            line[:, axis] = found[:, number] - 1 + box[axis].start
        lines.append(line)
    return lines
