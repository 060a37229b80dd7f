"""``Sheets``: what is known of the objects in view, measured in another thread when somebody wants to see it, kept true by edits."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer, Signal

from napari_tileseg.errors import Cancelled
from napari_tileseg.measure.sheet import Sheet
from napari_tileseg.units import unit_symbol
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.refine.kept import kept_scores
from napari_tileseg.widgets.refine.subject import channels_of, position_of

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.refine.index import Position
    from napari_tileseg.widgets.refine.session import RefineSession
    from napari_tileseg.widgets.refine.work import Work

__all__ = ["SCORE", "Part", "Sheets", "sheet_of"]

_LOG = logging.getLogger(__name__)

SCORE = "score"
"""Name of the channel that holds how sure the model was."""

_PAUSE = 150
"""Milliseconds without another edit before what changed is measured."""

_MANY = 2000
"""From so many changed objects on everything is measured anew."""


class Part:
    """The plane or volume at one position of an array, read where it is indexed.

    Parameters
    ----------
    data : array-like
        Of the labels' shape, read anew each time.
    canvas : Canvas
        Of the labels.
    at : Position
    """

    def __init__(self, data: Any, canvas: Canvas, at: Position) -> None:
        self._data = data
        self._place = canvas.place(at)
        self.shape = tuple(int(data.shape[axis]) for axis in self._place.axes)
        self.dtype = data.dtype
        chunks = canvas.chunks
        self.depth = chunks[self._place.axes[0]] if chunks else 1

    def __getitem__(self, key: Any) -> NDArray[Any]:
        key = key if isinstance(key, tuple) else (key,)
        key = (*key, *(slice(None) for _ in self.shape[len(key) :]))
        full = self._place.full(tuple(slice(*part.indices(size)) for part, size in zip(key, self.shape, strict=True)))
        block = np.asarray(self._data[full])
        gone = tuple(axis for axis, at in enumerate(self._place.fixed) if at is not None)
        return block.squeeze(gone) if gone else block


def sheet_of(canvas: Canvas, channels: Mapping[str, Any], axes: Sequence[str], at: Position, cancel: Any = None) -> Sheet:
    """Measure the objects at one position.

    Parameters
    ----------
    canvas : Canvas
    channels : mapping of str to array-like
        Of the labels' shape.
    axes : sequence of str
        Names of the labels' axes.
    at : Position
    cancel : callable, optional
    """
    return Sheet.of(
        Part(canvas.data, canvas, at),
        {name: Part(channel, canvas, at) for name, channel in channels.items()},
        steps=[canvas.spacing[axis] for axis in canvas.space],
        unit=unit_symbol(canvas.unit),
        axes=_letters(canvas, axes),
        cancel=cancel,
    )


def _letters(canvas: Canvas, axes: Sequence[str]) -> str:
    """Return a letter for each axis of space: that of its name where all are different, else those that are usual."""
    names = [str(axes[axis]).upper() for axis in canvas.space]
    letters = "".join(names) if all(len(name) == 1 and name.isalpha() for name in names) else ""
    return letters if len(set(letters)) == len(canvas.space) else "ZYX"[-len(canvas.space) :]


class Sheets(QObject):
    """The sheet of the labels that a session works on, at the time point in view.

    Signals
    -------
    changed
        There is another sheet, or none any more.
    shaped
        More shapes are measured.

    Attributes
    ----------
    sheet : Sheet or None
        None while nobody wants it, or it is not measured yet.
    at : Position
        The time point.
    """

    changed = Signal()
    shaped = Signal()

    def __init__(self, session: RefineSession) -> None:
        super().__init__(session)
        self._session = session
        self.sheet: Sheet | None = None
        self.at: Position = ()
        self._work: Work | None = None
        self._wanted: set[Hashable] = set()
        self._stale: set[int] = set()
        self._all = True
        self._token: object = None
        self._stop = threading.Event()
        self._shaping = False
        self._bridge = Bridge(self)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_PAUSE)
        self._timer.timeout.connect(self._measure)
        session.chosen.connect(self._on_chosen)
        session.edited.connect(self._on_edited)
        viewer = session.viewer
        if viewer is not None:
            viewer.dims.events.current_step.connect(self._on_step)

    def close(self) -> None:
        """Measure nothing any more."""
        self._stop.set()
        self._timer.stop()
        self._bridge.close()
        viewer = self._session.viewer
        if viewer is not None:
            viewer.dims.events.current_step.disconnect(self._on_step)

    @property
    def measuring(self) -> bool:
        return self._token is not None or self._timer.isActive()

    def want(self, owner: Hashable, wanted: bool) -> None:
        """Say whether somebody looks at the sheet; nothing is measured for nobody."""
        (self._wanted.add if wanted else self._wanted.discard)(owner)
        if self._wanted and (self._all or self._stale) and not self.measuring:
            self._measure()

    def shape(self, rows: Sequence[int]) -> None:
        """Measure the shapes of some rows in another thread; `shaped` tells when."""
        sheet = self.sheet
        if sheet is None or self._shaping:
            return
        self._shaping, stop = True, self._stop

        def measure() -> None:
            for row in rows:
                if stop.is_set():
                    return
                sheet.shape(row)

        self._bridge.background(measure, self._on_shaped)

    # -- within ----------------------------------------------------------------------------------------------------

    def _on_shaped(self, answer: Any) -> None:
        self._shaping = False
        if isinstance(answer, Exception):
            _LOG.error("shapes could not be measured", exc_info=answer)
            return
        self.shaped.emit()

    def _on_chosen(self) -> None:
        self._work = self._session.work
        self.at = self._position()
        self._restart()

    def _on_step(self, event: Any = None) -> None:
        work = self._session.work
        if work is not None and work.canvas.outer and self._position() != self.at:
            self.at = self._position()
            self._restart()

    def _position(self) -> Position:
        work = self._session.work
        return position_of(work.canvas, self._session.deeds.looked_at(work)) if work is not None else ()

    def _restart(self) -> None:
        self._stop.set()
        self._stop = threading.Event()
        self._token, self._all = None, True
        self._stale.clear()
        had, self.sheet = self.sheet is not None, None
        if had:
            self.changed.emit()
        if self._wanted:
            self._timer.start()

    def _on_edited(self, edit: Edit, way: str) -> None:
        if self._all or not isinstance(edit.pixels, int):
            return
        for delta in edit.deltas:
            mask = delta.changed
            for side in (delta.before, delta.after):
                self._stale.update(np.unique(side[mask]).tolist())
            if len(self._stale) > _MANY:
                self._all = True
                break
        self._stale.discard(0)
        if self._wanted:
            self._timer.start()

    def _measure(self) -> None:
        work = self._session.work
        if work is None or not self._wanted:
            return
        if self._token is not None:  # later: one after the other
            self._timer.start()
            return
        if not work.canvas.looked:
            work.when_looked(self._timer.start)
            return
        canvas, at, stop, sheet = work.canvas, self.at, self._stop, self.sheet
        token = self._token = object()
        if self._all or sheet is None:
            channels = self.channels()
            axes = [str(name) for name in work.layer.axis_labels]
            self._all = False
            self._stale.clear()
            self._bridge.background(
                lambda: sheet_of(canvas, channels, axes, at, stop.is_set), lambda answer: self._on_measured(token, answer)
            )
            return
        index, stale = canvas.index, self._stale
        self._stale = set()
        place = canvas.place(at)
        there = {position_id: at in index.positions(position_id) for position_id in stale}
        boxes = {label: place.local(index.bound(label, at)) if there[label] else None for label in stale}
        self._bridge.background(lambda: sheet.changed(boxes), lambda answer: self._on_measured(token, answer))

    def channels(self) -> dict[str, Any]:
        """Return what is measured beside the labels: arrays of their shape, by name."""
        session = self._session
        labels, viewer = session.labels, session.viewer
        if labels is None or viewer is None:
            return {}
        kept = kept_scores(labels, viewer.layers)
        score = {SCORE: kept.sureness} if kept is not None and kept.sureness is not None else {}
        return {**score, **channels_of(session.image, labels, viewer.layers)}

    def _on_measured(self, token: object, answer: Any) -> None:
        if token is not self._token:
            return
        self._token = None
        if isinstance(answer, Cancelled):
            return
        if isinstance(answer, Exception):
            _LOG.error("objects could not be measured", exc_info=answer)
            self._all, self.sheet = True, None
        else:
            self.sheet = answer
        self.changed.emit()
