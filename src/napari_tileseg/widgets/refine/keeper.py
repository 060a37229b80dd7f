"""``Keeper``: puts steps on the disk as they are made, and finds those of a program that ended by force."""

from __future__ import annotations

import contextlib
import json
import logging
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject, QTimer

from napari_tileseg.errors import TileSegError
from napari_tileseg.refine.autosave import EditJournal, abandoned, journal_path, recover
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.late import Late
from napari_tileseg.widgets.states import Message

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.refine.autosave import Recovered
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.widgets.refine.session import RefineSession
    from napari_tileseg.widgets.refine.work import Work

__all__ = ["Keeper"]

_LOG = logging.getLogger(__name__)

_WAIT = 2000
"""Milliseconds after a step until it is written; more steps meanwhile do not put it off."""

_COPIED = 1 << 30
"""Labels up to this many bytes are kept with their steps, so that nothing else is needed to recover them."""


@dataclass(eq=False)
class _Kept:
    """The journal of one layer's steps; it is begun in another thread with the first of them."""

    path: Path
    facts: dict[str, Any]
    journal: EditJournal | None = None
    moves: list[tuple[str, Edit]] = field(default_factory=list)
    """What was done before there is a journal."""
    written: float | None = None
    """When the newest step was put on the disk; None while one is not there."""
    writing: bool = False
    _made: EditJournal | None = None

    def take(self, way: str, edit: Edit) -> None:
        """Take a step in."""
        self.written = None
        if self.journal is None:
            self.moves.append((way, edit.packed()))
        elif way == "undone":
            self.journal.undone()
        elif way == "redone":
            self.journal.redone()
        else:
            self.journal.add(edit)

    def begin(self, canvas: Canvas) -> None:
        """Begin the journal with labels as they were before the first step, and put every step since into it.

        Where they are too large to be kept, it was begun before.
        """
        if self.journal is not None:
            return
        base = np.array(canvas.data)  # steps may be made meanwhile: what they change is put back below
        moves = list(self.moves)
        _put_back(base, [edit for way, edit in moves if way == "done"])
        before = Canvas(base, spacing=canvas.spacing, space=canvas.space, unit=canvas.unit)
        journal = EditJournal(self.path, before, facts=self.facts, keep_base=True)
        self._made = journal

    def begun(self) -> None:
        """Go on with the journal that was begun; in Qt's thread, where steps are made."""
        if self.journal is None:
            self.journal, moves = self._made, self.moves
            self.moves = []
            for way, edit in moves:
                self.take(way, edit)


