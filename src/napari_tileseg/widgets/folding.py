"""``FoldingDock``: a dock whose form folds away while what it has started goes on, with a message and two buttons below."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from napari.settings import get_settings
from qtpy.QtWidgets import QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from napari_tileseg.widgets.course import press
from napari_tileseg.widgets.keys import dock_shortcut
from napari_tileseg.widgets.parts import Box, Dock, Fold, MainButton, MessageBox, ProgressBar, Scroll
from napari_tileseg.widgets.parts.scroll import page
from napari_tileseg.widgets.session import session_of
from napari_tileseg.widgets.states import Prospect
from napari_tileseg.widgets.style import icon_color, sheet
from napari_tileseg.widgets.watch import LayerWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_tileseg.widgets.course import Press, View
    from napari_tileseg.widgets.followed import Followed
    from napari_tileseg.widgets.states import Action, Message

__all__ = ["FoldingDock"]


class FoldingDock(Dock):
    """Form, what will happen, two buttons, progress, message; what comes of it stands below.

    A subclass puts its own parts below with `_stack`, then connects all of them with `_connect`.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
        The viewer itself, not a proxy.
    session : Followed
        What the dock starts and follows.
    form : BatchForm or TrainForm
    buttons : tuple of str
        Texts of the two buttons while nothing goes on.
    """

    def __init__(self, viewer: napari.viewer.Viewer, session: Followed, form: Any, buttons: tuple[str, str]) -> None:
        segment = session_of(viewer)
        super().__init__(segment.docks)
        self.viewer, self.segment = viewer, segment
        self.session = session
        self.form = form
        self.setup = Fold("Set-up", form)
        self.scroller = Scroll(page(self.setup))
        self.box = Box("What will happen")
        self.button, self.second = (MainButton(text) for text in buttons)
        self.progress = ProgressBar()
        self.message = MessageBox()
        self._watch = LayerWatch(viewer, self)
        self._prospect = Prospect()
        self._told: Message | None = None
        self._folded = False

    # -- what a subclass says --------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start what the fields ask for."""
        raise NotImplementedError

    def renew(self) -> None:
        """Put the last one away and set up another."""
        raise NotImplementedError

    def act(self, action: Action) -> None:
        """Do what a link asks for."""
        raise NotImplementedError

    def show_keys(self) -> None:
        """Show the keys of the dock."""
        raise NotImplementedError

    def _on_change(self) -> None:
        """Look at what the fields hold now."""
        raise NotImplementedError

    def _on_layers(self, event: Any = None) -> None:
        """Look at the layers that are open now."""
        raise NotImplementedError

    def _draw(self) -> None:
        """Show how everything stands."""
        raise NotImplementedError

    # -- building --------------------------------------------------------------------------------------------------

    def _stack(self) -> QVBoxLayout:
        """Lay out what every such dock has; returns the layout for what stands below the message."""
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.scroller)
        buttons = QHBoxLayout()
        buttons.setSpacing(4)
        for button in (self.button, self.second):
            buttons.addWidget(button, 1)
        below = QVBoxLayout()
        below.setContentsMargins(6, 0, 6, 4)
        below.setSpacing(4)
        below.addWidget(self.box)
        below.addLayout(buttons)
        below.addWidget(self.progress)
        below.addWidget(self.message)
        layout.addLayout(below, 1)
        self.second.hide()
        self.setup.header.hide()
        self.setup.open()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        return below

    def _order_tabs(self, *last: QWidget) -> None:
        """Let Tab go from top to bottom; `last` is what stands below the buttons."""
        for before, after in pairwise([self.setup.header, *self.form.widgets_in_order(), self.button, self.second, *last]):
            QWidget.setTabOrder(before, after)

    def _connect(self) -> None:
        self.form.changed.connect(self._on_change)
        self.message.chosen.connect(self.act)
        self.setup.toggled.connect(self._draw)
        self.button.clicked.connect(self.press)
        self.second.clicked.connect(self.press_second)
        self.session.changed.connect(self._draw)
        self._watch.listed.connect(self._on_layers)
        self._watch.altered.connect(self._on_layers)
        self.viewer.events.theme.connect(self._restyle)
        get_settings().appearance.events.font_size.connect(self._restyle)
        self._cancel_key = dock_shortcut(self, "Esc", self.session.cancel)
        for keys in ("Ctrl+Return", "Ctrl+Enter"):
            dock_shortcut(self, keys, self.press)
        dock_shortcut(self, "?", self.show_keys)

    # -- deeds -----------------------------------------------------------------------------------------------------

    def press(self) -> None:
        """Do what the primary button says."""
        deeds: dict[Press, Callable[[], object]] = {
            "start": self.start,
            "cancel": self.session.cancel,
            "pause": self.session.pause,
            "continue": self.session.carry_on,
            "new": self.renew,
        }
        deed = deeds.get(press(self._prospect, self.session.state))
        if deed is not None:
            self.on_show()
            deed()

    def press_second(self) -> None:
        """Do what the button beside it says: while something goes on, what the primary one does not do."""
        if not self.session.active:
            self.renew()
        elif self.session.state.while_active == "cancel":
            self.session.pause()
        else:
            self.session.cancel()

    # -- drawing ---------------------------------------------------------------------------------------------------

    def _show_view(self, shown: View) -> None:
        """Show form, buttons and progress as they stand."""
        self.setup.say(shown.setup)
        if shown.folded != self._folded:  # it comes back once the last one is forgotten
            self._folded = shown.folded
            self.setup.header.setVisible(shown.folded)
            self.setup.open(not shown.folded)
        self.box.say(shown.box)
        self.button.show_state(shown.button, enabled=shown.enabled, primary=shown.primary)
        self.second.setVisible(bool(shown.second))
        if shown.second:
            self.second.show_state(shown.second, enabled=shown.second_enabled, primary=False)
        self.progress.show_bar(shown.bar)
        self._cancel_key.setEnabled(self.session.active)

    def _restyle(self, event: Any = None) -> None:
        theme = str(self.viewer.theme)
        self.setStyleSheet(sheet(theme))
        color = icon_color(theme)
        self.setup.set_theme(theme)
        self.form.set_theme(theme, color)
        self.message.set_theme(theme, color)
        self.form.align()
