"""``Shelf``: which models there are, on this computer and on the hubs; listed where nobody has to wait for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_tileseg.errors import TileSegError
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.models.chore import Chore, Ended
from napari_tileseg.widgets.models.rows import hub_row, local_row
from napari_tileseg.widgets.states import Action, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari_tileseg.widgets.models.rows import Row
    from napari_tileseg.widgets.models.sources import Sources

__all__ = ["Shelf"]


class Shelf(QObject):
    """The models of the place that is shown.

    Signals
    -------
    listed
        They are known, or others than before.
    told
        A `Message`.
    """

    listed = Signal()
    told = Signal(object)

    def __init__(self, sources: Sources, parent: QObject) -> None:
        super().__init__(parent)
        self.sources = sources
        self.here: list[Row] = []
        self.hub = ""
        self.listing = False
        self._entries: dict[str, list[Any]] = {}
        self._records: dict[str, str] = {}
        self._bridge = Bridge(self)
        self._chores: list[Chore] = []
        self._asked = 0
        self._stop = threading.Event()

    @property
    def rows(self) -> list[Row]:
        """The models of the place that is shown."""
        if not self.hub:
            return self.here
        known = {row.name for row in self.here}
        here = {ref: name for ref, name in self._records.items() if name in known}
        return [hub_row(entry, here) for entry in self._entries.get(self.hub, [])]

    def list_here(self) -> None:
        """List the models on this computer, in another process: some kinds are recognised with torch only."""
        self.listing = self.listing or not self.hub
        self._asked += 1
        asked = self._asked
        self._run(["models", "list", "--json"], lambda ended: self._on_here(asked, ended))

    def show(self, hub: str, *, refresh: bool = False) -> None:
        """Show the models of a hub, or with ``""`` those on this computer."""
        self.hub = hub
        self._stop.set()
        self.listing = False
        if not hub:
            self.list_here()
        elif hub not in self._entries or refresh:
            self._ask_hub(hub, refresh)
        self.listed.emit()

    def show_card(self, ref: str, receiver: Callable[[str], None]) -> None:
        """Read the whole card of a model, and hand it over."""
        self._run(["models", "show", ref, "--json"], lambda ended: self._on_card(ended, receiver))

    def close(self) -> None:
        """End what goes on."""
        self._bridge.close()
        self._stop.set()
        for chore in self._chores:
            chore.kill()

    def _ask_hub(self, hub: str, refresh: bool) -> None:
        """Ask a hub in a thread of its own: it may let us wait for long."""
        self.listing = True
        stop = self._stop = threading.Event()
        deliver = self._bridge.carry(lambda answer: self._on_hub(hub, stop, answer))
        catalog = self.sources.catalog

        def ask() -> None:
            try:
                deliver(list(catalog(hub, refresh=refresh, cancel=stop.is_set)))
            except Exception as error:
                deliver(error)

        threading.Thread(target=ask, name="tileseg-hub", daemon=True).start()

    def _on_here(self, asked: int, ended: Ended) -> None:
        if asked != self._asked:
            return  # a later list is on its way
        if ended.error is not None:
            self.told.emit(Message("error", str(ended.error["message"]), (Action.REFRESH,)))
        else:
            self.here = [local_row(event) for event in ended.events if event.get("event") == "model"]
            self._bridge.background(self.sources.records, self._on_records)
        if not self.hub:
            self.listing = False
        self.listed.emit()

    def _on_records(self, answer: Any) -> None:
        """Take note which models of hubs are here."""
        if isinstance(answer, dict) and answer != self._records:
            self._records = answer
            if self.hub:
                self.listed.emit()

    def _on_hub(self, hub: str, stop: threading.Event, answer: Any) -> None:
        if stop is not self._stop or stop.is_set():
            return
        self.listing = False
        if isinstance(answer, Exception):
            text = str(answer) if isinstance(answer, TileSegError) else f"The list of models could not be read: {answer}."
            self.told.emit(Message("error", text, (Action.REFRESH,)))
        else:
            self._entries[hub] = answer
        self.listed.emit()

    def _on_card(self, ended: Ended, receiver: Callable[[str], None]) -> None:
        if ended.error is not None:
            self.told.emit(Message("error", str(ended.error["message"])))
        else:
            receiver(str(ended.answer.get("card", "")))

    def _run(self, words: Sequence[str], on_end: Callable[[Ended], None]) -> None:
        """Begin something that nobody waits for."""
        self._chores = [chore for chore in self._chores if chore.running]
        try:
            self._chores.append(Chore(words, self._bridge.carry(on_end), start=self.sources.start))
        except TileSegError as error:
            self.listing = False
            self.told.emit(Message("error", str(error)))
            self.listed.emit()