class Keeper(QObject):
    """Keeps the steps of a session's layers.

    Parameters
    ----------
    session : RefineSession
    """

    def __init__(self, session: RefineSession) -> None:
        super().__init__(session)
        self._session = session
        self._kept: dict[Work, _Kept] = {}
        self._found: list[tuple[Path, Recovered]] = []
        self._looked = False
        self._bridge = Bridge(self)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT)
        self._timer.timeout.connect(self._flush)

    # -- keeping ---------------------------------------------------------------------------------------------------

    def keeps(self, work: Work) -> bool:
        """Whether the steps of a layer need a journal: labels on the disk are changed there at once."""
        return isinstance(work.layer.data, np.ndarray)

    def follow(self, work: Work) -> None:
        """Keep the steps of a layer from now on."""
        if self.keeps(work):
            layer = work.layer
            kept = self._kept[work] = _Kept(journal_path(layer.name), _facts(layer))
            if layer.data.nbytes > _COPIED:
                kept.journal = EditJournal(kept.path, work.canvas, facts=kept.facts)

    def note(self, work: Work, edit: Edit, way: str) -> None:
        """Take a step; it is written within seconds."""
        kept = self._kept.get(work)
        if kept is None:
            return
        kept.take(way, edit)
        if not self._timer.isActive():
            self._timer.start()

    def age(self, work: Work) -> float | None:
        """Return the seconds since the newest step was put on the disk; None while one is not there."""
        kept = self._kept.get(work)
        return None if kept is None or kept.written is None else time.monotonic() - kept.written

    def saved(self, work: Work) -> None:
        """Forget the steps of a layer that was saved; those made from now on are kept anew."""
        self.leave(work, remove=True)
        self.follow(work)

    def leave(self, work: Work, *, remove: bool = False) -> None:
        """Keep the steps of a layer no more; what is on the disk stays there unless none of it counts any more."""
        kept = self._kept.pop(work, None)
        if kept is None:
            return
        try:
            if kept.moves and work.count and not remove:
                kept.begin(work.canvas)
                kept.begun()
            if kept.journal is not None:
                kept.journal.close(remove=remove or not work.count)
        except (TileSegError, OSError):
            _LOG.warning("the last steps could not be kept", exc_info=True)

    def close(self) -> None:
        """Write what is not written yet: the viewer is gone."""
        self._timer.stop()
        self._bridge.close()
        for work in list(self._kept):
            self.leave(work)
        self._found.clear()

    def flush(self) -> None:
        """Put everything on the disk now.

        Raises
        ------
        OutputError
            If the disk refuses.
        """
        for work, kept in self._kept.items():
            if kept.written is None and (kept.moves or kept.journal is not None):
                kept.begin(work.canvas)
                kept.begun()
                if kept.journal is not None:
                    kept.journal.flush()
                kept.written = time.monotonic()

    def _flush(self) -> None:
        for work, kept in self._kept.items():
            if kept.written is None and not kept.writing and (kept.moves or (kept.journal is not None and kept.journal.waiting)):
                kept.writing = True
                make = kept.journal.flush if kept.journal is not None else partial(kept.begin, work.canvas)
                self._bridge.background(make, partial(self._on_flushed, kept))

    def _on_flushed(self, kept: _Kept, answer: Any) -> None:
        kept.writing = False
        if isinstance(answer, Exception):
            self._session.tell(Message("warning", f"The last steps could not be kept on the disk: {answer}"))
            self._timer.start()
            return
        if kept.journal is None:
            kept.begun()
        if kept.journal is not None and kept.journal.waiting:
            self._flush()
        else:
            kept.written = time.monotonic()
            self._session.refresh_time()

    # -- recovering ------------------------------------------------------------------------------------------------

    def look_once(self) -> None:
        """Look in another thread for steps that a program has left behind; the first time only."""
        if self._looked:
            return
        self._looked = True
        self._bridge.background(_left_behind, Late(self, "_on_found"))  # type: ignore[arg-type]  # any Qt object will do

    def _on_found(self, answer: Any) -> None:
        if isinstance(answer, Exception):
            _LOG.warning("steps of an earlier program could not be looked for", exc_info=answer)
            return
        self._found = answer
        self._tell()

    def keep(self) -> None:
        """Do the recovered steps again: on the labels if they are open, else on a copy that was kept with them."""
        found, self._found = self._found, []
        missing: list[str] = []
        for path, recovered in found:
            layer = self._layer_for(recovered)
            if layer is None:
                missing.append(str(recovered.facts.get("name", "labels")))
                self._found.append((path, recovered))
                continue
            self._session.choose(layer)
            if self._session.work is not None and all(self._session.do(edit) for edit in recovered.edits):
                self.flush()
                path.unlink(missing_ok=True)
            else:
                self._found.append((path, recovered))
        self._tell()
        if missing:
            names = ", ".join(f'"{name}"' for name in missing)
            self._session.tell(Message("warning", f"The labels {names} were too large to be kept. Open them, and choose Keep again."))

    def discard(self) -> None:
        """Delete the recovered steps."""
        found, self._found = self._found, []
        for path, _ in found:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        self._tell()

    def _tell(self) -> None:
        self._session.show_recovered(sum(len(recovered.edits) for _, recovered in self._found))

    def _layer_for(self, recovered: Recovered) -> Labels | None:
        viewer = self._session.viewer
        if viewer is None:
            return None
        for layer in viewer.layers:
            if isinstance(layer, Labels) and not layer.multiscale and recovered.fits(layer.data):
                return layer
        if recovered.base is None:
            return None
        layer = _layer_of(recovered)
        viewer.add_layer(layer)
        return layer


def _left_behind() -> list[tuple[Path, Recovered]]:
    """Return the journals of programs that have ended without saving; those in which all was undone go."""
    found = []
    for path in abandoned():
        try:
            recovered = recover(path)
        except TileSegError:
            _LOG.warning("%s cannot be recovered", path, exc_info=True)
            continue
        if recovered.edits:
            found.append((path, recovered))
        else:
            path.unlink(missing_ok=True)
    return found


def _put_back(labels: NDArray[Any], edits: list[Edit]) -> None:
    """Give every pixel that edits have changed the value that it had before all of them, whichever of them the array has seen."""
    for edit in reversed(edits):
        for delta in reversed(edit.deltas):
            part, changed = labels[delta.box], delta.changed
            part[changed] = delta.before[changed]


def _facts(layer: Labels) -> dict[str, Any]:
    """Return what a layer is made of besides its labels, fit for JSON."""
    features = {name: column.tolist() for name, column in layer.features.items()} if len(layer.features) < 1 << 16 else {}
    facts = {
        "name": layer.name,
        **{name: np.asarray(getattr(layer, name)).tolist() for name in ("scale", "translate", "rotate", "shear")},
        "affine": np.asarray(layer.affine.affine_matrix).tolist(),
        "units": [str(unit) for unit in layer.units],
        "axis_labels": list(layer.axis_labels),
        "features": features,
        "metadata": {name: layer.metadata[name] for name in ("tileseg", "tileseg_volume") if name in layer.metadata},
    }
    kept: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    return kept


def _layer_of(recovered: Recovered) -> Labels:
    facts = dict(recovered.facts)
    features = facts.pop("features", None)
    assert recovered.base is not None  # asked before
    return Labels(np.array(recovered.base), **facts, features=features or None)
