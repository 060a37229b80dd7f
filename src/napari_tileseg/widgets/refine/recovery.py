"""``Recovery``: steps of a program that ended without saving, found in the user's folder and beside files, and done again if wanted."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels
from qtpy.QtCore import QObject

from napari_tileseg.errors import InputError, TileSegError
from napari_tileseg.io.files import zarr_root
from napari_tileseg.io.registry import find_format
from napari_tileseg.refine.autosave import abandoned, recover
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.late import Late
from napari_tileseg.widgets.refine.checks import CHECK, say
from napari_tileseg.widgets.refine.states import recovered_words
from napari_tileseg.widgets.states import Action, Message

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.refine.autosave import Recovered
    from napari_tileseg.widgets.refine.session import RefineSession

    Found = tuple[Path, Recovered]

__all__ = ["Recovery"]

_LOG = logging.getLogger(__name__)


class Recovery(QObject):
    """Finds the journals that programs have left behind; nothing of them is done before somebody says so.

    Parameters
    ----------
    session : RefineSession
    """

    def __init__(self, session: RefineSession) -> None:
        super().__init__(session)
        self._session = session
        self._found: list[Found] = []
        self._looked: set[Path | None] = set()
        self._bridge = Bridge(self)
        session.chosen.connect(self._on_chosen)

    def look_once(self) -> None:
        """Look in another thread into the user's folder; the first time only."""
        self._look(None)

    def close(self) -> None:
        """Look no more."""
        self._bridge.close()
        self._found.clear()

    def _on_chosen(self) -> None:
        """Look in another thread beside the file of other labels; the first time only."""
        labels = self._session.labels
        place = self._session.keeper.place_of(labels) if labels is not None else None
        if place is not None:
            self._look(zarr_root(place) or place)

    def _look(self, file: Path | None) -> None:
        if file not in self._looked:
            self._looked.add(file)
            self._bridge.background(lambda: _left_behind(file), Late(self, "_on_found"))

    def _on_found(self, answer: Any) -> None:
        if isinstance(answer, Exception):
            _LOG.warning("steps of an earlier program could not be looked for", exc_info=answer)
            return
        known = {path for path, _ in self._found}
        self._found += [found for found in answer if found[0] not in known]
        self._tell()

    # -- what may be done with them --------------------------------------------------------------------------------

    def keep(self) -> None:
        """Do the recovered steps again: on the labels if they are open, else on a copy that was kept with them.

        Those of a file that holds other labels by now are not done, and stay.
        """
        found, self._found = self._found, []
        troubles: list[str] = []
        links: tuple[Action, ...] = ()
        edits = marks = 0
        for path, recovered in found:
            try:
                layer = self._layer_for(path, recovered)
                if layer is not None:
                    self._do(layer, path, recovered)
                    edits, marks = edits + len(recovered.edits), marks + _count(recovered)
            except TileSegError as error:
                troubles.append(str(error))
                links = (Action.OPEN_COPY, Action.DISCARD)
                self._found.append((path, recovered))
        self._tell()
        if troubles:
            self._session.tell(Message("warning", " ".join(troubles), links))
        elif edits or marks:
            self._session.tell(Message("done", recovered_words(edits, marks)))
        else:
            self._session.tell(Message("info", "What was recovered is in the labels already."))

    def open_copies(self) -> None:
        """Open the copies that were kept with steps, and do these there."""
        found, self._found = self._found, []
        missing = []
        for path, recovered in found:
            if recovered.base is None:
                missing.append(str(recovered.facts.get("name", "labels")))
                self._found.append((path, recovered))
            else:
                self._do(self._copy(recovered), path, recovered)
        self._tell()
        if missing:
            self._session.tell(Message("warning", _too_large(missing)))

    def discard(self) -> None:
        """Delete the recovered steps."""
        found, self._found = self._found, []
        for path, _ in found:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        self._session.tell(None)
        self._tell()

    # -- within ----------------------------------------------------------------------------------------------------

    def _tell(self) -> None:
        edits = sum(len(recovered.edits) for _, recovered in self._found)
        self._session.show_recovered(edits, sum(_count(recovered) for _, recovered in self._found))

    def _do(self, layer: Labels, path: Path, recovered: Recovered) -> None:
        """Do steps on labels that are what they begin with, all or none, and say of objects what was said."""
        session = self._session
        session.choose(layer)
        work = session.work
        if work is None:
            raise InputError(session.state.locked or f'"{layer.name}" cannot be corrected now. Choose Keep again later.')
        done = 0
        try:
            for edit in recovered.edits:
                work.steps.do(edit)
                done += 1
        except TileSegError:
            for _ in range(done):
                work.steps.undo()
            raise
        for name, words in recovered.marks.items():
            say(layer, name, words)
        session.keeper.flush()
        path.unlink(missing_ok=True)

    def _layer_for(self, path: Path, recovered: Recovered) -> Labels | None:
        """Return the labels to do steps on; None where they were saved in another way, and the journal is deleted.

        Raises
        ------
        InputError
            If the file of the steps holds something else, or the labels are not there.
        """
        viewer, keeper = self._session.viewer, self._session.keeper
        assert viewer is not None  # the session is open
        told = recovered.facts.get("place")
        place = None if told is None else path.parent / str(told)
        if "region" in recovered.facts and place is not None and place.exists():
            return self._session.regions.reopen(place, recovered)

        def at_place() -> list[Labels]:
            return [layer for layer in _single(viewer) if place is not None and keeper.place_of(layer) == place]

        if place is not None and not at_place() and find_format(place) is not None and place.exists():
            with contextlib.suppress(ValueError):  # files that napari reads itself
                viewer.open(str(place), plugin="napari-tileseg")
        layers, there = _single(viewer), at_place()
        named = [layer for layer in layers if layer not in there and layer.name == recovered.facts.get("name")]
        others = [layer for layer in layers if layer not in there and layer not in named]
        for layer in (*there, *named, *others):
            if recovered.fits(layer.data):
                return layer
        if any(recovered.done_in(layer.data) for layer in there):
            path.unlink(missing_ok=True)
            return None
        if there:
            raise InputError(
                f'"{there[0].name}" was changed by something else after these {len(recovered.edits)} edits were made, so they do not fit '
                "any more. Open a copy to see them on the labels as they were; until then they are kept."
            )
        if recovered.base is None:
            raise InputError(_too_large([str(recovered.facts.get("name", "labels"))]))
        return self._copy(recovered)

    def _copy(self, recovered: Recovered) -> Labels:
        """Open the labels that were kept with steps."""
        layer = _layer_of(recovered)
        assert self._session.viewer is not None  # the session is open
        self._session.viewer.add_layer(layer)
        return layer


def _single(viewer: Any) -> list[Labels]:
    return [layer for layer in viewer.layers if isinstance(layer, Labels) and not layer.multiscale]


def _left_behind(file: Path | None) -> list[Found]:
    """Return the journals of programs that have ended without saving; those of which nothing counts go."""
    found = []
    for path in abandoned(file):
        try:
            recovered = recover(path)
        except TileSegError:
            _LOG.warning("%s cannot be recovered", path, exc_info=True)
            continue
        if recovered.edits or any(recovered.marks.values()):
            found.append((path, recovered))
        else:
            path.unlink(missing_ok=True)
    return found


def _count(recovered: Recovered) -> int:
    """Return of how many objects something was said."""
    return len(recovered.marks.get(CHECK, ())) or len({label for words in recovered.marks.values() for label in words})


def _too_large(names: list[str]) -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return f"The labels {listed} were too large to be kept. Open them, and choose Keep again."


def _layer_of(recovered: Recovered) -> Labels:
    facts = {name: value for name, value in recovered.facts.items() if name not in ("place", "region")}
    features = facts.pop("features", None)
    assert recovered.base is not None  # asked before
    return Labels(np.array(recovered.base), **facts, features=features or None)
