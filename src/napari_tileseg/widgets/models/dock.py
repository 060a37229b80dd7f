"""The Models dock: find a model, bring it, check it, trust it, use it."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from napari.settings import get_settings
from qtpy.QtWidgets import QLineEdit, QSizePolicy, QVBoxLayout, QWidget

from napari_tileseg.errors import TileSegError
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.keys import dock_shortcut
from napari_tileseg.widgets.late import Late, soon
from napari_tileseg.widgets.models.asking import Asking
from napari_tileseg.widgets.models.card import Card, card_rows
from napari_tileseg.widgets.models.deeds import ModelsDeeds
from napari_tileseg.widgets.models.making import Making
from napari_tileseg.widgets.models.session import models_session_of
from napari_tileseg.widgets.models.settings import SettingsFold, renewed
from napari_tileseg.widgets.models.states import press, view
from napari_tileseg.widgets.models.table import ModelTable, ModelView
from napari_tileseg.widgets.parts import Combo, Dock, Edit, Fields, Links, MainButton, MessageBox, ProgressBar, Scroll
from napari_tileseg.widgets.parts.scroll import page
from napari_tileseg.widgets.session import real_viewer, session_of
from napari_tileseg.widgets.states import Action, Message
from napari_tileseg.widgets.style import icon_color, sheet

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from qtpy.QtGui import QDragEnterEvent, QDropEvent, QResizeEvent

    from napari_tileseg.widgets.models.rows import Row
    from napari_tileseg.widgets.models.sources import Sources

__all__ = ["ModelsWidget"]

_SHARE, _ASKING, _LEAST = 0.4, 0.6, 120
"""Most of the dock's height that the card takes, or the question, and pixels that they may always have."""

_WEB = ("http", "https")

_STEP = 120
"""Milliseconds that a row stays selected before what was measured of it is read: the arrow keys may run through."""


