"""``Again``: the fold that has a model look once more at a part of the image, with other settings, and blends in what it finds."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QLabel, QPushButton, QSpinBox, QWidget
from scipy import ndimage

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.orientation import turned_spec
from napari_tileseg.errors import Cancelled, InputError, OptionsError, RunError
from napari_tileseg.job import Job, SegmentOptions
from napari_tileseg.models.registry import list_models
from napari_tileseg.refine.again import blend, in_classes
from napari_tileseg.refine.scope import touching
from napari_tileseg.widgets.again import order_again, provenance_of
from napari_tileseg.widgets.bridge import supervisor
from napari_tileseg.widgets.choices import default_channels, pick_model
from napari_tileseg.widgets.layers import facts_of, layer_matrix, topmost_shapes, volume_from_layer
from napari_tileseg.widgets.parts import Combo, Fields, Fold
from napari_tileseg.widgets.parts.fields import tame
from napari_tileseg.widgets.refine.place import letters_of, place_of
from napari_tileseg.widgets.refine.subject import classes_of, origin_in
from napari_tileseg.widgets.regions import canvas_of, framed, visible_part, zoom_of
from napari_tileseg.widgets.session import Order
from napari_tileseg.widgets.waiting import ask_before_closing
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.volume import Volume
    from napari_tileseg.widgets.refine.place import Place
    from napari_tileseg.widgets.refine.session import RefineSession
    from napari_tileseg.widgets.refine.work import Work

__all__ = ["Again", "run_with_scores"]

WHERE = (("Visible part", "visible"), ("Rectangles", "rectangles"))
AVERAGE = (("As the model says", ""), ("None", "none"), ("Flips", "flips"), ("Rotations", "rotations"))

_DEEP = 8
"""Slices to both sides of the one in view, to begin with."""


class Again(Fold):
    """Where, which slices, which model with which settings; Run here.

    Parameters
    ----------
    session : RefineSession
    """

    tool = ("Here again", "Let a model look once more at a part of the image, with other settings.")
    """The button among the tools that opens this fold."""

    def __init__(self, session: RefineSession) -> None:
        self._session = session
        fields = Fields(indent=8)
        super().__init__("Here again", fields)
        self.fields = fields
        self.where = Combo("Where", "What is in view, or rectangles of a Shapes layer: draw one with napari's own tools.")
        self.where.fill(WHERE)
        self.draw = QPushButton("Draw")
        self.draw.setAccessibleName("Draw a rectangle")
        self.draw.setToolTip("Draw a rectangle on the image: a new Shapes layer, and napari's tool for it.")
        self.first, self.last = QSpinBox(), QSpinBox()
        tame(self.first, "First slice")
        tame(self.last, "Last slice")
        self.model = Combo("Model", "What looks again.")
        self.threshold = QDoubleSpinBox()
        tame(self.threshold, "Threshold")
        self.threshold.setRange(0, 1)
        self.threshold.setSingleStep(0.05)
        self.threshold.setToolTip("Least score that counts.")
        self.overlap = QDoubleSpinBox()
        tame(self.overlap, "Overlap")
        self.overlap.setRange(0, 0.95)
        self.overlap.setSingleStep(0.05)
        self.overlap.setToolTip("Share of a tile seen twice; the more, the better the sides of tiles.")
        self.average = Combo("Average over", "Look at the image turned as well: slower, and often better.")
        self.average.fill(AVERAGE)
        self.button = QPushButton("Run here")
        self.button.setAccessibleName("Run here")
        self.button.setToolTip("Segment there, with the image around it, and blend the result in as one step that can be undone.")
        fields.add("Where", self.where, self.draw)
        until = QLabel("to")
        self._slices = [fields.add("Slices", self.first, until, self.last), self.first, until, self.last]
        fields.add("Model", self.model)
        fields.add("Threshold", self.threshold)
        fields.add("Overlap", self.overlap)
        fields.add("Average", self.average)
        around = QWidget()
        around.setObjectName("plain")
        row = QHBoxLayout(around)
        row.setContentsMargins(0, 0, 0, 0)
        row.addStretch(1)
        row.addWidget(self.button)
        fields.add_wide(around)
        self._specs: list[ModelSpec] = []
        self.button.clicked.connect(lambda _checked=False: self.press())
        self.draw.clicked.connect(lambda _checked=False: self.begin_drawing())
        self.model.currentIndexChanged.connect(self._on_model)
        self.toggled.connect(self._on_toggled)
        session.chosen.connect(self._on_chosen)
        session.changed.connect(self._on_state)
        self._on_chosen()

    def widgets_in_order(self) -> list[Any]:
        """Return the fields from top to bottom, as Tab takes them."""
        return [
            self.header, self.where, self.draw, self.first, self.last, self.model, self.threshold, self.overlap, self.average, self.button,
        ]  # fmt: skip

    @property
    def spec(self) -> ModelSpec | None:
        """The model that is chosen."""
        return next((spec for spec in self._specs if spec.name == self.model.value), None)

    def press(self) -> None:
        """Run."""
        if self._session.work is not None and not self._session.busy:
            self._session.guarded(self._start)

    def begin_drawing(self) -> None:
        """Give the user a layer to draw a rectangle on, which lies along the axes of the world: over oblique ones napari cannot draw."""
        viewer, labels = self._session.viewer, self._session.labels
        if viewer is None or labels is None:
            return
        self._session.put_away()
        self.where.choose("rectangles")
        units = tuple(labels.units)
        name = f"{labels.name} - here again"
        shapes = next((layer for layer in viewer.layers if isinstance(layer, Shapes) and layer.name == name), None)
        if shapes is None:
            scale = np.linalg.norm(layer_matrix(labels)[:-1, :-1], axis=0)
            shapes = Shapes(ndim=labels.ndim, name=name, scale=scale, units=units, axis_labels=tuple(labels.axis_labels))
            shapes.current_face_color, shapes.current_edge_color = "transparent", "#ffffff"
            shapes.current_edge_width = 2 / zoom_of(viewer) / float(scale.min())
            viewer.add_layer(shapes)
        shapes.data = []
        shapes.translate = viewer.dims.point[-labels.ndim :]  # napari loses a shape that lies between two slices while it is drawn
        viewer.layers.selection.active = shapes
        shapes.mode = "add_rectangle"

    # -- the fields ------------------------------------------------------------------------------------------------

    def _on_toggled(self, opened: bool) -> None:
        if opened:
            self._specs = list_models()
            self._offer()
            self._set_slices()

    def _on_chosen(self) -> None:
        if self.opened:
            self._offer()
            self._set_slices()
        self._on_state()

    def _offer(self) -> None:
        """Offer the models; the one that made the labels is chosen."""
        session = self._session
        told = provenance_of(session.labels)
        name = str((told.get("model") or {}).get("name", "")) or self.model.value or ""
        if not any(spec.name == name for spec in self._specs) and session.image is not None:
            best = pick_model(self._specs, facts_of(session.image), session.segment.last_model)
            name = best.name if best is not None else ""
        self.model.fill([(spec.label, spec.name) for spec in self._specs], name)
        self._on_model()

    def _on_model(self) -> None:
        spec, told = self.spec, provenance_of(self._session.labels)
        if spec is None:
            return
        own = told.get("options") or {} if (told.get("model") or {}).get("name") == spec.name else {}
        self.threshold.setValue(float(own.get("threshold", 0.5)))
        overlap = own.get("overlap")
        self.overlap.setValue(float(overlap if overlap is not None else spec.overlap or 0.5))
        self.threshold.setEnabled(spec.output != "softmax")

    def _set_slices(self) -> None:
        work = self._session.work
        axis = self._depth(work) if work is not None else None
        for widget in self._slices:
            widget.setVisible(axis is not None)
        if work is None or axis is None:
            return
        last = work.canvas.shape[axis] - 1
        here = round(self._session.deeds.looked_at(work)[axis])
        self.first.setRange(0, last)
        self.last.setRange(0, last)
        self.first.setValue(max(here - _DEEP, 0))
        self.last.setValue(min(here + _DEEP, last))

    def _depth(self, work: Work) -> int | None:
        """Return the axis of space along which slices are chosen; None for planes, and where all three axes are shown."""
        cut = self._session.deeds.cut(work)
        return cut[0] if cut is not None else None

    def _on_state(self) -> None:
        self.button.setEnabled(self._session.work is not None and not self._session.busy)

    # -- the run ---------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Put the run into the queue of the Segment dock, and wait for it in another thread.

        Raises
        ------
        TileSegError
            If it cannot start.
        """
        session = self._session
        work, viewer, labels, image, spec = session.work, session.viewer, session.labels, session.image, self.spec
        if work is None or viewer is None or labels is None:
            return
        if image is None:
            raise InputError("No image of the shape of these labels is chosen. Choose it at Image.")
        if spec is None:
            raise InputError("No model is chosen. Choose one at Model.")
        canvas = work.canvas
        if canvas.classes and spec.finds_objects:
            raise InputError(f"These labels are classes, and {spec.label} finds objects. Choose a model that gives classes.")
        told = provenance_of(labels)
        volume = volume_from_layer(image, _axes(told, facts_of(image).guess(spec), len(facts_of(image).shape), spec))
        channels = _channels(told, volume, spec)
        spec = turned_spec(volume, spec)
        axis_map = map_axes(volume.axes, volume.shape, spec, channels=channels)
        origin = origin_in(image, labels) or (0,) * canvas.ndim
        region = self._region(_local(axis_map, canvas, origin))
        axis, span = self._depth(work), (min(self.first.value(), self.last.value()), max(self.first.value(), self.last.value()) + 1)
        depth, here = None if axis is None else (axis, span), session.deeds.looked_at(work)
        place = place_of(canvas, axis_map, region, spec.window, depth=depth, at=here, origin=origin)
        options = SegmentOptions.parse(
            threshold=self.threshold.value(), overlap=self.overlap.value(), **({"tta": self.average.value} if self.average.value else {})
        )
        path = getattr(image.source, "path", None)
        source = str(path) if path else None
        job = Job(model=spec.name, options=options, input=source, axes=volume.axes, channels=channels, region=place.region)
        over, outcome = threading.Event(), _Outcome()
        run = supervisor().start(job, volume, on_message=lambda message: outcome.hear(message, over))
        ask_before_closing(run, f"segmentation of a part of {volume.name} with {spec.label}")

        def wait(cancelled: Callable[[], bool]) -> Edit:
            try:
                while not over.wait(0.05):
                    if cancelled():
                        run.cancel()
                        raise Cancelled("The run was cancelled. Nothing was changed.")
                outcome.check()
                found = _found(run.labels, place, work, spec)
            finally:
                if over.is_set():
                    run.remove()
            return blend(canvas, place.box, found, inner=place.inner, about=outcome.about(place))

        sizes = " × ".join(str(place.inner[axis].stop - place.inner[axis].start) for axis in canvas.space)
        work.when_looked(lambda: session.run(f"Segmenting {sizes} pixels again", wait))

    def _region(self, axis_map: AxisMap) -> tuple[tuple[int, int], ...]:
        viewer, labels = self._session.viewer, self._session.labels
        assert viewer is not None and labels is not None  # `_start` has looked
        rectangle, dims = self.where.value == "rectangles", viewer.dims
        try:
            if rectangle:
                shapes = topmost_shapes(viewer.layers, viewer.layers.selection.active)
                return framed(shapes, labels, axis_map, dims.displayed, dims.ndim)
            return visible_part(labels, axis_map, dims.displayed, dims.current_step, dims.ndim, canvas_of(viewer))
        except OptionsError as error:
            other = "Visible part" if rectangle else "Rectangles"
            raise OptionsError(str(error).replace("Whole image", f"{other} at Where")) from error


