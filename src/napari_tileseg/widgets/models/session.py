"""One viewer's models: listed, brought, checked, trusted, given on and removed; docks come and go, what goes on stays."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QObject, QTimer, Signal

from napari_tileseg.errors import TileSegError
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.docks import Docks
from napari_tileseg.widgets.models.asking import NETWORK, Question, answer_words, question_for
from napari_tileseg.widgets.models.chore import Chore, Ended
from napari_tileseg.widgets.models.shelf import Shelf
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

_CALM = 0.5
"""Seconds after the start in which Cancel ignores clicks: the second one of a double click."""

_UNRECOGNISED = "was not recognised from the names of its"
_TAKEN = "is there already. Give another name"
"""Parts of sentences that can be answered in the dock."""


class ModelsSession(QObject):
    """What goes on with the models, and what is known of them.

    Signals
    -------
    changed
        What goes on is something else: draw it.
    told
        A `Message`.
    arrived
        Name of a model that is here now.
    """

    changed = Signal()
    told = Signal(object)
    arrived = Signal(str)

    def __init__(self, segment: Session, sources: Sources | None = None) -> None:
        super().__init__()
        self.sources = sources or Sources()
        self.segment = segment
        self.work = Work()
        self.question: Question | None = None
        self.refusal: Refusal | None = None
        self.shelf = Shelf(self.sources, self)
        self.docks = Docks(lambda: None)
        self._bridge = Bridge(self)
        self._chore: Chore | None = None
        self._again: Callable[[], None] | None = None
        self._asker: weakref.ref[QWidget] | None = None
        self._began = 0.0
        self._after_trust: Callable[[], None] | None = None
        self._waiting: deque[str] = deque()
        self._tick = QTimer(self)
        self._tick.setSingleShot(True)
        self._tick.setInterval(_TICK)
        self._tick.timeout.connect(self.changed)
        segment.closing.connect(self.close)
        segment.models_changed.connect(self.shelf.list_here)
        self.shelf.told.connect(self.told)

    @property
    def asker(self) -> QWidget | None:
        """The dock that has asked whether a file may be trusted."""
        return self._asker() if self._asker is not None else None

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

    def ask_address(self) -> None:
        """Ask for an address of the web; what is there is downloaded and imported."""
        if not self.work.active and self.question is None:
            self._ask(Question("", "", ("address",)))

    def _look(self, ref: str) -> None:
        """Read the card of what is to be imported, and ask what it does not say; fetch what lies elsewhere."""
        if ref.startswith(("https://", "http://")):
            self._download(ref, ref.rstrip("/").rpartition("/")[2] or ref, None)
            return
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
        """Import the model that was asked about, or remember what was said of it."""
        if self.question is None or self.work.active:
            return
        if self.question.fields == ("address",):
            address = answers.get("address", "").strip()
            if not address.startswith(("https://", "http://")):
                self.question = replace(self.question, problem="This is no address. It begins with https://.")
                self.changed.emit()
                return
            self.question = None
            self.bring([address])
        elif self.question.here:
            words = answer_words(self.question, answers)
            if words:
                ref, name = self.question.ref, self.question.name
                self._start("answering", ref, ["models", "answer", ref, *words, "--json"], self._on_answered, name=name)
            else:
                self.question = replace(self.question, problem="Nothing is said yet. Fill a field, or choose Not now.")
                self.changed.emit()
        else:
            self._import(self.question.ref, answer_words(self.question, answers))

    def say(self, row: Row) -> None:
        """Ask what a model that is here does not say."""
        question = question_for(row.ref, row.title, row.facts, here=True)
        if question is not None and self.question is None and not self.work.active:
            self._ask(question)

    def look_again(self, ref: str) -> None:
        """Read the card of a model that is here, and ask what it does not say."""
        if self.question is None:
            self._start("looking", ref, ["models", "show", ref, "--json"], self._on_looked_again)

    def _on_looked_again(self, ended: Ended) -> None:
        ref, name = self.work.ref, self.work.name
        if not self._ended_badly(ended):
            self._rest()
            question = question_for(ref, name, ended.answer, here=True)
            if question is not None:
                self._ask(question)
            self.changed.emit()

    def leave(self) -> None:
        """Leave the question without an answer: import nothing, remember nothing."""
        self.question = None
        self._next()

    def _import(self, ref: str, words: Sequence[str]) -> None:
        def again() -> None:
            self._import(ref, words)

        self._start("importing", ref, ["models", "import", ref, *words, "--json"], self._on_imported, again=again)

    def _on_imported(self, ended: Ended) -> None:
        error = None if ended.cancelled else ended.error
        if error is not None and _TAKEN in str(error["message"]):
            self._ask_name()
        elif not self._ask_anew(ended) and not self._ended_badly(ended):
            self._arrived(ended)

    def _on_answered(self, ended: Ended) -> None:
        if not self._ask_anew(ended):
            self._on_altered(ended)

    def _ask_anew(self, ended: Ended) -> bool:
        """Show why answers were refused; False if they were not, and the question is answered."""
        error = None if ended.cancelled else ended.error
        if self.question is not None and error is not None and refused(error) is None:
            self.question = replace(self.question, problem=str(error["message"]))
            self._rest()
            self.changed.emit()
            return True
        self.question = None if not ended.cancelled else self.question
        return False

    def _ask_name(self) -> None:
        """Ask for another name: the model's own is taken."""
        before = self.question or Question(self.work.ref, self.work.name, ())
        fields = before.fields if "name" in before.fields else (*before.fields, "name")
        self._rest()
        self._ask(replace(before, fields=fields, problem="A model of this name is here already. Give another name."))

    def download(self, row: Row) -> None:
        """Fetch a model of a hub, and import it."""
        self._download(row.ref, row.title, row.size)

    def _download(self, ref: str, name: str, size: int | None) -> None:
        words = ["models", "download", ref, "--json"]
        again = partial(self._download, ref, name, size)
        self._start("downloading", ref, words, self._on_downloaded, name=name, total=size, again=again)

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
        busy = self.work.active
        if not busy or self._asker is None:
            self._asker = weakref.ref(asker)
        if busy:
            self.told.emit(Message("info", "Wait until what goes on in the Models dock is over."))
            return
        self._find_out(ref, name)

    def _find_out(self, ref: str, name: str) -> None:
        words = ["models", "verify", ref, "--json"]
        self._start("finding", ref, words, self._on_found, name=name, again=lambda: self._find_out(ref, name))

    def _on_found(self, ended: Ended) -> None:
        found = refused(ended.error)
        if found is None:
            self._on_done(ended)
            tell_models_changed()
            return
        self.refusal, self._after_trust = found, self._again
        self._rest()
        self.changed.emit()
        self.ask_trust(self.asker)

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
        self.shelf.listed.emit()  # what was measured stands on the card
        self._next()

    def _on_altered(self, ended: Ended) -> None:
        if self._ended_badly(ended):
            return
        message = ending(self.work, {**ended.answer, "name": self.work.name})
        self._rest()
        tell_models_changed()
        self._tell(message)
        self._next()

    def perform(self, kind: Kind, ref: str, words: Sequence[str], then: Callable[[Ended], None], *, name: str) -> None:
        """Run a command that makes something, and hand on what it has said; nothing, while something else goes on."""

        def on_end(ended: Ended) -> None:
            if not self._ended_badly(ended):
                self._rest()
                then(ended)
                self._next()

        self._start(kind, ref, words, on_end, name=name)

    # -- trust -----------------------------------------------------------------------------------------------------

    def ask_trust(self, asker: QWidget | None) -> None:
        """Show the file that was refused, and what it would run."""
        refusal = self.refusal
        if refusal is None or asker is None:
            return
        self._asker = weakref.ref(asker)
        self._bridge.background(lambda: look_at(refusal), self._on_seen)

    def _on_seen(self, answer: Any) -> None:
        if isinstance(answer, Exception):
            self._tell(Message("error", str(answer) if isinstance(answer, TileSegError) else f"The file could not be read: {answer}."))
            return
        asker = self.asker
        with contextlib.suppress(RuntimeError):  # Qt has deleted the dock that asked
            dialog = TrustDialog(answer, asker)
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
        if self._chore is not None and not self.work.cancelling and time.monotonic() - self._began >= _CALM:
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
        self.shelf.close()
        if self._chore is not None:
            self._chore.cancel()

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
        if kind != "finding":
            self._asker = None
        self.work = Work(kind, ref, name or Path(ref).name, total=total, waiting=len(self._waiting))
        self._again, self._began = again, time.monotonic()
        on_event = self._bridge.carry(self._on_progress)
        try:
            self._chore = Chore(words, self._bridge.carry(on_end), on_event=on_event, start=self.sources.start)
        except TileSegError as error:
            self._rest()
            self._tell(Message("error", str(error)))
        self.told.emit(None)
        self.changed.emit()

    def _on_progress(self, event: Mapping[str, Any]) -> None:
        done, total = event.get("bytes", event.get("done")), event.get("of", event.get("total"))
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


def models_session_of(viewer: napari.viewer.Viewer, sources: Sources | None = None) -> ModelsSession:
    """Return the models session of a viewer; docks come and go, the session stays."""
    return session_of(viewer).beside(ModelsSession, sources)
