"""One viewer's models: listed, brought, checked, trusted, given on and removed; docks come and go, what goes on stays."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, QTimer, Signal

from napari_tileseg.errors import TileSegError
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.docks import Docks
from napari_tileseg.widgets.models.asking import NETWORK, Question, answer_words, question_for
from napari_tileseg.widgets.models.chore import Chore, Ended
from napari_tileseg.widgets.models.rows import hub_row, local_row
from napari_tileseg.widgets.models.sources import Sources
from napari_tileseg.widgets.models.states import Refusal, Work, ending, refused
from napari_tileseg.widgets.models.trust import Shown, TrustDialog, look_at, trust_exactly
from napari_tileseg.widgets.session import session_of, tell_models_changed
from napari_tileseg.widgets.states import Action, Message

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import napari
    from qtpy.QtWidgets import QWidget

    from napari_tileseg.widgets.models.rows import Row
    from napari_tileseg.widgets.models.states import Kind
    from napari_tileseg.widgets.session import Session

__all__ = ["ModelsSession", "models_session_of"]

_TICK = 200
"""Milliseconds between two drawings of a download."""

_UNRECOGNISED = "was not recognised from the names of its"


class ModelsSession(QObject):
    """What goes on with the models, and what is known of them.

    Signals
    -------
    changed
        What goes on is something else: draw it.
    listed
        The models of the place that is shown are known.
    told
        A `Message`.
    arrived
        Name of a model that is here now.
    """

    changed = Signal()
    listed = Signal()
    told = Signal(object)
    arrived = Signal(str)

    def __init__(self, segment: Session, sources: Sources | None = None) -> None:
        super().__init__()
        self.sources = sources or Sources()
        self.segment = segment
        self.work = Work()
        self.question: Question | None = None
        self.refusal: Refusal | None = None
        self.here: list[Row] = []
        self.hub = ""
        self.entries: dict[str, list[Any]] = {}
        self.listing = False
        self.docks = Docks(lambda: None)
        self._bridge = Bridge(self)
        self._chore: Chore | None = None
        self._others: list[Chore] = []
        self._again: Callable[[], None] | None = None
        self._asker: QWidget | None = None
        self._after_trust: Callable[[], None] | None = None
        self._waiting: deque[str] = deque()
        self._stop_catalog = threading.Event()
        self._tick = QTimer(self)
        self._tick.setSingleShot(True)
        self._tick.setInterval(_TICK)
        self._tick.timeout.connect(self.changed)
        segment.closing.connect(self.close)
        segment.models_changed.connect(self.list_here)

    # -- what there is ---------------------------------------------------------------------------------------------

    @property
    def rows(self) -> list[Row]:
        """The models of the place that is shown."""
        if not self.hub:
            return self.here
        names = {row.name: row.name for row in self.here}
        return [hub_row(entry, {entry.ref: names.get(entry.name, "")}) for entry in self.entries.get(self.hub, [])]

    def list_here(self) -> None:
        """List the models on this computer, in another process."""
        self.listing = self.listing or not self.hub
        self._quietly(["models", "list", "--json"], self._on_here)

    def show(self, hub: str, *, refresh: bool = False) -> None:
        """Show the models of a hub, or with ``""`` those on this computer."""
        self.hub = hub
        self._stop_catalog.set()
        if not hub:
            self.listing = False
            self.list_here()
        elif hub in self.entries and not refresh:
            self.listing = False
        else:
            self.listing = True
            stop = self._stop_catalog = threading.Event()
            deliver = self._bridge.carry(lambda answer: self._on_catalog(hub, stop, answer))

            def ask() -> None:
                try:
                    deliver(list(self.sources.catalog(hub, refresh=refresh, cancel=stop.is_set)))
                except Exception as error:
                    deliver(error)

            threading.Thread(target=ask, name="tileseg-hub", daemon=True).start()
        self.listed.emit()

    def _on_here(self, ended: Ended) -> None:
        if ended.error is not None:
            self.told.emit(Message("error", str(ended.error["message"]), (Action.REFRESH,)))
        else:
            self.here = [local_row(event) for event in ended.events if event.get("event") == "model"]
        if not self.hub:
            self.listing = False
        self.listed.emit()

    def _on_catalog(self, hub: str, stop: threading.Event, answer: Any) -> None:
        if stop is not self._stop_catalog or stop.is_set():
            return
        self.listing = False
        if isinstance(answer, Exception):
            text = str(answer) if isinstance(answer, TileSegError) else f"The list of models could not be read: {answer}."
            self.told.emit(Message("error", text, (Action.REFRESH,)))
        else:
            self.entries[hub] = answer
        self.listed.emit()

    def show_card(self, ref: str, receiver: Callable[[str], None]) -> None:
        """Read the whole card of a model, and hand it over."""
        self._quietly(["models", "show", ref, "--json"], lambda ended: self._on_card(ended, receiver))

    def _on_card(self, ended: Ended, receiver: Callable[[str], None]) -> None:
        if ended.error is not None:
            self.told.emit(Message("error", str(ended.error["message"])))
        else:
            receiver(str(ended.answer.get("card", "")))

    # -- deeds -----------------------------------------------------------------------------------------------------

    def bring(self, refs: Iterable[str]) -> None:
        """Import models, one after the other."""
        self._waiting.extend(str(Path(ref).absolute()) if Path(ref).exists() else ref for ref in refs)
        if self.work.active or self.question is not None:
            self.work = replace(self.work, waiting=len(self._waiting)) if self.work.active else self.work
            self.changed.emit()
        else:
            self._next()

    def _next(self) -> None:
        if not self._waiting:
            self.changed.emit()
            return
        self._look(self._waiting.popleft())

    def _look(self, ref: str) -> None:
        """Read the card of what is to be imported, and ask what it does not say."""
        self._start("looking", ref, ["models", "show", ref, "--json"], self._on_looked, again=lambda: self._look(ref))

    def _on_looked(self, ended: Ended) -> None:
        ref, name = self.work.ref, self.work.name
        if ended.error is not None and _UNRECOGNISED in str(ended.error.get("message", "")):
            self._rest()
            self._ask(Question(ref, name, NETWORK))
            return
        if self._ended_badly(ended):
            return
        question = question_for(ref, name, ended.answer)
        self._rest()
        if question is None:
            self._import(ref, [])
        else:
            self._ask(question)

    def _ask(self, question: Question) -> None:
        self.question = question
        if self.docks.hidden:
            show_info(f"{question.name} does not say everything that is needed. The Models dock asks.")
        self.changed.emit()

    def answer(self, answers: Mapping[str, str]) -> None:
        """Import the model that was asked about."""
        if self.question is not None and not self.work.active:
            self._import(self.question.ref, answer_words(self.question, answers))

    def leave(self) -> None:
        """Import the model that was asked about not at all."""
        self.question = None
        self._next()

    def _import(self, ref: str, words: Sequence[str]) -> None:
        def again() -> None:
            self._import(ref, words)

        self._start("importing", ref, ["models", "import", ref, *words, "--json"], self._on_imported, again=again)

    def _on_imported(self, ended: Ended) -> None:
        if self.question is not None and ended.error is not None and not ended.cancelled and refused(ended.error) is None:
            self.question = replace(self.question, problem=str(ended.error["message"]))
            self._rest()
            self.changed.emit()
            return
        self.question = None if not ended.cancelled else self.question
        if not self._ended_badly(ended):
            self._arrived(ended)

    def download(self, row: Row) -> None:
        """Fetch a model of a hub, and import it."""
        self._start(
            "downloading",
            row.ref,
            ["models", "download", row.ref, "--json"],
            self._on_downloaded,
            name=row.title,
            total=row.size,
            again=lambda: self.download(row),
        )

    def _on_downloaded(self, ended: Ended) -> None:
        if ended.cancelled:
            done, total = self.work.done, self.work.total
            self._rest()
            whole = f" of {total / 1e6:.0f}" if total else ""
            self.told.emit(Message("warning", f"Download stopped at {done / 1e6:.0f}{whole} MB.", (Action.RESUME,)))
            self._next()
        elif not self._ended_badly(ended, Action.RESUME):
            self._arrived(ended)

    def _arrived(self, ended: Ended) -> None:
        """Have every dock of every viewer know a model that is new."""
        message, name = ending(self.work, ended.answer), str(ended.answer.get("name", ""))
        self._rest()
        tell_models_changed()
        self.arrived.emit(name)
        self._tell(message)
        self._next()

    def verify(self, ref: str, name: str) -> None:
        """Load a model, compute one tile, and run the tests that it brings along."""
        words = ["models", "verify", ref, "--json"]
        self._start("checking", ref, words, self._on_done, name=name, again=lambda: self.verify(ref, name))

    def find_out(self, ref: str, name: str, asker: QWidget) -> None:
        """Find out what a model would run, and ask whether it may; the question is a window of `asker`."""
        if self.work.active:
            self.told.emit(Message("info", "Wait until what goes on in the Models dock is over."))
            return
        words = ["models", "verify", ref, "--json"]
        self._asker = asker
        self._start("finding", ref, words, self._on_found, name=name, again=lambda: self.find_out(ref, name, asker))

    def _on_found(self, ended: Ended) -> None:
        found = refused(ended.error)
        if found is None:
            self._on_done(ended)
            tell_models_changed()
            return
        self.refusal, self._after_trust = found, self._again
        self._rest()
        self.changed.emit()
        self.ask_trust(self._asker)

    def export(self, ref: str, name: str, path: Path) -> None:
        """Write a model in our own format; what is there is replaced."""
        words = ["models", "export", ref, str(path), "--overwrite", "--json"]
        self._start("exporting", ref, words, self._on_done, name=path.name, again=lambda: self.export(ref, name, path))

    def remove(self, ref: str, name: str) -> None:
        """Delete a model of the user's folder."""
        self._start("removing", ref, ["models", "remove", ref, "--json"], self._on_altered, name=name)

    def revoke(self, ref: str, name: str) -> None:
        """Take trust back from the files of a model."""
        self._start("revoking", ref, ["models", "revoke", ref, "--json"], self._on_altered, name=name)

    def _on_done(self, ended: Ended) -> None:
        if self._ended_badly(ended):
            return
        message = ending(self.work, {**ended.answer, "name": self.work.name})
        self._rest()
        self._tell(message)
        self.listed.emit()  # what was measured stands on the card
        self._next()

    def _on_altered(self, ended: Ended) -> None:
        if self._ended_badly(ended):
            return
        message = ending(self.work, {**ended.answer, "name": self.work.name})
        self._rest()
        tell_models_changed()
        self._tell(message)
        self._next()

    # -- trust -----------------------------------------------------------------------------------------------------

    def ask_trust(self, asker: QWidget | None) -> None:
        """Show the file that was refused, and what it would run."""
        refusal = self.refusal
        if refusal is None or asker is None:
            return
        self._asker = asker
        self._bridge.background(lambda: look_at(refusal), self._on_seen)

    def _on_seen(self, answer: Any) -> None:
        if isinstance(answer, Exception):
            self._tell(Message("error", str(answer) if isinstance(answer, TileSegError) else f"The file could not be read: {answer}."))
            return
        with contextlib.suppress(RuntimeError):  # the dock that asked is gone
            dialog = TrustDialog(answer, self._asker)
            dialog.trusted.connect(self.trust)
            dialog.show()

    def trust(self, shown: Shown) -> None:
        """Trust what was shown, and go on with what it had stopped."""
        self._bridge.background(lambda: trust_exactly(shown), lambda answer: self._on_trusted(shown, answer))

    def _on_trusted(self, shown: Shown, answer: Any) -> None:
        if isinstance(answer, Exception):
            self._tell(Message("error", str(answer) if isinstance(answer, TileSegError) else f"It could not be remembered: {answer}."))
            return
        self.refusal = None
        again, self._after_trust = self._after_trust, None
        self.told.emit(Message("info", f"{shown.refusal.name} is trusted now."))
        tell_models_changed()
        if again is not None and not self.work.active:
            again()

    # -- commands --------------------------------------------------------------------------------------------------

    def cancel(self) -> None:
        """Ask what goes on to stop; nothing half-done is left behind."""
        if self._chore is not None and not self.work.cancelling:
            self.work = replace(self.work, cancelling=True)
            self._chore.cancel()
            self.changed.emit()

    def resume(self) -> None:
        """Go on with the download that was stopped."""
        if self._again is not None and not self.work.active:
            self._again()

    def close(self) -> None:
        """End what goes on: the viewer is gone."""
        self._bridge.close()
        self._tick.stop()
        self._stop_catalog.set()
        for chore in (*self._others, *([self._chore] if self._chore is not None else [])):
            chore.cancel() if chore is self._chore else chore.kill()
        _SESSIONS.pop(id(self.segment), None)

    def _start(
        self,
        kind: Kind,
        ref: str,
        words: Sequence[str],
        on_end: Callable[[Ended], None],
        *,
        name: str = "",
        total: int | None = None,
        again: Callable[[], None] | None = None,
    ) -> None:
        """Begin something that the dock shows; only one goes on at a time."""
        if self.work.active:
            return
        self.work = Work(kind, ref, name or Path(ref).name, total=total, waiting=len(self._waiting))
        self._again = again
        on_event = self._bridge.carry(self._on_progress)
        try:
            self._chore = Chore(words, self._bridge.carry(on_end), on_event=on_event, start=self.sources.start)
        except TileSegError as error:
            self._rest()
            self._tell(Message("error", str(error)))
        self.told.emit(None)
        self.changed.emit()

    def _quietly(self, words: Sequence[str], on_end: Callable[[Ended], None]) -> None:
        """Begin something that nobody waits for."""
        self._others = [chore for chore in self._others if chore.running]
        try:
            self._others.append(Chore(words, self._bridge.carry(on_end), start=self.sources.start))
        except TileSegError as error:
            self.listing = False
            self.told.emit(Message("error", str(error)))
            self.listed.emit()

    def _on_progress(self, event: Mapping[str, Any]) -> None:
        done, total = event.get("done"), event.get("total")
        if isinstance(done, int) and self.work.active:
            self.work = replace(self.work, done=done, total=total if isinstance(total, int) else self.work.total)
            if not self._tick.isActive():
                self._tick.start()

    def _ended_badly(self, ended: Ended, *links: Action) -> bool:
        """Say why something has not come to its end; False if it has."""
        error = ended.error
        if error is None:
            return False
        self._rest()
        if ended.cancelled:
            self._tell(Message("info", "Cancelled. Nothing was changed."))
        elif (found := refused(error)) is not None:
            self.refusal, self._after_trust = found, self._again
            self._tell(Message("error", found.sentence, (Action.TRUST,)))
        else:
            self._tell(Message("error", str(error["message"]), links))
        self._next()
        return True

    def _rest(self) -> None:
        self.work, self._chore = Work(), None

    def _tell(self, message: Message) -> None:
        """Tell how something has ended, in a notification of napari where no dock shows it."""
        self.told.emit(message)
        if self.docks.hidden and self.segment.docks.hidden:
            (show_error if message.kind == "error" else show_info)(message.text)


_SESSIONS: dict[int, ModelsSession] = {}


def models_session_of(viewer: napari.viewer.Viewer, sources: Sources | None = None) -> ModelsSession:
    """Return the models session of a viewer; docks come and go, the session stays."""
    segment = session_of(viewer)
    if id(segment) not in _SESSIONS:
        _SESSIONS[id(segment)] = ModelsSession(segment, sources)
    return _SESSIONS[id(segment)]
