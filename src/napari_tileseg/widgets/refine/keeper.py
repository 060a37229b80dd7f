"""``Keeper``: puts steps, and what was said of objects, on the disk as they are made; `Recovery` finds them again."""

from __future__ import annotations

import contextlib
import json
import logging
import time
import weakref
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import QObject, QTimer

from napari_tileseg.errors import TileSegError
from napari_tileseg.io.files import zarr_root
from napari_tileseg.io.written import listen
from napari_tileseg.io.zarr_edit import ZarrArray
from napari_tileseg.refine.autosave import EditJournal, journal_path
from napari_tileseg.refine.canvas import Canvas
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.refine.checks import words_of
from napari_tileseg.widgets.refine.noted import Noted
from napari_tileseg.widgets.states import Message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from napari.layers import Labels, Layer
    from numpy.typing import NDArray

    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.widgets.refine.session import RefineSession
    from napari_tileseg.widgets.refine.work import Work

__all__ = ["Keeper", "place_in"]

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
    layer: Labels
    wake: Callable[[], object]
    """Called when something was said of an object."""
    journal: EditJournal | None = None
    moves: list[tuple[str, Any]] = field(default_factory=list)
    """What was done before there is a journal."""
    former: list[Path] = field(default_factory=list)
    """Journals of the same layer from before it was taken out and put in again; this one holds what they do."""
    said: dict[str, dict[int, str]] = field(default_factory=dict)
    """The words of the layer's table that are in the journal."""
    depth: int = 0
    """Steps of the journal that are done and not undone."""
    below: bool = False
    """Whether steps from before it were undone: from then on every undo and redo is a step of its own."""
    heard: bool = False
    """Whether the table may say something else."""
    written: float | None = None
    """When the newest step was put on the disk; None while one is not there."""
    writing: bool = False
    _made: EditJournal | None = None

    def __post_init__(self) -> None:
        self.first = self.said = words_of(self.layer)
        self.layer.events.features.connect(self.hear)

    def hear(self, event: Any = None) -> None:
        """Take note that the layer's table has changed."""
        self.heard, self.written = True, None
        self.wake()

    def listen(self) -> None:
        """Take in what the layer's table says now."""
        if not self.heard:
            return
        self.heard, now = False, words_of(self.layer)
        news = _news(self.said, now)
        self.said = now
        if news:
            self.take("marked", news)

    def end(self) -> None:
        """Look at the layer no more."""
        self.layer.events.features.disconnect(self.hear)

    @property
    def marked(self) -> bool:
        """Whether something was said of objects that was not before."""
        return self.said != self.first

    def take(self, way: str, edit: Any) -> None:
        """Take in a step, or words (`way` is ``"marked"``)."""
        self.written = None
        if way == "undone" and not self.depth:
            self.below = True
        if way != "marked":
            self.depth += -1 if way == "undone" and self.depth else 1
            if self.below and way == "undone":
                way, edit = "done", edit.inverse()
            elif self.below:
                way = "done"
        self.put(way, edit)

    def put(self, way: str, edit: Any) -> None:
        """Bring a step into the journal, once there is one."""
        if self.journal is None:
            self.moves.append((way, edit if way == "marked" else edit.packed()))
        elif way == "marked":
            self.journal.mark(edit)
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
                self.put(way, edit)


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
        self._noted: dict[Work, Noted] = {}
        self._saved: weakref.WeakKeyDictionary[Labels, Path] = weakref.WeakKeyDictionary()
        self._left: weakref.WeakKeyDictionary[Layer, list[Path]] = weakref.WeakKeyDictionary()
        self._bridge = Bridge(self)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT)
        self._timer.timeout.connect(self._flush)
        listen(self)

    # -- keeping ---------------------------------------------------------------------------------------------------

    def keeps(self, work: Work) -> bool:
        """Whether the steps of a layer need a journal: labels on the disk are changed there at once."""
        return isinstance(work.layer.data, np.ndarray)

    def place_of(self, layer: Labels) -> Path | None:
        """Return the file in which labels lie: where they were saved, or where they (or what they are a region of) came from."""
        whole = self._session.regions.whole(layer) or layer
        path = self._saved.get(whole) or getattr(whole.source, "path", None)
        return Path(path).absolute() if path is not None and Path(path).exists() else None

    def follow(self, work: Work) -> None:
        """Keep the steps of a layer from now on."""
        layer = work.layer
        if isinstance(layer.data, ZarrArray):
            self._noted[work] = Noted(layer, self._wake)
        if not self.keeps(work):
            return
        place = self.place_of(layer)
        path = journal_path(layer.name, None if place is None else zarr_root(place) or place)
        facts = _facts(layer) | ({} if place is None else {"place": place_in(path, place)})
        region = self._session.regions.box(layer)
        if region is not None:
            facts["region"] = [[part.start, part.stop] for part in region]
        kept = self._kept[work] = _Kept(path, facts, layer, self._wake, former=self._left.pop(layer, []))
        if layer.data.nbytes > _COPIED:
            kept.journal = EditJournal(kept.path, work.canvas, facts=kept.facts)

    def _wake(self) -> None:
        if not self._timer.isActive():
            self._timer.start()

    def note(self, work: Work, edit: Edit, way: str) -> None:
        """Take a step; it is written within seconds."""
        kept, noted = self._kept.get(work), self._noted.get(work)
        if noted is not None:
            noted.hear()
        if kept is not None:
            kept.take(way, edit)
            self._wake()

    def age(self, work: Work) -> float | None:
        """Return the seconds since the newest step was put on the disk; None while one is not there."""
        kept = self._kept.get(work)
        return None if kept is None or kept.written is None else time.monotonic() - kept.written

    def saved(self, work: Work, path: Path | None = None) -> None:
        """Forget the steps of a layer that was saved; those made from now on are kept anew, beside that file."""
        if path is not None:
            self._saved[work.layer] = path
        self.leave(work, remove=True)
        self.follow(work)
        if work in self._kept:
            self._kept[work].written = time.monotonic()
            self._session.refresh_time()

    def leave(self, work: Work, *, remove: bool = False) -> None:
        """Keep the steps of a layer no more; what is on the disk stays there unless none of it counts any more."""
        kept, noted = self._kept.pop(work, None), self._noted.pop(work, None)
        try:
            if noted is not None:
                noted.end()
            if kept is None:
                return
            kept.end()
            kept.listen()
            counts = bool(kept.depth or kept.below or kept.marked)
            if kept.moves and counts and not remove:
                kept.begin(work.canvas)
                kept.begun()
            if kept.journal is not None:
                kept.journal.close(remove=remove or not counts)
            if kept.journal is not None or remove:
                self._forget(kept)
            if not remove:
                self._left[work.layer] = [*kept.former, *([kept.path] if kept.journal is not None and counts else [])]
        except (TileSegError, OSError):
            _LOG.warning("the last steps could not be kept", exc_info=True)

    def on_written(self, data: Any, path: Path) -> None:
        """Take note that napari has saved a layer by itself."""
        for work in list(self._kept):
            if work.layer.data is data and not self._session.regions.owns(work.layer):
                self.saved(work, path)

    def forget(self, layer: Layer) -> None:
        """Delete what is kept of a layer that is gone, because its labels are where they belong."""
        for path in self._left.pop(layer, []):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _forget(self, kept: _Kept) -> None:
        """Delete journals whose steps are in another one by now."""
        for path in kept.former:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        kept.former = []

    def close(self) -> None:
        """Write what is not written yet: the viewer is gone."""
        self._timer.stop()
        self._bridge.close()
        for work in [*self._kept, *self._noted]:
            self.leave(work)

    def flush(self) -> None:
        """Put everything on the disk now.

        Raises
        ------
        OutputError
            If the disk refuses.
        """
        for noted in self._noted.values():
            if noted.new:
                noted.taken()()
        for work, kept in self._kept.items():
            kept.listen()
            if kept.written is None and (kept.moves or kept.journal is not None):
                kept.begin(work.canvas)
                kept.begun()
                if kept.journal is not None:
                    kept.journal.flush()
                    self._forget(kept)
                kept.written = time.monotonic()

    def _flush(self) -> None:
        for noted in self._noted.values():
            if noted.new:
                self._bridge.background(noted.taken(), self._on_noted)
        for work, kept in self._kept.items():
            kept.listen()
            if kept.written is None and not kept.writing and (kept.moves or (kept.journal is not None and kept.journal.waiting)):
                kept.writing = True
                make = kept.journal.flush if kept.journal is not None else partial(kept.begin, work.canvas)
                self._bridge.background(make, partial(self._on_flushed, kept))

    def _on_noted(self, answer: Any) -> None:
        if isinstance(answer, Exception):
            self._session.tell(Message("warning", str(answer)))

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
            self._forget(kept)
            self._session.refresh_time()


def place_in(journal: Path, place: Path) -> str:
    """Return what a journal says of the file that it belongs to: where it lies as seen from the journal, if that is beside it."""
    try:
        return place.relative_to(journal.parent).as_posix()
    except ValueError:
        return str(place)


def _news(before: Mapping[str, Mapping[int, str]], now: Mapping[str, Mapping[int, str]]) -> dict[str, dict[int, str]]:
    """Return the words that are others than before; empty ones where there are none any more."""
    news: dict[str, dict[int, str]] = {}
    for name in (*now, *(name for name in before if name not in now)):
        old, new = before.get(name, {}), now.get(name, {})
        changed = {label: word for label, word in new.items() if old.get(label) != word} | dict.fromkeys(old.keys() - new.keys(), "")
        if changed:
            news[name] = changed
    return news


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
