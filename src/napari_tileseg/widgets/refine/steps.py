"""``Steps``: undo and redo of one labels layer, napari's own painting and our tools in one common order.

Everything is kept in a log of ours, compressed. Small changes stand in napari's history too (``data_setitem``), so that napari's own
undo knows them; those are undone through the layer, and by ourselves where napari has forgotten them. ::

    log      [ brush | merge | fill holes in the volume | brush ]     all steps, in order
    napari   [ brush | merge |                          | brush ]     what its history has
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import InputError, OutputError
from napari_tileseg.refine.delta import STALE, Edit
from napari_tileseg.refine.history import EditLog
from napari_tileseg.widgets.refine.painted import edit_of
from napari_tileseg.widgets.shown import is_oblique

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels


__all__ = ["SMALL", "Steps"]

SMALL = 1 << 16
"""Most pixels of a change that napari's own history is given: it keeps an index of eight bytes for each axis of each pixel."""

_FEW = 64
"""Most boxes of a change that napari's history is given."""


class Steps:
    """What was done to a labels layer.

    Parameters
    ----------
    layer : napari.layers.Labels
        Of one scale.
    on_change : callable
        Called as ``on_change(edit, way)`` after each step; `way` is ``"done"``, ``"undone"`` or ``"redone"``.
    """

    def __init__(self, layer: Labels, on_change: Callable[[Edit, str], None]) -> None:
        self._layer = layer
        self._on_change = on_change
        self._log = EditLog()
        self._ours: Edit | None = None
        self._quiet = False
        # Whether napari's history has a step; of the last ones only, as many as the log may hold.
        self._done: deque[bool] = deque()
        self._undone: deque[bool] = deque()
        self._before = len(getattr(layer, "_undo_history", ()))
        """Steps of napari's history from before this looked at the layer; they can be undone too, but are in no log."""
        self._after = 0
        """How many of them were undone last."""
        layer.events.paint.connect(self._on_paint)
        # Whoever asks the layer itself (napari's own key, a script) gets the common order too.
        layer.undo, layer.redo = self.undo, self.redo

    @property
    def log(self) -> EditLog:
        return self._log

    def close(self) -> None:
        """Look at the layer no more."""
        with contextlib.suppress(ValueError, RuntimeError):
            self._layer.events.paint.disconnect(self._on_paint)
        for name in ("undo", "redo"):
            self._layer.__dict__.pop(name, None)
        self._log.clear()

    def do(self, edit: Edit) -> None:
        """Change the labels.

        Raises
        ------
        InputError
            If the labels are not any more what the edit was made for, or cannot be written to.
        OutputError
            If the disk refuses.
        """
        if not edit:
            return
        # napari 0.9 looks for the slice in view at another place than it draws it where a layer is oblique, and writes there too.
        native = isinstance(self._layer.data, np.ndarray) and edit.pixels <= SMALL and _apart(edit) and not is_oblique(self._layer)
        with _writing(self._layer):
            if native:
                if not _stands(edit, self._layer.data, "before"):
                    raise InputError(STALE)
                self._give(edit)
            else:
                edit.apply(self._layer.data)
                _show(self._layer)
        self._add(edit, native=native)

    def undo(self) -> Edit | None:
        """Take the last step back; None where there is none."""
        return self._move(undo=True)

    def redo(self) -> Edit | None:
        """Do the step again that was taken back last; None where there is none."""
        return self._move(undo=False)

    # -- within ----------------------------------------------------------------------------------------------------

    def _give(self, edit: Edit) -> None:
        """Change the labels through napari's history, as one step."""
        self._ours = edit
        try:
            with self._layer.block_history():
                for delta in edit.deltas:
                    places = np.nonzero(delta.changed)
                    values = delta.after[places]
                    indices = tuple(part + low for part, low in zip(places, delta.start, strict=True))
                    # One value for all is what napari keeps in the fewest bytes.
                    same = values.size and (values == values.flat[0]).all()
                    self._layer.data_setitem(indices, values.flat[0] if same else values)
        finally:
            self._ours = None

    def _on_paint(self, event: Any) -> None:
        """Take a step of the user's own brush in."""
        if self._ours is not None or self._quiet:
            return
        edit = edit_of(event.value, self._layer.data)
        if edit:
            self._add(edit, native=True)

    def _add(self, edit: Edit, *, native: bool) -> None:
        edit = edit.packed()  # once, for the log and for whoever keeps it on the disk: strokes of a large brush take a while
        self._log.add(edit)
        self._undone.clear()
        self._after = 0
        self._done.append(native)
        self._on_change(edit, "done")

    def _move(self, *, undo: bool) -> Edit | None:
        edit = self._log.undo() if undo else self._log.redo()
        if not isinstance(edit, Edit):  # the log is never given marks here
            return self._move_alone(undo=undo)
        taken, given = (self._done, self._undone) if undo else (self._undone, self._done)
        native = taken.pop() if taken else False
        data = self._layer.data
        with _writing(self._layer):
            if native:
                move = type(self._layer).undo if undo else type(self._layer).redo
                move(self._layer)
                native = _stands(edit, data, "before" if undo else "after")
            if not native:  # napari keeps a hundred steps, and none of before its layer was locked
                (edit.revert if undo else edit.apply)(data)
                _show(self._layer)
        given.append(native)
        self._on_change(edit, "undone" if undo else "redone")
        return edit

    def _move_alone(self, *, undo: bool) -> Edit | None:
        """Undo or redo what only napari knows: it was painted before this looked at the layer."""
        history = getattr(self._layer, "_undo_history" if undo else "_redo_history", None)
        if not history or not (self._before if undo else self._after):
            return None
        item = history[-1] if undo else list(reversed(history[-1]))
        edit = edit_of(item, self._layer.data)
        if not edit or not _stands(edit, self._layer.data, "after" if undo else "before"):
            return None
        move = type(self._layer).undo if undo else type(self._layer).redo
        move(self._layer)
        self._before += -1 if undo else 1
        self._after += 1 if undo else -1
        self._on_change(edit, "undone" if undo else "redone")
        return edit


def _stands(edit: Edit, data: Any, side: str) -> bool:
    """Whether the labels are what one side of an edit says, where it changes them; its boxes lie apart."""
    for delta in edit.deltas:
        before, after = delta.before, delta.after  # taken out once each, where they are compressed
        wanted = before if side == "before" else after
        if ((np.asarray(data[delta.box]) != wanted) & (before != after)).any():
            return False
    return True


def _apart(edit: Edit) -> bool:
    """Whether no two boxes of an edit touch the same pixel."""
    boxes = [delta.box for delta in edit.deltas]
    if len(boxes) > _FEW:
        return False
    pairs = itertools.combinations(boxes, 2)
    return all(any(a.stop <= b.start or b.stop <= a.start for a, b in zip(one, other, strict=True)) for one, other in pairs)


def _show(layer: Labels) -> None:
    layer.refresh(extent=False, highlight=False)


@contextlib.contextmanager
def _writing(layer: Labels) -> Any:
    """Turn what arrays say of themselves when they cannot be written to into a sentence."""
    try:
        yield
    except OSError as error:
        raise OutputError(f'The labels of "{layer.name}" could not be written: {error.strerror or error}.') from error
    except (ValueError, TypeError, NotImplementedError) as error:
        if getattr(getattr(layer.data, "flags", None), "writeable", True) and isinstance(layer.data, np.ndarray):
            raise
        raise InputError(f'The labels of "{layer.name}" can only be read. Duplicate the layer, and correct the copy.') from error
