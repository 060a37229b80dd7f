"""The Train dock: images and their labels become a model of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.utils.theme import get_theme
from qtpy.QtWidgets import QWidget

from napari_tileseg.errors import InputError, TileSegError
from napari_tileseg.models.registry import list_models
from napari_tileseg.widgets.deeds import copy_details, show_help, show_keys
from napari_tileseg.widgets.dialogs import TextDialog
from napari_tileseg.widgets.folding import FoldingDock
from napari_tileseg.widgets.late import soon
from napari_tileseg.widgets.models.deeds import bring_to_front
from napari_tileseg.widgets.segment import dock_of
from napari_tileseg.widgets.session import real_viewer
from napari_tileseg.widgets.states import Action, Message, Prospect
from napari_tileseg.widgets.style import icon_color
from napari_tileseg.widgets.train import unlabelled
from napari_tileseg.widgets.train.choices import config_of, outlook, overlapping, startable
from napari_tileseg.widgets.train.curves import Curves
from napari_tileseg.widgets.train.form import TrainForm
from napari_tileseg.widgets.train.pairs import UNKNOWN, examples_of, images_of
from napari_tileseg.widgets.train.results import ResultView
from napari_tileseg.widgets.train.rows import same as same_layers
from napari_tileseg.widgets.train.session import Order, train_session_of
from napari_tileseg.widgets.train.states import view
from napari_tileseg.widgets.train.unlabelled import unlabelled_config
from napari_tileseg.widgets.train.words import in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari

    from napari_tileseg.widgets.train.session import TrainSession

__all__ = ["KEYS", "TrainWidget"]

KEYS = (
    ("Ctrl+Enter", "press the big button"),
    ("Esc", "stop and keep, while a training goes on"),
    ("?", "these keys"),
)

_PAUSE = 400
"""Milliseconds without another change before the data is looked at."""

_NOTHING = "Open images and Labels layers of their size, or choose folders."
_NO_IMAGES = "Open images of what is normal, or choose a folder of them."


class TrainWidget(FoldingDock):
    """Form, what will happen, buttons, progress, message, curves, and the validation images.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    session: TrainSession
    form: TrainForm

    def __init__(self, viewer: napari.viewer.Viewer) -> None:  # napari looks for exactly this annotation to inject the viewer
        viewer = real_viewer(viewer)
        super().__init__(viewer, train_session_of(viewer), TrainForm(), ("Train", "Stop and keep"))
        self.curves = Curves()
        self.results = ResultView()
        self._order: Order | None = None
        self._pause = soon(self, _PAUSE, self._look)
        self._lay_out()
        self._connect()
        self._list_models()
        self._restyle()
        self.session.docks.add(self)
        self._draw()
        self._on_layers()

    # -- building --------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        below = self._stack()
        below.addWidget(self.curves)
        below.addWidget(self.results, 1)
        self.rest = QWidget()
        self.rest.setObjectName("plain")
        below.addWidget(self.rest, 1)
        self._order_tabs(self.results)

    def _connect(self) -> None:
        super()._connect()
        self.results.picked.connect(self.session.show)
        self.session.ended.connect(self._on_ended)
        self.session.looked.connect(self._on_looked)
        self.session.told.connect(self._on_told)
        self.segment.models_changed.connect(self._list_models)

    # -- what the form holds ---------------------------------------------------------------------------------------

    def _list_models(self) -> None:
        self.form.offer_models(startable(list_models()))

    def _on_layers(self, event: Any = None) -> None:
        before = self.form.layers()
        self.form.follow(list(self.viewer.layers))
        self.form.align()
        if self.session.active or self.form.source.value == "folder":
            return
        after = self.form.layers()
        same = len(before) == len(after) and all(map(same_layers, before, after))
        if not same or not (after or self.form.choices().images):
            self._on_change()

    def order(self) -> Order:
        """Return what the fields ask for.

        Raises
        ------
        TileSegError
            One sentence: what is missing, or does not go together.
        """
        choices, layers = self.form.choices(), self.form.layers()
        config = unlabelled_config(choices) if choices.source == "images" else config_of(choices)
        axes = str(choices.values.get("axes", ""))
        if choices.source == "folder" or (choices.source == "images" and choices.images):
            return Order(config, axes=axes.replace(" ", "").upper())
        if choices.source == "images":
            if not layers:
                raise InputError(_NO_IMAGES)
            return Order(config, tuple(images_of([image for image, *_ in layers], axes)))
        spec = next((spec for spec in list_models() if spec.name == choices.start), None)
        labelled = config_of(choices)
        examples = examples_of([(image, truth) for image, truth in layers], spec, axes, unlabelled=labelled.unlabelled)
        if not examples:
            raise InputError(_NOTHING)
        if any(example.overlapping for example in examples):
            labelled = config_of(overlapping(choices, UNKNOWN))
        return Order(labelled, tuple(examples))

    def _on_change(self) -> None:
        """Say at once what cannot be, and look at the data soon."""
        self._told, self._order = None, None
        self.session.leave_look()
        choices = self.form.choices()
        folder = choices.images and (choices.labels or choices.source == "images")
        empty = not (folder if choices.source in ("folder", "images") and folder else self.form.layers())
        self.form.complain("")
        if empty:
            self._pause.stop()
            self.form.tell((), (), {})
            self._prospect = Prospect(box=_NO_IMAGES if choices.source == "images" else _NOTHING)
        else:
            self._prospect = Prospect(box="Looking at the data")
            self._pause.start()
        self._draw()

    def _look(self) -> None:
        if self.session.active:
            return
        try:
            order = self.order()
        except TileSegError as error:
            self._refuse(error)
            return
        self._order = order
        self.session.look(order)

    def _on_looked(self, order: Order, answer: Any) -> None:
        if order is not self._order:
            return
        if isinstance(answer, Exception):
            told = answer if isinstance(answer, TileSegError) else InputError(f"The data could not be looked at: {answer}.")
            self._refuse(told)
            return
        self.form.tell(answer.report, [in_words(warning) for warning in answer.warnings], answer.settings)
        box = outlook(answer.settings, answer.epochs) if order.epochs else unlabelled.outlook(answer.settings)
        soon = "Trying a few steps to tell the time..." if order.epochs else "The time is known after the first steps."
        time = f"At most about {answer.settings['expected']}." if "expected" in answer.settings else soon
        self._prospect = Prospect(ready=True, box=f"{box}\n{time}")
        self._draw()

    def _refuse(self, error: TileSegError) -> None:
        self._order = None
        self.form.tell((), (), {})
        self.form.complain(in_words(str(error)))
        self._prospect = Prospect(box="Waiting for a change.")
        self._draw()

    # -- deeds -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a training with what fields and layers hold now."""
        if self._order is None:
            return
        try:
            order = self.order()
        except TileSegError as error:
            self._refuse(error)
            return
        self.session.start(order)

    def renew(self) -> None:
        """Put the last training away and set up another."""
        self.session.forget()
        self.form.free_name()
        self._on_change()

    def act(self, action: Action) -> None:
        """Do what a link asks for."""
        deeds: dict[Action, Callable[[], object]] = {
            Action.USE: self.use,
            Action.CARD: self._show_card,
            Action.HELP: lambda: show_help(self.session.state.sentence, self),
            Action.COPY: lambda: copy_details(self.session.state),
        }
        if action in deeds:
            deeds[action]()

    def use(self) -> None:
        """Choose the model in the Segment dock, and bring that to the front."""
        name = self.session.state.name
        dock = dock_of(self.viewer)
        if dock.choose_model(name):
            bring_to_front(dock)
        else:
            self._on_told(f"{name} is not among the models that Segment lists.")

    def show_keys(self) -> None:
        """Show the keys of the dock."""
        show_keys(self, KEYS)

    def _show_card(self) -> None:
        result = self.session.state.result
        if result is None:
            return
        try:
            text = (Path(result.output) / "CARD.md").read_text(encoding="utf-8")
        except OSError:
            self._on_told("The card is not there any more.")
            return
        TextDialog(self.session.state.name, text, markdown=True, parent=self).show()

    # -- drawing ---------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        state, curve = self.session.state, self.session.curve
        shown = view(self._prospect, state)
        self._show_view(shown)
        self.box.setVisible(bool(shown.box))
        self.message.show_message(self._told or shown.message)
        self.curves.setVisible(shown.folded)
        self.results.setVisible(shown.folded and bool(curve.images))
        self.rest.setVisible(self.results.isHidden())
        if shown.folded:
            measure, span = (state.measure, float(state.epochs)) if state.epochs else (curve.measure.capitalize(), 0.0)
            best = bool(state.epochs)
            self.curves.show_curves(
                curve.losses, curve.scores, epochs=span, measure=measure, title=curve.title, best=best, beside=curve.beside
            )
            self.results.show_results(curve.images, state.measure)

    def _on_ended(self) -> None:
        if not self.session.state.folded:
            self.form.propose_name()
        self._draw()

    def _on_told(self, sentence: str) -> None:
        self._told = Message("warning", sentence) if sentence else None
        self._draw()

    def _restyle(self, event: Any = None) -> None:
        super()._restyle(event)
        theme = str(self.viewer.theme)
        self.curves.set_colors(icon_color(theme), get_theme(theme).highlight.as_hex())
        self.results.fit()
