"""The Refine dock: labels are corrected, each step undoable."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from napari.layers import Labels
from napari.settings import get_settings
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_tileseg.errors import TileSegError
from napari_tileseg.units import unit_symbol
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.deeds import show_keys
from napari_tileseg.widgets.docks import bring_forward, opened
from napari_tileseg.widgets.keys import dock_shortcut
from napari_tileseg.widgets.late import Late
from napari_tileseg.widgets.layers import image_layers
from napari_tileseg.widgets.parts import Dock, MainButton, MessageBox, Note, ProgressBar, Scroll
from napari_tileseg.widgets.parts.scroll import page
from napari_tileseg.widgets.refine import saving
from napari_tileseg.widgets.refine.folds import FOLDS
from napari_tileseg.widgets.refine.form import RefineForm
from napari_tileseg.widgets.refine.preview import is_preview
from napari_tileseg.widgets.refine.session import refine_session_of
from napari_tileseg.widgets.refine.states import view
from napari_tileseg.widgets.refine.subject import image_beside, labels_layers
from napari_tileseg.widgets.refine.tools import KEYS, TOOLS
from napari_tileseg.widgets.refine.wand import usual_reach, usual_tolerance
from napari_tileseg.widgets.save import ask_mesh
from napari_tileseg.widgets.session import real_viewer
from napari_tileseg.widgets.states import Action, Message
from napari_tileseg.widgets.style import icon_color, sheet
from napari_tileseg.widgets.watch import LayerWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_tileseg.widgets.parts import Fold
    from napari_tileseg.widgets.refine.work import Work

__all__ = ["RefineWidget", "refine_dock_of"]


class RefineWidget(Dock):
    """Layers, tools, folds, message, Save, and a line about what was done.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:  # napari looks for exactly this annotation to inject the viewer
        viewer = real_viewer(viewer)
        session = refine_session_of(viewer)
        super().__init__(session.docks)
        self.viewer, self.session = viewer, session
        self.form = RefineForm()
        self.folds = [make(self.session) for make in FOLDS]
        self.progress = ProgressBar()
        self.message = MessageBox()
        self.button = MainButton("Save...")
        self.note = Note()
        self.note.setAccessibleName("Edits")
        self._bridge = Bridge(self)
        self._watch = LayerWatch(viewer, self)
        self._lay_out()
        self._connect()
        self._restyle()
        self.session.docks.add(self)
        self._on_layers()
        self._on_active()
        self.session.recovery.look_once()
        self._draw()
        self._set_reach()

    # -- building --------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        content = QWidget()
        content.setObjectName("plain")
        inside = QVBoxLayout(content)
        inside.setContentsMargins(0, 0, 0, 0)
        inside.setSpacing(4)
        for widget in (self.form, *self.folds):
            inside.addWidget(widget)
        self.scroller = Scroll(page(content))
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.scroller)
        below = QVBoxLayout()
        below.setContentsMargins(6, 0, 6, 4)
        below.setSpacing(4)
        for widget in (self.progress, self.message, self.button, self.note):
            below.addWidget(widget)
        below.addStretch(1)
        layout.addLayout(below, 1)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        order = self.form.widgets_in_order()
        for fold in self.folds:
            order += fold.widgets_in_order() if hasattr(fold, "widgets_in_order") else [fold.header]
        for before, after in pairwise([*order, self.button]):
            QWidget.setTabOrder(before, after)

    def _connect(self) -> None:
        self.form.layers_chosen.connect(self._on_chosen_by_hand)
        self.form.tool_pressed.connect(self.session.toggle)
        self.form.tool_pressed.connect(self._on_tool)
        self.form.changed.connect(self._on_form)
        self.message.chosen.connect(self.act)
        self.button.clicked.connect(self.press)
        self.session.changed.connect(self._draw)
        self.session.chosen.connect(self._on_chosen)
        self.session.looked.connect(self._set_reach)
        self._watch.listed.connect(self._on_layers)
        self.viewer.layers.selection.events.active.connect(self._on_active)
        self.viewer.events.theme.connect(self._restyle)
        get_settings().appearance.events.font_size.connect(self._restyle)
        for fold in self.folds:
            fold.toggled.connect(self.updateGeometry)
            if hasattr(fold, "tool"):
                self.form.add_button(*fold.tool).clicked.connect(Late(self, "_open", fold))
            for key, deed in getattr(fold, "shortcuts", ()):
                dock_shortcut(self, key, deed)
        for tool in TOOLS:
            if tool.key:
                dock_shortcut(self, tool.key, partial(self.session.toggle, tool.name))
        for keys in ("Ctrl+Return", "Ctrl+Enter"):
            dock_shortcut(self, keys, self.press)
        dock_shortcut(self, "Ctrl+Z", self.session.undo)
        dock_shortcut(self, "Ctrl+Shift+Z", self.session.redo)
        dock_shortcut(self, "?", self.show_keys)
        self._escape = dock_shortcut(self, "Esc", self.session.escape)

    # -- layers ----------------------------------------------------------------------------------------------------

    def _on_layers(self) -> None:
        """List the layers, and go on with others where those that were worked on are gone."""
        labels = labels_layers(self.viewer.layers)
        chosen = self.session.labels
        image = self.session.image
        if chosen not in labels or (image is not None and image not in self.viewer.layers):
            self.session.choose(chosen if chosen in labels else self._guess(labels))
        elif chosen is not None and image is None and image_beside(chosen, self.viewer.layers) is not None:
            self.session.choose(chosen)  # an image has come that suits it
        self.session.rename()
        self._fill()

    def _guess(self, labels: list[Labels]) -> Labels | None:
        active = self.viewer.layers.selection.active
        return active if isinstance(active, Labels) and active in labels else next(iter(labels), None)

    def _on_active(self, event: Any = None) -> None:
        active = self.viewer.layers.selection.active
        if isinstance(active, Labels) and not is_preview(active) and active is not self.session.labels:
            self.session.choose(active)

    def _on_chosen_by_hand(self) -> None:
        labels, image = self.form.labels.value, self.form.image.value
        other = labels is not self.session.labels
        self.session.choose(labels, None if other else image)

    def _on_chosen(self) -> None:
        self._fill()
        image = self.session.image
        if image is not None:
            low, high = (float(limit) for limit in image.contrast_limits) if not image.rgb else (0.0, 255.0)
            self.form.set_tolerance(usual_tolerance(low, high))
        self._set_reach(fresh=True)
        self._on_form()

    def _set_reach(self, *, fresh: bool = False) -> None:
        """Start with a reach of the wand that suits the labels; again when their objects are known."""
        work = self.session.work
        if work is not None:
            self.form.set_reach(usual_reach(self.viewer, work.canvas, work.layer), unit_symbol(work.canvas.unit), fresh=fresh)
            self._on_form()

    def _fill(self) -> None:
        images = image_layers(self.viewer.layers)
        self.form.offer(labels_layers(self.viewer.layers), images, self.session.labels, self.session.image)

    def _on_form(self) -> None:
        self.session.set_act_on(self.form.act_on.value)
        self.session.deeds.tolerance = self.form.tolerance.value()
        self.session.deeds.reach = self.form.reach.value()
        self.session.deeds.split_by = self.form.split_by.value

    # -- deeds -----------------------------------------------------------------------------------------------------

    def press(self) -> None:
        """Do what the big button says."""
        if self.session.busy:
            self.session.cancel()
        elif self.session.labels is not None:
            self.save()

    def act(self, action: Action) -> None:
        """Do what a link asks for."""
        deeds: dict[Action, Callable[[], object]] = {
            Action.SEGMENT: self.open_segment,
            Action.KEEP: self.session.recovery.keep,
            Action.DISCARD: self.session.recovery.discard,
            Action.OPEN_COPY: self.session.recovery.open_copies,
            Action.EDIT: self.session.regions.open,
            Action.WORK_COPY: self.session.regions.copy,
            Action.PUT_BACK: self.session.regions.put_back,
            Action.SAVE: self.save,
        }
        deed = deeds.get(action)
        if deed is not None:
            self.session.guarded(deed)

    def open_segment(self) -> None:
        """Open the Segment dock."""
        from napari_tileseg.widgets.segment import dock_of

        bring_forward(dock_of(self.viewer))

    def save(self) -> None:
        """Ask for a file and write the labels there, in another thread."""
        labels, work = self.session.labels, self.session.work
        if labels is None:
            return
        if self.session.regions.owns(labels):
            self.session.guarded(self.session.regions.put_back)
            labels, work = self.session.labels, self.session.work
            if labels is None:
                return
        try:
            volume = saving.volume_of(labels, self.session.segment)
        except TileSegError as error:
            self.session.tell(Message("error", str(error)))
            return
        path = saving.ask(self, volume, labels.name, large=bool(labels.multiscale))
        if path is None:
            return
        wishes = ask_mesh(self, path, list(volume.metadata.get("classes") or ()), int(labels.selected_label))
        if wishes is None:
            return
        image = saving.image_of(labels, list(self.viewer.layers), volume, self.session.segment) if path.suffix.lower() == ".csv" else None
        try:
            write = saving.writer_of(labels, volume, path, image, wishes)
        except TileSegError as error:
            self.session.tell(Message("error", str(error), (Action.SAVE,)))
            return
        self.session.tell(Message("info", f"Saving {path.name}"))
        steps = work.moves if work is not None else 0
        self._bridge.background(write, Late(self, "_on_saved", work, steps))

    def _on_saved(self, work: Work | None, moves: int, answer: Any) -> None:
        if isinstance(answer, TileSegError):
            self.session.tell(Message("error", str(answer), (Action.SAVE,)))
        elif isinstance(answer, Exception):
            self.session.tell(Message("error", f"The labels could not be saved: {answer}. Choose another place.", (Action.SAVE,)))
        else:
            if work is not None and work.moves == moves:
                self.session.keeper.saved(work, answer)
            self.session.tell(Message("done", f"Saved as {answer.name}."))

    def _on_tool(self, _name: str) -> None:
        self._draw()

    def _open(self, fold: Fold, _checked: bool = False) -> None:
        fold.open()
        self.scroller.ensureWidgetVisible(fold)

    def show_keys(self) -> None:
        """Show the keys of the dock."""
        show_keys(self, KEYS)

    # -- drawing ---------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        shown = view(self.session.state)
        self.form.set_able(shown.tools)
        self.form.show_tool(shown.tool)
        self.form.follow(self.session.deeds.tolerance, self.session.deeds.reach)
        self.progress.show_bar(shown.bar)
        self.message.show_message(shown.message)
        self.button.show_state(shown.button, enabled=shown.pressable, primary=shown.button != "Cancel")
        self.note.setText(shown.note)
        self.note.setVisible(bool(shown.note))
        self._escape.setEnabled(bool(shown.tool or shown.bar is not None))

    def _restyle(self, event: Any = None) -> None:
        theme = str(self.viewer.theme)
        self.setStyleSheet(sheet(theme))
        for fold in self.folds:
            fold.set_theme(theme)
        self.message.set_theme(theme, icon_color(theme))
        self.form.align()


def refine_dock_of(viewer: napari.viewer.Viewer) -> RefineWidget:
    """Return a viewer's Refine dock; it is opened if there is none."""
    dock: RefineWidget = opened(viewer, refine_session_of(viewer).docks, RefineWidget, "Refine (TileSeg)")
    return dock
