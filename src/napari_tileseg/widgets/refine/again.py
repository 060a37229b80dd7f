"""``Again``: the fold that has a model look once more at a part of the image, with other settings, and blends in what it finds."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QDoubleSpinBox, QHBoxLayout, QLabel, QPushButton, QSpinBox, QWidget
from scipy import ndimage

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.errors import Cancelled, InputError, OptionsError, RunError
from napari_tileseg.job import Job, SegmentOptions
from napari_tileseg.models.registry import list_models
from napari_tileseg.refine.again import blend
from napari_tileseg.refine.scope import touching
from napari_tileseg.widgets.again import order_again, provenance_of
from napari_tileseg.widgets.bridge import supervisor
from napari_tileseg.widgets.choices import default_channels, pick_model
from napari_tileseg.widgets.layers import facts_of, topmost_shapes, volume_from_layer
from napari_tileseg.widgets.parts import Combo, Fields, Fold
from napari_tileseg.widgets.parts.fields import tame
from napari_tileseg.widgets.refine.kept import class_number
from napari_tileseg.widgets.regions import canvas_of, rectangles, visible_part
from napari_tileseg.widgets.session import Order
from napari_tileseg.widgets.waiting import ask_before_closing
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Edit
    from napari_tileseg.volume import Volume
    from napari_tileseg.widgets.refine.session import RefineSession
    from napari_tileseg.widgets.refine.work import Work

__all__ = ["Again", "Place", "place_of", "run_with_scores"]

WHERE = (("Visible part", "visible"), ("Rectangles", "rectangles"))
AVERAGE = (("As the model says", ""), ("None", "none"), ("Flips", "flips"), ("Rotations", "rotations"))

_AROUND = 4
"""One part in so many of the window is computed around the place, so that objects at its sides are known as a whole."""

_DEEP = 8
"""Slices to both sides of the one in view, to begin with."""


@dataclass(frozen=True)
class Place:
    """Where a model looks again.

    Parameters
    ----------
    inner : Box
        What is replaced, one slice for each axis of the labels.
    box : Box
        What is computed: more of it around.
    region : tuple of (start, stop)
        The box along the axes of the model's result (the image without C).
    """

    inner: Box
    box: Box
    region: tuple[tuple[int, int], ...]


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
        fields.add("Where", self.where)
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
        self.model.currentIndexChanged.connect(self._on_model)
        self.toggled.connect(self._on_toggled)
        session.chosen.connect(self._on_chosen)
        session.changed.connect(self._on_state)
        self._on_chosen()

    def widgets_in_order(self) -> list[Any]:
        """Return the fields from top to bottom, as Tab takes them."""
        return [
            self.header, self.where, self.first, self.last, self.model, self.threshold, self.overlap, self.average, self.button,
        ]  # fmt: skip

    @property
    def spec(self) -> ModelSpec | None:
        """The model that is chosen."""
        return next((spec for spec in self._specs if spec.name == self.model.value), None)

    def press(self) -> None:
        """Run."""
        if self._session.work is not None and not self._session.busy:
            self._session.guarded(self._start)

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
        axis_map = map_axes(volume.axes, volume.shape, spec, channels=channels)
        region = self._region(axis_map)
        window = spec.window
        depth = self._depth(work)
        span = (min(self.first.value(), self.last.value()), max(self.first.value(), self.last.value()) + 1)
        place = place_of(canvas, axis_map, region, window, depth=None if depth is None else (depth, span), at=session.deeds.looked_at(work))
        options = SegmentOptions.parse(
            threshold=self.threshold.value(), overlap=self.overlap.value(), **({"tta": self.average.value} if self.average.value else {})
        )
        path = getattr(image.source, "path", None)
        source = str(path) if path else None
        job = Job(model=spec.name, options=options, input=source, axes=volume.axes, channels=channels, region=place.region)
        over, outcome = threading.Event(), _Outcome()
        run = supervisor().start(job, volume, on_message=lambda message: outcome.hear(message, over))
        ask_before_closing(run, f"segmentation of a part of {volume.name} with {spec.label}")
        number = class_number(labels, spec) if spec.output == "sigmoid" else None

        def wait(cancelled: Callable[[], bool]) -> Edit:
            try:
                while not over.wait(0.05):
                    if cancelled():
                        run.cancel()
                        raise Cancelled("The run was cancelled. Nothing was changed.")
                outcome.check()
                found = _found(run.labels, place, number)
            finally:
                if over.is_set():
                    run.remove()
            return blend(canvas, place.box, _as_objects(found, canvas, spec), inner=place.inner)

        sizes = " × ".join(str(place.inner[axis].stop - place.inner[axis].start) for axis in canvas.space)
        work.when_looked(lambda: session.run(f"Segmenting {sizes} pixels again", wait))

    def _region(self, axis_map: AxisMap) -> tuple[tuple[int, int], ...]:
        viewer, labels = self._session.viewer, self._session.labels
        assert viewer is not None and labels is not None  # `_start` has looked
        rectangle, dims = self.where.value == "rectangles", viewer.dims
        try:
            if rectangle:
                return rectangles(topmost_shapes(viewer.layers, viewer.layers.selection.active), labels, axis_map)[0]
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


def place_of(
    canvas: Canvas,
    axis_map: AxisMap,
    region: tuple[tuple[int, int], ...],
    window: tuple[int, ...],
    *,
    depth: tuple[int, tuple[int, int]] | None = None,
    at: Any = (),
) -> Place:
    """Return what is computed and what is replaced.

    Parameters
    ----------
    canvas : Canvas
        Of the labels: the axes of the model's result, and maybe one of length 1 where the image has its channels.
    axis_map : AxisMap
    region : tuple of (start, stop)
        Along the axes of the result; what was drawn or is in view.
    window : tuple of int
        Of the model, along its axes.
    depth : (axis, (start, stop)), optional
        Slices along an axis of the labels.
    at : sequence of float
        The place in view, in pixels of the labels: of several time points only this one is looked at.

    Raises
    ------
    InputError
        If the labels do not lie on the image's grid.
    """
    sizes, shape = list(axis_map.grid_shape), canvas.shape
    extra = [axis for axis in range(canvas.ndim) if shape[axis] == 1] if canvas.ndim == len(sizes) + 1 else []
    kept = next((axis for axis in extra if [*shape[:axis], *shape[axis + 1 :]] == sizes), None)
    if kept is None and list(shape) != sizes:
        raise InputError(f"These labels have shape {shape}; on this image they would have {tuple(sizes)}. Choose the image they belong to.")
    inner = [slice(*span) for span in region]
    letters = list(axis_map.grid_axes)
    if kept is not None:
        inner.insert(kept, slice(0, 1))
        letters.insert(kept, "")
    if depth is not None:
        inner[depth[0]] = slice(*depth[1])
    for axis in canvas.outer:
        if axis != kept:
            here = min(max(round(float(at[axis])), 0), shape[axis] - 1)
            inner[axis] = slice(here, here + 1)
    margins = dict(zip(axis_map.spatial, (size // _AROUND for size in window), strict=False))
    box = [
        slice(max(part.start - margins.get(letter, 0), 0), min(part.stop + margins.get(letter, 0), size))
        for part, letter, size in zip(inner, letters, shape, strict=True)
    ]
    spans = tuple((part.start, part.stop) for axis, part in enumerate(box) if axis != kept)
    return Place(tuple(inner), tuple(box), spans)


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


def _found(labels: Any, place: Place, number: int | None) -> NDArray[Any]:
    """Read what was found in the box, on the grid of the labels."""
    spans = tuple(slice(*span) for span in place.region)
    return np.asarray(labels[spans] if number is None else labels[(number, *spans)])


def _as_objects(found: NDArray[Any], canvas: Canvas, spec: ModelSpec) -> NDArray[Any]:
    """Make objects of connected parts, where a model gives classes and the labels are objects."""
    if canvas.classes or spec.finds_objects or spec.output == "sigmoid":
        return found
    parts, _ = ndimage.label(found > 0, structure=touching(found.ndim))
    return np.asarray(parts)