class ModelsWidget(Dock):
    """Search, the table, the card or what is asked, button, progress, message, links, settings.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    sources : Sources, optional
        Where everything comes from; tests put others in their place.
    """

    def __init__(self, viewer: napari.viewer.Viewer, sources: Sources | None = None) -> None:  # napari injects by this annotation
        viewer = real_viewer(viewer)
        segment = session_of(viewer)
        super().__init__(segment.docks)
        self.viewer, self.segment = viewer, segment
        self.session = models_session_of(viewer, sources)
        self.fields = Fields()
        self.search = Edit("Search", "Words of a name, a task, a class, a licence.")
        self.shown = Combo("Show", "Models that are here, or that can be downloaded.")
        self.table = ModelTable()
        self.models = ModelView(self.table)
        self.card = Card()
        self.asking = Asking()
        self.scroller = Scroll(page(self._stacked()))
        self.button = MainButton("Use in Segment")
        self.progress = ProgressBar()
        self.message = MessageBox()
        self.links = Links()
        self.settings = SettingsFold()
        self.settings_scroller = Scroll(page(self.settings))
        self.deeds = ModelsDeeds(viewer, self.session, self)
        self.making = Making(viewer, self.session)
        self._bridge = Bridge(self)
        self._facts: dict[str, list[Any]] = {}
        self._wanted = ""
        self._told: Message | None = None
        self._step = soon(self, _STEP, self._measure)
        self.setAcceptDrops(True)
        self._lay_out()
        self._connect()
        self._restyle()
        self.session.docks.add(self)
        self._bridge.background(self._settings, Late(self, "_on_settings"))
        self.session.shelf.show(self.session.shelf.hub)
        self._draw()

    # -- building --------------------------------------------------------------------------------------------------

    def _stacked(self) -> QWidget:
        """Return card and question in one place: only one of them is seen."""
        around = QWidget()
        around.setObjectName("plain")
        layout = QVBoxLayout(around)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.card)
        layout.addWidget(self.asking)
        self.asking.hide()
        return around

    def _lay_out(self) -> None:
        self.search.setPlaceholderText("name, task, class, licence")
        self.search.setClearButtonEnabled(True)
        self.fields.add("Search", self.search)
        self.fields.add("Show", self.shown)
        hubs = [(title, hub) for hub, title in self.session.sources.hubs().items()]
        self.shown.fill([("On this computer", ""), *hubs], self.session.shelf.hub)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        above, below = QVBoxLayout(), QVBoxLayout()
        above.setContentsMargins(6, 4, 6, 0)
        below.setContentsMargins(6, 0, 6, 0)
        for part in (above, below):
            part.setSpacing(4)
        above.addWidget(self.fields)
        above.addWidget(self.models, 1)
        for widget in (self.card.links, self.button, self.progress, self.message, self.links):
            below.addWidget(widget)
        layout.addLayout(above, 1)
        layout.addWidget(self.scroller)
        layout.addLayout(below)
        layout.addWidget(self.settings_scroller)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self._order()
        self._refuse_drops()

    def _refuse_drops(self) -> None:
        """Leave what is dropped to the dock as a whole: lines of text would take it for text."""
        for field in self.findChildren(QLineEdit):
            field.setAcceptDrops(False)

    def _order(self) -> None:
        """Let Tab go from top to bottom, links last."""
        fields = [self.search, self.shown, self.models, *self.asking.inputs.values(), self.button]
        for before, after in pairwise([*fields, *self.settings.widgets_in_order()]):
            QWidget.setTabOrder(before, after)

    def _connect(self) -> None:
        session = self.session
        self.search.textChanged.connect(self._on_search)
        self.shown.currentIndexChanged.connect(self._on_shown)
        self.models.chosen.connect(self._on_row)
        self.models.opened.connect(self.press)
        self.button.clicked.connect(self.press)
        for links in (self.card, self.links, self.message):
            links.chosen.connect(self.act)
        self.deeds.told.connect(self._on_told)
        self.settings.edited.connect(self._on_edited)
        session.changed.connect(self._draw)
        session.shelf.listed.connect(self._on_listed)
        session.told.connect(self._on_told)
        session.arrived.connect(self._on_arrived)
        self.viewer.events.theme.connect(self._restyle)
        get_settings().appearance.events.font_size.connect(self._restyle)
        self._cancel_key = dock_shortcut(self, "Esc", session.cancel)
        for keys in ("Ctrl+Return", "Ctrl+Enter"):
            dock_shortcut(self, keys, self.press)
        dock_shortcut(self, "Ctrl+F", self.search.setFocus)
        dock_shortcut(self, "?", self.deeds.show_keys)

    # -- models ----------------------------------------------------------------------------------------------------

    @property
    def row(self) -> Row | None:
        """The selected model."""
        return self.models.row

    def _on_listed(self) -> None:
        """Show the models again; the selected one stays selected while it is there."""
        selected = self.row.ref if self.row is not None else ""
        self.table.fill(self.session.shelf.rows)
        if self._wanted and self.models.choose(self._wanted):
            self._wanted = ""
        elif not self.models.choose(selected):
            self.models.choose_first()
        self._facts.clear()
        self._on_row()

    def _on_arrived(self, name: str) -> None:
        """Select a model that has just been brought, once it is listed."""
        self._wanted = name
        if self.session.shelf.hub == "":
            self.search.clear()

    def _on_shown(self, _place: int) -> None:
        self.session.shelf.show(self.shown.value or "")

    def _on_search(self, words: str) -> None:
        self.models.search(words)
        self._draw()

    def _on_row(self) -> None:
        self._draw()
        self._step.start()

    def _measure(self) -> None:
        """Read what was measured of the selected model, in another thread."""
        row = self.row
        sha256 = str(row.facts.get("weights_sha256", "")) if row is not None else ""
        if sha256 and sha256 not in self._facts:
            facts = self.session.sources.facts
            self._bridge.background(lambda: list(facts(sha256)), Late(self, "_on_facts", sha256))

    def _on_facts(self, sha256: str, answer: Any) -> None:
        self._facts[sha256] = answer if isinstance(answer, list) else []
        self._draw()

    # -- deeds -----------------------------------------------------------------------------------------------------

    def press(self) -> None:
        """Do what the primary button says."""
        row, session = self.row, self.session
        deed = press(row, session.work, asking=session.question is not None)
        if deed == "cancel":
            session.cancel()
        elif deed == "import":
            session.answer(self.asking.answers())
        elif row is not None and deed == "use":
            self.deeds.use(row.name)
        elif row is not None and deed == "download":
            session.download(row)
        elif row is not None and deed == "trust":
            session.find_out(row.ref, row.title, self)

    def act(self, action: Action) -> None:
        """Do what a link asks for."""
        row, session = self.row, self.session
        for_all: dict[Action, Callable[[], object]] = {
            Action.IMPORT: self._ask_what,
            Action.REFRESH: lambda: session.shelf.show(session.shelf.hub, refresh=True),
            Action.BACK: session.leave,
            Action.LATER: session.leave,
            Action.SAY: self._say,
            Action.RESUME: session.resume,
            Action.TRUST: lambda: session.ask_trust(self),
        }
        if action in for_all:
            for_all[action]()
        elif row is not None:
            for_row: dict[Action, Callable[[], object]] = {
                Action.TRY: lambda: self.deeds.try_out(row.name),
                Action.CARD: lambda: self.deeds.show_card(row),
                Action.DRAW: lambda: self.making.ask_number(row, self),
                Action.CODES: lambda: self.making.find_codes(row),
                Action.VERIFY: lambda: session.verify(row.ref, row.title),
                Action.GIVE_ON: lambda: self.deeds.export(row),
                Action.DELETE: lambda: self.deeds.remove(row),
                Action.REVOKE: lambda: session.revoke(row.ref, row.title),
            }
            for_row[action]()

    def _say(self) -> None:
        """Ask what the selected model does not say, or the one that has just come."""
        if self._wanted:
            self.session.look_again(self._wanted)
        elif self.row is not None:
            self.session.say(self.row)

    def _ask_what(self) -> None:
        """Ask whether files or a folder are to be imported."""
        self.deeds.ask_import(self.links.buttons.get(Action.IMPORT))

    def dragEnterEvent(self, event: QDragEnterEvent | None) -> None:
        if event is not None and _dropped(event):
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent | None) -> None:
        refs = _dropped(event) if event is not None else []
        if event is not None and refs:
            event.acceptProposedAction()
            self.session.bring(refs)

    # -- settings --------------------------------------------------------------------------------------------------

    def _settings(self) -> Any:
        return self.session.sources.read_settings()

    def _on_settings(self, answer: Any) -> None:
        self.settings.take(None if isinstance(answer, Exception) else answer)
        self.settings_scroller.setVisible(not isinstance(answer, Exception) and answer is not None)

    def _on_edited(self, values: dict[str, Any]) -> None:
        """Keep what the fields of the settings hold, in another thread."""
        sources = self.session.sources

        def keep() -> Any:
            settings = renewed(sources.read_settings(), values)
            sources.write_settings(settings)
            return settings

        self._bridge.background(keep, Late(self, "_on_kept"))

    def _on_kept(self, answer: Any) -> None:
        if isinstance(answer, Exception):
            text = str(answer) if isinstance(answer, TileSegError) else f"The settings could not be kept: {answer}."
            self.settings.complain(text)
        else:
            self.settings.complain("")
            self.settings.take(answer)

    # -- drawing ---------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        row, session = self.row, self.session
        question = session.question
        shown = view(row, session.work, asking=question is not None, here=question is not None and question.here)
        self.button.show_state(shown.button, enabled=shown.enabled, primary=shown.primary)
        self.progress.show_bar(shown.bar)
        self.message.show_message(self._told or self._empty())
        self.links.show_links(shown.links)
        self._cancel_key.setEnabled(session.work.active)
        self._draw_question()
        self.card.setVisible(question is None and row is not None)
        self.card.show_links(shown.row_links)
        if row is not None:
            about = str(row.facts.get("description", "")) if row.local else str(row.entry.description)
            facts = self._facts.get(str(row.facts.get("weights_sha256", "")), [])
            self.card.say(row.title, " ".join(about.split())[:600], card_rows(row, facts))
        self.scroller.setVisible(question is not None or row is not None)

    def _draw_question(self) -> None:
        question = self.session.question
        self._share()
        self.asking.setVisible(question is not None)
        if question is None:
            self.asking.forget()
            return
        before = list(self.asking.inputs.values())
        self.asking.ask(question)
        if list(self.asking.inputs.values()) != before:
            self._order()
            self._refuse_drops()

    def _empty(self) -> Message | None:
        """Say why the table is empty."""
        shelf = self.session.shelf
        if self.table.rows and not self.models.shown:
            return Message("info", "No model has all these words.")
        if self.table.rows:
            return None
        if shelf.listing:
            return Message("info", "Looking for models")
        return Message("info", "There are no models here.", (Action.IMPORT,) if not shelf.hub else (Action.REFRESH,))

    def _on_told(self, message: Message | None) -> None:
        self._told = message
        self._draw()

    def _restyle(self, event: Any = None) -> None:
        theme = str(self.viewer.theme)
        self.setStyleSheet(sheet(theme))
        color = icon_color(theme)
        self.table.set_theme(theme, color)
        self.settings.set_colors(theme, color)
        for box in (self.message, self.asking.problem):
            box.set_theme(theme, color)
        self._align()
        self.models.fit()

    def _align(self) -> None:
        self.fields.align(self.fields.label_width)
        self.settings.fields.align(self.settings.fields.label_width)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        self._share()

    def _share(self) -> None:
        """Have the table keep its place beside a long card; a question needs more room."""
        share = _SHARE if self.session.question is None else _ASKING
        self.scroller.setMaximumHeight(max(_LEAST, round(self.height() * share)))

    def on_show(self) -> None:
        """Align the fields: only now the style sheet's fonts are in force."""
        self._align()
        super().on_show()


def _dropped(event: QDropEvent) -> list[str]:
    """Return the files, folders and addresses of the web that are dropped."""
    data = event.mimeData()
    urls = data.urls() if data is not None else []
    return [url.toLocalFile() if url.isLocalFile() else url.toString() for url in urls if url.isLocalFile() or url.scheme() in _WEB]