class _Outcome:
    """How a run ended, as its messages tell."""

    def __init__(self) -> None:
        self._last: Any = None

    def hear(self, message: Any, over: threading.Event) -> None:
        """Take a message in, on the supervisor's thread."""
        if isinstance(message, Done | CancelledRun | Failed | Died):
            self._last = message
            over.set()

    def check(self) -> None:
        """Raise what hindered the run.

        Raises
        ------
        Cancelled, RunError
        """
        match self._last:
            case Failed() | Died() as message:
                raise RunError(message.message)
            case CancelledRun():
                raise Cancelled("The run was cancelled. Nothing was changed.")

    def about(self, place: Place) -> dict[str, Any]:
        """Return what the labels' provenance is to say: what was replaced, by which model, with which options."""
        told: dict[str, Any] = self._last.provenance if isinstance(self._last, Done) else {}
        kept: dict[str, Any] = {name: told[name] for name in ("model", "channels", "options", "settings", "warnings") if name in told}
        return {"region": [list(span) for span in place.replaced], **kept}


def _local(axis_map: AxisMap, canvas: Canvas, origin: tuple[int, ...]) -> AxisMap:
    """Return how the axes meet the model's where the image is no larger than the labels."""
    sizes = dict(zip(letters_of(canvas, axis_map, origin), canvas.shape, strict=True))
    return replace(axis_map, shape=tuple(sizes.get(letter, size) for letter, size in axis_map.sizes.items()))


