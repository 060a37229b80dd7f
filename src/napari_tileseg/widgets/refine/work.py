"""``Work``: what was done by hand to one labels layer since it was opened: its steps, its objects, how often each tool was used."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_tileseg.errors import Cancelled
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.refine.states import counted
from napari_tileseg.widgets.refine.steps import Steps
from napari_tileseg.widgets.refine.subject import canvas_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari.layers import Labels

    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit

__all__ = ["Work"]


class Work(QObject):
    """The corrections of one layer.

    Parameters
    ----------
    layer : napari.layers.Labels
        Of one scale; held by identity.

    Signals
    -------
    stepped
        ``(edit, way)``: a step was ``"done"``, ``"undone"`` or ``"redone"``, by a tool or by napari's brush.
    looked
        The objects are known.

    Raises
    ------
    InputError
        If its array is none that can be corrected.
    """

    stepped = Signal(object, str)
    looked = Signal()

    def __init__(self, layer: Labels) -> None:
        super().__init__()
        self.layer = layer
        self.canvas: Canvas = canvas_of(layer)
        self.steps = Steps(layer, self._on_step)
        self.count = 0
        """Steps that were done and not undone."""
        self.moves = 0
        """Steps done, undone and redone: labels of the same number are the same labels."""
        self._bridge = Bridge(self)
        self._stop = threading.Event()
        self._looking = False
        self._waiting: list[Callable[[], object]] = []

    def close(self) -> None:
        """Look at the layer no more."""
        self._stop.set()
        self.steps.close()
        self._bridge.close()

    def when_looked(self, deed: Callable[[], object]) -> None:
        """Do something as soon as the objects are known: now, or after they were looked for in another thread."""
        if self.canvas.looked:
            deed()
            return
        self._waiting.append(deed)
        if not self._looking:
            self._look()

    def _look(self) -> None:
        self._looking = True
        generation = self.moves
        fresh = canvas_of(self.layer)

        def look() -> Canvas:
            fresh.look(cancel=self._stop.is_set)
            return fresh

        self._bridge.background(look, lambda answer: self._on_looked(answer, generation))

    def _on_looked(self, answer: Any, generation: int) -> None:
        self._looking = False
        if isinstance(answer, Cancelled):
            return
        if generation != self.moves:  # somebody painted meanwhile
            self._look()
            return
        if not isinstance(answer, Exception):
            self.canvas = answer
            self.looked.emit()
        waiting, self._waiting = self._waiting, []
        for deed in waiting:
            deed()

    def _on_step(self, edit: Edit, way: str) -> None:
        self.moves += 1
        self.canvas.noted(edit, undone=way == "undone")
        by = -1 if way == "undone" else 1
        self.count = max(self.count + by, 0)  # what was painted before the layer was looked at may be undone too
        told = dict(self.layer.metadata.get("tileseg") or {})
        told["edits"] = counted(told.get("edits") or {}, edit.tool, by)
        if edit.about:  # steps are undone in the order in which they stand here
            before = list(told.get(edit.tool) or [])
            told[edit.tool] = [*before, dict(edit.about)] if by > 0 else before[:-1]
        for name in ("edits", edit.tool):
            if name in told and not told[name]:
                del told[name]
        self.layer.metadata = {**self.layer.metadata, "tileseg": told}
        self.stepped.emit(edit, way)
