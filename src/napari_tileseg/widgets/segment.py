"""The Segment dock: an image layer becomes labels in one click."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.settings import get_settings
from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_tileseg.errors import TileSegError
from napari_tileseg.models.registry import list_models
from napari_tileseg.models.sides import previous_side
from napari_tileseg.widgets.again import made_with, order_again, provenance_of
from napari_tileseg.widgets.bridge import Bridge
from napari_tileseg.widgets.choices import pick_model
from napari_tileseg.widgets.deeds import Deeds
from napari_tileseg.widgets.devices import choices as device_choices
from napari_tileseg.widgets.devices import probe
from napari_tileseg.widgets.docks import bring_forward, opened
from napari_tileseg.widgets.first import FirstLabels, import_all
from napari_tileseg.widgets.form import SegmentForm
from napari_tileseg.widgets.judge import ANSWERS, judge, refuse
from napari_tileseg.widgets.keys import bind_segment, dock_shortcut
from napari_tileseg.widgets.late import Late
from napari_tileseg.widgets.layers import facts_of, image_layers
from napari_tileseg.widgets.parts import Box, Dock, MainButton, MessageBox, ProgressBar, Scroll
from napari_tileseg.widgets.plan import SPEEDS, Plan, estimate_words
from napari_tileseg.widgets.session import Order, real_viewer, session_of
from napari_tileseg.widgets.states import Action, Form, Message, Phase, press, view
from napari_tileseg.widgets.stopwatch import Stopwatch
from napari_tileseg.widgets.style import icon_color, sheet
from napari_tileseg.widgets.tissue import TissuePreview
from napari_tileseg.widgets.watch import LayerWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    import napari
    from napari.layers import Layer

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.widgets.devices import Device

__all__ = ["SegmentWidget", "dock_of"]

PLUGIN = "napari-tileseg"
SAMPLE = "nuclei-fluorescence"
_PAUSE = 120
"""Milliseconds without another change before the need of a run is worked out."""


class SegmentWidget(Dock):
    """Form, what will happen, one button, progress, message.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:  # napari looks for exactly this annotation to inject the viewer
        viewer = real_viewer(viewer)
        session = session_of(viewer)
        super().__init__(session.docks)
        self.viewer, self.session = viewer, session
        self.form = SegmentForm()
        self.scroller = Scroll(self.form)
        self.box = Box("What will happen")
        self.button = MainButton("Segment")
        self.progress = ProgressBar()
        self.message = MessageBox()
        self.deeds = Deeds(self.session, self)
        self._watch = LayerWatch(viewer, self)
        self._bridge = Bridge(self)
        self._specs: list[ModelSpec] = list_models()
        self._devices: tuple[Device, ...] = ()
        self._chosen: weakref.WeakKeyDictionary[Image, _Chosen] = weakref.WeakKeyDictionary()
        self._shown: tuple[Any, str] = (None, "")
        self._form = Form()
        self._plan: Plan | None = None
        self._asked = 0
        self._wanted = ""
        self._told: Message | None = None
        self._earlier: dict[str, Any] = {}
        self._pause = QTimer(self)
        self._pause.setSingleShot(True)
        self._pause.setInterval(_PAUSE)
        self._first = FirstLabels()
        self._tissue = TissuePreview(viewer, self.session, self)
        self.stopwatch = Stopwatch(self.session, self)
        self._lay_out()
        self._connect()
        self._fill_models()
        self._restyle()
        self._list_images()
        self._bridge.background(probe, Late(self, "_on_devices"))
        self.session.docks.add(self)
        self._bridge.background(import_all, Late(self, "_on_imported"))
        bind_segment(viewer)

    # -- building --------------------------------------------------------------------------------------------------

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        layout.addWidget(self.scroller)
        below = QVBoxLayout()
        below.setContentsMargins(6, 0, 6, 4)
        below.setSpacing(4)
        for widget in (self.box, self.button, self.progress, self.message):
            below.addWidget(widget)
        layout.addLayout(below)
        layout.addStretch(1)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        for before, after in pairwise([*self.form.widgets_in_order(), self.button]):
            QWidget.setTabOrder(before, after)

    def _connect(self) -> None:
        self.form.changed.connect(self._on_change)
        self.form.image_chosen.connect(self._on_image)
        self.form.model_chosen.connect(self._on_model_chosen)
        self.form.axes_edited.connect(self._on_axes)
        self.form.card_wanted.connect(self._on_card)
        self.form.acted.connect(self.act)
        self.message.chosen.connect(self.act)
        self.box.chosen.connect(self.act)
        self.stopwatch.changed.connect(self._draw)
        self.stopwatch.ended.connect(self._work_out)
        self.stopwatch.told.connect(self._on_told)
        self.deeds.told.connect(self._on_told)
        self.button.clicked.connect(self.press)
        self._pause.timeout.connect(self._work_out)
        self.session.changed.connect(self._draw)
        self.session.ended.connect(self._on_change)
        self.session.models_changed.connect(self._list_models)
        self._watch.listed.connect(self._list_images)
        self._watch.activated.connect(self._on_active)
        self._watch.altered.connect(self._on_change)
        self.viewer.events.theme.connect(self._restyle)
        get_settings().appearance.events.font_size.connect(self._restyle)
        self._cancel_key = dock_shortcut(self, "Esc", self.session.cancel)
        for keys, deed in (("Ctrl+Return", self.press), ("Ctrl+Enter", self.press), ("Ctrl+Shift+G", self.segment_active)):
            dock_shortcut(self, keys, deed)
        dock_shortcut(self, "?", self.deeds.show_keys)

    def _fill_models(self) -> None:
        self.form.model.fill([(spec.label, spec.name) for spec in self._specs])
        self.form.card.setEnabled(bool(self._specs))

    def _list_models(self) -> None:
        """List the models again, in another thread."""
        self._bridge.background(list_models, Late(self, "_on_models"))

    def _on_models(self, specs: Any) -> None:
        """Offer other models; the chosen one stays chosen while it is there."""
        if not isinstance(specs, list):
            return
        chosen = self.form.model.value
        self._specs = specs
        self.form.model.fill([(spec.label, spec.name) for spec in specs], chosen)
        self.form.card.setEnabled(bool(specs))
        if self.form.model.value != chosen:
            self._on_model()
        else:
            self._on_change()

    def choose_model(self, name: str) -> bool:
        """Choose a model as if the user had; False if there is none of that name."""
        self._on_models(list_models())
        if self.form.model.value != name and not self.form.model.choose(name):
            return False
        self._on_model_chosen()
        return True

    # -- what the form holds ---------------------------------------------------------------------------------------

    @property
    def image(self) -> Image | None:
        """The layer that would be segmented."""
        layer = self.form.image.value
        return layer if isinstance(layer, Image) else None

    @property
    def spec(self) -> ModelSpec | None:
        """The chosen model."""
        name = self.form.model.value
        return next((spec for spec in self._specs if spec.name == name), None)

    @property
    def decided(self) -> bool:
        """Whether somebody, or an image, has settled which model is meant."""
        return self.image is not None or (self._wanted != "" and self._wanted == self.form.model.value)

    @property
    def plan(self) -> Plan | None:
        """The run that the fields ask for; None if they cannot be run as they are."""
        return self._plan

    @property
    def named_axes(self) -> str:
        """The axes of the image where the user has named them."""
        return self._memory(self.image).axes.get(self._shown[1], "") if self.image is not None else ""

    def _list_images(self) -> None:
        """List the images again; the chosen one stays chosen whatever it is called now."""
        images = image_layers(self.viewer.layers)
        active = self.viewer.layers.selection.active
        chosen = self.image
        if not any(layer is chosen for layer in images):
            chosen = active if isinstance(active, Image) else images[0] if images else None
        self.form.set_images(images, chosen)
        self._on_image()
        self._offer_again(active)
        self._first.make(image=bool(images))

    def _on_imported(self, answer: Any) -> None:
        self._first.on_imported(answer, image=bool(image_layers(self.viewer.layers)))

    def _on_active(self) -> None:
        active = self.viewer.layers.selection.active
        self._offer_again(active)
        ours = self.session.result is not None and active in (self.session.result.scores, self.session.result.uncertainty)
        if isinstance(active, Image) and not ours and active is not self.image and self.form.image.choose(active):
            return  # the combo box tells of the change itself
        self._on_change()

    def _offer_again(self, layer: Layer | None) -> None:
        """Tell how the active labels were made, if they are not those of the run that the dock shows anyway."""
        result = self.session.result
        shown = result is not None and any(layer is ours for ours in result.layers)
        earlier = {} if layer is None or shown else provenance_of(layer)
        if earlier and layer is not None:
            self._on_told(Message("info", made_with(layer, earlier), (Action.LIKE_THIS, Action.DETAILS)))
        elif self._earlier and self._told is not None and Action.LIKE_THIS in self._told.links:
            self._told = None
        self._earlier = earlier

    def _on_image(self) -> None:
        """Take the model that fits another image."""
        layer = self.image
        if layer is not None and layer is not self._shown[0]:
            best = pick_model(self._specs, facts_of(layer), self._wanted or self.session.last_model)
            name = self._memory(layer).model or (best.name if best is not None else "")
            self.form.model.fill([(item.label, item.name) for item in self._specs], name)
        self._on_model()

    def _memory(self, layer: Image) -> _Chosen:
        """Return what the user has chosen for an image."""
        return self._chosen.setdefault(layer, _Chosen())

    def _on_model_chosen(self) -> None:
        self._wanted = self.form.model.value or ""
        if self.image is not None and self.spec is not None:
            self._memory(self.image).model = self.spec.name
        self._on_model()

    def _on_model(self) -> None:
        layer, spec = self.image, self.spec
        name = spec.name if spec is not None else ""
        if (layer, name) != self._shown:
            self._told = None
        if spec is not None:
            self.form.about.setText(" ".join(part for part in (spec.description, f"{spec.licence}." if spec.licence else "") if part))
            if name != self._shown[1]:
                self.form.options.set_spec(spec)
                if spec.output == "anomaly":
                    self.form.keep_scores.setChecked(True)  # the map is what one looks at
        self._shown = (layer, name)
        self.form.set_axes(self._memory(layer).axes.get(name) or facts_of(layer).guess(spec) if layer is not None else "")
        self._forget_other_run()
        self._on_change()

    def _on_axes(self) -> None:
        if self.image is not None:
            self._memory(self.image).axes[self._shown[1]] = self.form.axes.text().replace(" ", "")
        self._on_change()

    def _forget_other_run(self) -> None:
        """Another image or model ends Continue."""
        order = self.session.order
        if order is None or self.image is None or self.session.state.phase is Phase.REMOVED:
            return
        if order.image is not self.image or order.spec.name != self._shown[1]:
            self.session.forget()

    # -- what a run would need -------------------------------------------------------------------------------------

    def _on_change(self) -> None:
        """Judge the fields now, and work out the need of a run soon."""
        self._form, self._plan = judge(self.viewer, self.image, self.spec, self.form)
        if self._plan is None:
            self.form.tell_folds()
        self._draw()
        self.session.altered.emit()
        self._pause.start()

    def _work_out(self) -> None:
        """Ask in another thread what a run would need."""
        self._asked += 1
        if self._plan is not None:
            self._bridge.background(self._plan.estimate, Late(self, "_on_estimate", self._asked))
        self._tissue.look(self._plan)

    def _on_estimate(self, number: int, answer: Any) -> None:
        plan = self._plan
        if number != self._asked or plan is None:
            return
        if isinstance(answer, TileSegError):
            self._plan, self._form = None, refuse(plan.layer, self.form, answer)
        elif isinstance(answer, Exception):
            self._form = replace(self._form, estimate="What this run needs could not be worked out; it can be tried.")
        else:
            device = plan.job.options.device
            used = next((item for item in self._devices if device in ("auto", item.key)), None)
            seconds = answer.seconds if answer.seconds is not None else SPEEDS.seconds(plan.spec.name, plan.job.options, answer)
            self._form = replace(self._form, estimate=estimate_words(answer, used, seconds), timed=seconds is not None)
        self._draw()

    # -- deeds -----------------------------------------------------------------------------------------------------

    def press(self) -> None:
        """Do what the primary button says."""
        deed = press(self._form, self.session.state)
        if deed == "cancel":
            self.session.cancel()
        elif deed == "continue":
            self._try(self.session.carry_on)
        elif deed == "segment":
            self.segment()

    def segment(self) -> None:
        """Start a run with what the fields hold now."""
        estimate = self._form.estimate
        form, plan = judge(self.viewer, self.image, self.spec, self.form)
        self._form, self._plan, self._told = replace(form, estimate=estimate), plan, None
        if plan is None:
            self._draw()
            return
        choices = self.form.choices()
        order = Order(plan.job, plan.volume, plan.layer, plan.axis_map, plan.spec, objects=choices.objects, keep=choices.keep)
        self.session.docks.watch(self)
        self._tissue.put_away()
        self._try(lambda: self.session.start(order))

    def segment_active(self) -> None:
        """Segment the active image."""
        active = self.viewer.layers.selection.active
        if isinstance(active, Image):
            self.form.image.choose(active)
        if press(self._form, self.session.state) == "segment":
            self.segment()

    def _try(self, deed: Callable[[], object]) -> None:
        """Do something that may be refused with a sentence."""
        try:
            deed()
        except TileSegError as error:
            self._on_told(Message("error", str(error), (Action.HELP,)))

    def act(self, action: Action) -> None:
        """Do what a link asks for."""
        deeds: dict[Action, Callable[[], object]] = {
            Action.SAMPLE: self.open_sample,
            Action.AGAIN: self.session.again,
            Action.REMOVE: self.session.remove,
            Action.RESTORE: self.session.restore,
            Action.UNLOAD: self.session.unload,
            Action.MEASURE: self.measure,
            Action.STOP: self.stopwatch.stop,
            Action.REFINE: self.refine,
            Action.EDIT: self.session.edit_region,
            Action.PUT_BACK: self.session.put_back,
            Action.SAVE: self.deeds.save,
            Action.DETAILS: lambda: self.deeds.show_details(self._earlier),
            Action.LIKE_THIS: self.run_like_earlier,
            Action.HELP: self._help,
            Action.COPY: self.deeds.copy_details,
            Action.SMALLER: self.use_smaller_window,
            Action.CPU: self.use_cpu,
            Action.TRUST: self.deeds.trust,
        }
        if action in ANSWERS:
            self.form.set_axes(self.form.axes.text().replace(" ", "").replace("?", ANSWERS[action], 1))
            self._on_axes()
        else:
            self._try(deeds[action])

    def measure(self) -> None:
        """Time one tile of what the fields ask for."""
        self._told = None
        if self._plan is not None:
            self.stopwatch.start(self._plan)

    def refine(self) -> None:
        """Open the Refine dock, with the labels in it."""
        from napari_tileseg.widgets.refine.dock import refine_dock_of  # which opens this dock

        layers = [layer for layer in (self.session.result.layers if self.session.result is not None else ()) if layer in self.viewer.layers]
        if layers:
            self.viewer.layers.selection.active = layers[-1]
        bring_forward(refine_dock_of(self.viewer))

    def open_sample(self) -> None:
        """Open a bundled image."""
        self.viewer.open_sample(PLUGIN, SAMPLE)

    def run_like_earlier(self) -> None:
        """Do again what the active labels were made by; what will not be as it was is said first.

        Raises
        ------
        TileSegError
            If the model or the image is not here.
        """
        order, notes = order_again(self.viewer, self._earlier)
        self._told = None
        self.session.docks.watch(self)
        self.session.start(order)
        if notes:
            self._on_told(Message("warning", " ".join(notes)))

    def use_smaller_window(self) -> None:
        """Halve the window, as far as the model allows, and start again."""
        order = self.session.order
        if order is None:
            return
        window = order.job.options.window or order.spec.window
        halves = [previous_side(size // 2, step, order.spec.remainder) for size, step in zip(window, order.spec.multiples, strict=True)]
        self.form.options.set_window(", ".join(map(str, halves)))
        self._restart()

    def use_cpu(self) -> None:
        """Start again on the CPU."""
        self.form.device.choose("cpu")
        self._restart()

    def _restart(self) -> None:
        self.session.remove()
        self._on_change()
        self.segment()

    def _help(self) -> None:
        self.deeds.show_help(self._told.text if self._told is not None else self.session.state.sentence)

    def _on_card(self) -> None:
        spec = self.spec
        if spec is not None:
            self._try(lambda: self.deeds.show_card(spec))

    # -- drawing ---------------------------------------------------------------------------------------------------

    def _draw(self) -> None:
        shown = view(replace(self._form, measuring=self.stopwatch.words), self.session.state)
        self.box.say(shown.box, shown.links)
        self.button.show_state(shown.button, enabled=shown.enabled, primary=shown.primary)
        self.progress.show_bar(shown.bar)
        self.message.show_message(self._told if self._told is not None and not self.session.active else shown.message)
        self._cancel_key.setEnabled(self.session.active)
        loaded = self.session.loaded
        idle = loaded is not None and not self.session.active
        self.form.set_loaded(f"Loaded, {loaded.bytes / 1e9:.1f} GB." if loaded is not None and idle else "")

    def _on_told(self, message: Message) -> None:
        self._told = message
        self._draw()

    def _on_devices(self, devices: Any) -> None:
        if isinstance(devices, tuple):
            self._devices = devices
            self.form.device.fill(device_choices(devices), self.form.device.value or "auto")
            self._on_change()

    def _restyle(self, event: Any = None) -> None:
        theme = str(self.viewer.theme)
        self.setStyleSheet(sheet(theme))
        color = icon_color(theme)
        self.form.set_theme(theme, color)
        self.message.set_theme(theme, color)
        self.form.align()


@dataclass
class _Chosen:
    """What the user has chosen for an image: its model, and its axes for each model."""

    model: str = ""
    axes: dict[str, str] = field(default_factory=dict)


def dock_of(viewer: napari.viewer.Viewer) -> SegmentWidget:
    """Return a viewer's Segment dock; it is opened if there is none."""
    dock: SegmentWidget = opened(viewer, session_of(viewer).docks, SegmentWidget, "Segment (TileSeg)")
    return dock