def run_with_scores(session: RefineSession) -> None:
    """Make the labels again as they were made, and keep the scores this time; the run is the Segment dock's.

    Raises
    ------
    TileSegError
        If it cannot start.
    """
    viewer = session.viewer
    told = provenance_of(session.labels)
    if viewer is None:
        return
    if not told:
        raise OptionsError("These labels do not say how they were made. Segment the image with Keep scores.")
    order, _ = order_again(viewer, told)
    options = order.job.options.model_copy(update={"scores": True})
    fresh = Order(order.job.model_copy(update={"options": options}), order.volume, order.image, order.axis_map, order.spec)
    session.segment.start(fresh)


def _axes(told: dict[str, Any], guessed: str, ndim: int, spec: ModelSpec) -> str:
    """Return the axes of the image: as the run that made the labels knew them, else as guessed."""
    known = str((told.get("input") or {}).get("axes", ""))
    if len(known) == ndim:
        return known
    if "?" in guessed:
        raise InputError(f"It is not known what the axes of the image are ({guessed}). Segment it once with {spec.label} and say it there.")
    return guessed


def _channels(told: dict[str, Any], volume: Volume, spec: ModelSpec) -> tuple[int, ...] | None:
    """Return which channel of the image each input of the model is given."""
    if "C" not in volume.axes:
        return None
    if (told.get("model") or {}).get("name") == spec.name and told.get("channels"):
        return tuple(int(channel) for channel in told["channels"])
    return default_channels(spec, volume.sizes["C"])


def _found(labels: Any, place: Place, work: Work, spec: ModelSpec) -> NDArray[Any]:
    """Read what was found in the box, in the values that the labels have for it: their classes, or numbers of objects."""
    masks = spec.output == "sigmoid"
    spans = tuple(slice(*span) for span in place.region)
    read = np.asarray(labels[(slice(None), *spans) if masks else spans])
    found = read[(slice(None), *place.cut) if masks else place.cut]
    if work.canvas.classes:
        return in_classes(found, spec.classes, classes_of(work.layer), masks=masks)
    if spec.finds_objects:
        return found
    parts, _ = ndimage.label(found.any(axis=0) if masks else found > 0, structure=touching(len(spans)))
    return np.asarray(parts)
