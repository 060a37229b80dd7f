"""What clicks and lines do to the labels, tool by tool."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.refine.contour import snap_outline
from napari_tileseg.refine.objects import merge, remove
from napari_tileseg.refine.scope import Scope
from napari_tileseg.refine.shape import fill_holes
from napari_tileseg.refine.slices import interpolate
from napari_tileseg.refine.split import split_line, split_seeds
from napari_tileseg.widgets.refine.subject import class_of, pixels_of, position_of, scores_of
from napari_tileseg.widgets.refine.wand import Wand
from napari_tileseg.widgets.shown import shown_at

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.refine.index import Position
    from napari_tileseg.widgets.refine.mouse import Click
    from napari_tileseg.widgets.refine.session import RefineSession
    from napari_tileseg.widgets.refine.work import Work

__all__ = ["Deeds", "SplitBy"]

SplitBy = Literal["distance", "image", "scores"]

_NEAR = 5
"""Pixels within which a drawn outline looks for an edge."""

_QUICK = 1 << 21
"""Most pixels of the boxes of objects that are changed while the window waits; more are changed in another thread."""


@dataclass
class _Picked:
    """What was clicked with the tool that is held."""

    ids: list[int]
    points: list[tuple[int, ...]]
    position: Position = ()


class Deeds:
    """Does what a tool does where the mouse was.

    Attributes
    ----------
    tolerance : float
        Of the wand, in the image's values.
    reach : float
        How far it reaches, in the unit of the labels; 0 for no limit.
    split_by : str
        Where split objects part: ``"distance"``, ``"image"`` or ``"scores"``.
    """

    def __init__(self, session: RefineSession) -> None:
        self._session = session
        self._picked = _Picked([], [])
        self._wand = Wand(session, self)
        self.tolerance = 0.0
        self.reach = 0.0
        self.split_by: SplitBy = "distance"
        self.last: int | None = None
        """The object that was changed last."""

    def click(self, click: Click) -> None:
        """Do what the tool that is held does with a click."""
        deeds: dict[str, Callable[[Work, Click], None]] = {
            "merge": self._merge,
            "split": self._seed,
            "remove": partial(self._on_objects, "Removing", remove),
            "fill": partial(self._on_objects, "Filling", fill_holes),
            "wand": self._wand.click,
            "slices": self._slices,
        }
        deed = deeds.get(self._session.state.tool)
        work = self._session.work
        if deed is not None and work is not None and not self._session.busy:
            work.when_looked(lambda: self._session.guarded(lambda: deed(work, click)))

    def line(self, points: NDArray[np.float64], complete: bool) -> None:
        """Follow a line; do what the tool does with it when it is complete."""
        work, tool = self._session.work, self._session.state.tool
        if tool == "wand" and work is not None and not self._session.busy:
            if complete:
                work.when_looked(lambda: self._session.guarded(lambda: self._wand.drag(work, points, complete=True)))
            else:
                self._wand.drag(work, points, complete=False)
            return
        self._session.marks.draw([] if complete else [points], self._picked.points)  # type: ignore[arg-type]  # tuples are places too
        if not complete or work is None or self._session.busy:
            return
        deeds = {"merge": self._merge_line, "split": self._split_line, "outline": self._outline}
        deed = deeds.get(tool)
        if deed is None:
            return
        work.when_looked(lambda: self._session.guarded(lambda: deed(work, points)))

    def forget(self) -> None:
        """Forget what was clicked so far."""
        self._picked = _Picked([], [])
        self._wand.forget()
        self._session.pick("")

    # -- where -----------------------------------------------------------------------------------------------------

    def looked_at(self, work: Work) -> tuple[float, ...]:
        """Return the place that the viewer looks at, in pixels of the labels."""
        viewer = self._session.viewer
        assert viewer is not None  # a tool is held in a viewer
        return tuple(float(part) for part in shown_at(work.layer, viewer.dims.point, viewer.dims.displayed))

    def cut(self, work: Work) -> tuple[int, int] | None:
        """Return axis and index of the slice that is on the canvas; None where the labels are planes, or all of them is in view."""
        viewer = self._session.viewer
        assert viewer is not None  # a tool is held in a viewer
        displayed = {axis - (viewer.dims.ndim - work.layer.ndim) for axis in viewer.dims.displayed}
        hidden = [axis for axis in work.canvas.space if axis not in displayed]
        if len(work.canvas.space) < 3 or len(hidden) != 1:
            return None
        index = round(self.looked_at(work)[hidden[0]])
        return hidden[0], min(max(index, 0), work.canvas.shape[hidden[0]] - 1)

    def scope(self, work: Work, click: Click | None) -> Scope:
        """Return what a deed acts on, as Act on says; without a click, in the whole.

        Raises
        ------
        InputError
            If there is nothing.
        """
        canvas, session = work.canvas, self._session
        at = position_of(canvas, click.point if click is not None and click.point is not None else self.looked_at(work))
        value = click.value if click is not None else 0
        match session.act_on:
            case "selected":
                return Scope.selection(session.selected_ids(), at)
            case "slice":
                cut = self.cut(work)
                return Scope.slice(*cut, at, [value]) if cut is not None else Scope.selection([_object(value)], at)
            case "class":
                return self._class(work, _object(value), at)
            case "volume":
                return Scope.selection([_object(value)])
        if click is None or click.point is None:
            return Scope.selection([_object(value)], at)
        return Scope.clicked(canvas, click.point)

    def _class(self, work: Work, value: int, at: Position) -> Scope:
        if work.canvas.classes:
            return Scope.of_class(value, at)
        name = class_of(work.layer, value)
        if not name:
            raise InputError(f"No class is known of object {value}. Set Act on to another choice.")
        return Scope.selection([label for label in work.canvas.index.ids(at).tolist() if class_of(work.layer, label) == name], at)

    # -- tools -----------------------------------------------------------------------------------------------------

    def _on_objects(self, words: str, tool: Callable[..., Edit], work: Work, click: Click) -> None:
        if not click.value and self._session.act_on != "selected":
            raise InputError("There is no object there. Click on one.")
        scope = self.scope(work, click)
        self._make(work, words, lambda: tool(work.canvas, scope), scope.ids or ())

    def _merge(self, work: Work, click: Click) -> None:
        picked = self._picked
        if not click.value:
            raise InputError("There is no object there. Click on one.")
        at = position_of(work.canvas, click.point or self.looked_at(work))
        if self._session.act_on == "selected" and len(self._session.selection) > 1:
            ids = self._session.selected_ids()
        else:
            ids = [*picked.ids, click.value] if picked.position == at else [click.value]
        if len(set(ids)) < 2:
            self._picked = _Picked([click.value], [click.point] if click.point else [], at)
            self._mark()
            self._session.pick(f"click the objects that join {click.value}, or Esc.")
            return
        self._join(work, list(dict.fromkeys(ids)), at)

    def _merge_line(self, work: Work, points: NDArray[np.float64]) -> None:
        ids = _along(work.canvas, points)
        if len(ids) < 2:
            raise InputError("The line touches one object." if ids else "The line touches no object. Draw it across several.")
        self._join(work, ids, position_of(work.canvas, points[0]))

    def _join(self, work: Work, ids: list[int], at: Position) -> None:
        first = ids[0]
        self._make(work, "Merging", lambda: merge(work.canvas, Scope.selection(ids, at), into=first), ids)
        if work is self._session.work and self._session.state.tool == "merge":
            self._picked = _Picked([first], [], at)  # the next click joins this one too
            self._mark()

    def _seed(self, work: Work, click: Click) -> None:
        if click.point is None:
            raise InputError("Seeds are clicked in a slice. Show the labels in 2D (the button with the square below the layer list).")
        if not click.value:
            raise InputError("There is no object there. Click inside the one to split.")
        picked = self._picked
        if picked.ids != [click.value]:
            self._picked = picked = _Picked([click.value], [])
        picked.points.append(click.point)
        self._mark()
        if len(picked.points) < 2 or click.more:
            count = len(picked.points)
            self._session.pick(f"click {'another' if count == 1 else 'the last'} seed in object {click.value}; Shift for more of them.")
            return
        points, by = list(picked.points), self.split_by
        self.forget()
        image = self.pixels(by) if by != "distance" else None
        self._make(work, "Splitting", lambda: split_seeds(work.canvas, click.value, points, image, by), [click.value])

    def _split_line(self, work: Work, points: NDArray[np.float64]) -> None:
        ids = _along(work.canvas, points)
        if not ids:
            raise InputError("The line touches no object. Draw it through one.")
        counts = [(np.count_nonzero(_values(work.canvas, points) == value), value) for value in ids]
        value = max(counts)[1]  # the one that most of the line lies in
        self.forget()
        normal = self._normal(work)
        self._make(work, "Splitting", lambda: split_line(work.canvas, value, points.tolist(), normal=normal), [value])

    def _outline(self, work: Work, points: NDArray[np.float64]) -> None:
        """Make an object of what was drawn around; with Selected or a class, more of the label to paint with."""
        image = self.pixels("image")
        distance = _NEAR * min(work.canvas.spacing[axis] for axis in work.canvas.space)
        value, normal = self.value(work), self._normal(work)
        self._session.attempt(lambda: snap_outline(work.canvas, image, points.tolist(), value=value, distance=distance, normal=normal))

    def _slices(self, work: Work, click: Click) -> None:
        if not click.value:
            raise InputError("There is no object there. Click one that is painted on some slices.")
        if len(work.canvas.space) < 3:
            raise InputError("These labels are planes that stand for themselves; there is nothing between them to fill.")
        cut = self.cut(work)
        axis = cut[0] if cut is not None else work.canvas.space[0]
        at = position_of(work.canvas, click.point or self.looked_at(work))
        self._make(work, "Filling between slices", lambda: interpolate(work.canvas, click.value, axis, at=at), [click.value])

    def value(self, work: Work) -> int | None:
        """Return what a new object is called: the label to paint with where that is a class or chosen, else a free one."""
        chosen = work.canvas.classes or self._session.act_on == "selected"
        return int(work.layer.selected_label) if chosen else None

    def _normal(self, work: Work) -> int | None:
        cut = self.cut(work)
        return cut[0] if cut is not None else None

    # -- within ----------------------------------------------------------------------------------------------------

    def _make(self, work: Work, words: str, make: Callable[[], Edit], ids: Any) -> None:
        """Do it now where the objects are small, else in another thread."""
        ids = list(ids)
        self.last = ids[0] if ids else None
        boxes = [work.canvas.index.bound(value, at) for value in ids for at in work.canvas.index.positions(value)[:64]]
        pixels = sum(float(np.prod([part.stop - part.start for part in box])) for box in boxes)
        if pixels <= _QUICK:
            self._session.attempt(make)
        else:
            self._session.run(words, lambda _: make())

    def _mark(self) -> None:
        self._session.marks.draw([], self._picked.points)  # type: ignore[arg-type]  # tuples are places too

    def pixels(self, by: str) -> Any:
        """Return the array that a tool looks at beside the labels."""
        session = self._session
        assert session.labels is not None  # a tool is held on labels
        assert session.viewer is not None
        if by == "scores":
            scores = scores_of(session.labels, session.viewer.layers)
            if scores is None:
                raise OptionsError("No scores were kept of these labels. Split by distance or image.")
            return scores
        image = pixels_of(session.image, session.labels) if session.image is not None else None
        if image is None:
            raise OptionsError("No image of the shape of these labels is chosen. Choose it at Image.")
        return image


def _object(value: int) -> int:
    if not value:
        raise InputError("There is no object there. Click on one.")
    return value


def _values(canvas: Canvas, points: NDArray[np.float64]) -> NDArray[Any]:
    """Return the labels along a line (n, ndim), a pixel at a time."""
    steps = [max(1, int(np.ceil(np.abs(b - a).max()))) for a, b in pairwise(points)]
    parts = [np.linspace(a, b, step, endpoint=False) for (a, b), step in zip(pairwise(points), steps, strict=True)]
    pixels = np.round(np.concatenate([*parts, points[-1:]])).astype(np.int64)
    inside = ((pixels >= 0) & (pixels < np.array(canvas.shape))).all(axis=1)
    pixels = pixels[inside]
    if not len(pixels):
        return np.zeros(0, canvas.dtype)
    low, high = pixels.min(axis=0), pixels.max(axis=0) + 1
    block = canvas.read(tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True)))
    values: NDArray[Any] = block[tuple((pixels - low).T)]
    return values


def _along(canvas: Canvas, points: NDArray[np.float64]) -> list[int]:
    """Return the objects along a line, each once, in order."""
    return [int(value) for value in dict.fromkeys(_values(canvas, points).tolist()) if value]
