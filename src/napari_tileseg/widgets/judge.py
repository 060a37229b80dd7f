"""The fields judged: either a run that is ready, or a sentence at the field that stands in its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.errors import AxesError, OptionsError, TileSegError
from napari_tileseg.widgets.choices import default_channels
from napari_tileseg.widgets.layers import array_of, image_layers, other_layers
from napari_tileseg.widgets.plan import Plan, RegionError, make_plan
from napari_tileseg.widgets.states import Action, Form

if TYPE_CHECKING:
    import napari
    from napari.layers import Image

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.widgets.form import SegmentForm

__all__ = ["ANSWERS", "judge", "refuse"]

ANSWERS = {Action.TIME: "T", Action.DEPTH: "Z", Action.CHANNELS: "C"}
"""What an axis may be, and its letter."""

_WAITING = {
    "axes": "Waiting for a change at Axes.",
    "options": "Waiting for a change in Options.",
    "where": "Waiting for a change in Where.",
}


def judge(viewer: napari.viewer.Viewer, layer: Image | None, spec: ModelSpec | None, form: SegmentForm) -> tuple[Form, Plan | None]:
    """Check everything that can be checked without working, and put sentences where their cause is.

    Returns
    -------
    Form
        What the rest of the dock needs to know.
    Plan or None
        The run, if the fields can be run as they are.
    """
    form.mapping.setText("")
    if layer is None or spec is None:
        form.channels.offer_nothing()
        form.ask("", ())
        form.complain("", "")
        note = "" if layer is not None else other_layers(viewer.layers)
        problem = "" if spec is not None else "No model is installed. Install napari-tileseg again."
        return Form(None if layer is None else layer.name, problem=problem, note=note), None
    _offer_channels(viewer, layer, spec, form)
    try:
        plan = make_plan(viewer, layer, spec, form.choices(), form.channels.layers)
    except TileSegError as error:
        return refuse(layer, form, error), None
    form.options.set_unit(plan.unit)
    form.mapping.setText(plan.axis_map.sentence)
    form.ask("", ())
    form.complain("", "")
    form.mapping.setVisible(True)
    form.tell_folds(plan.region_words)
    return Form(layer.name), plan


def refuse(layer: Image, form: SegmentForm, error: TileSegError) -> Form:
    """Show why the fields cannot be run: a question about an axis, or a sentence at its field."""
    sentence, axes = str(error), form.axes.text().upper()
    form.mapping.setText("")
    if isinstance(error, AxesError) and "?" in axes:
        form.complain("", "")
        form.ask(sentence, tuple(action for action, letter in ANSWERS.items() if letter not in axes))
        return Form(layer.name, question=sentence)
    place = "where" if isinstance(error, RegionError) else "options" if isinstance(error, OptionsError) else "axes"
    form.ask("", ())
    form.complain(place, sentence)
    return Form(layer.name, problem=_WAITING[place])


def _offer_channels(viewer: napari.viewer.Viewer, layer: Image, spec: ModelSpec, form: SegmentForm) -> None:
    """Offer a choice of channels, or of layers, where the model does not settle it."""
    axes = form.axes.text().replace(" ", "").upper()
    shape = array_of(layer).shape
    if not layer.rgb and len(axes) == len(shape) and axes.count("C") == 1:
        count = int(shape[axes.index("C")])
        if count > 1 and not (default_channels(spec, count) is None and len(spec.channels) == 1):
            form.channels.offer_channels(spec, count)
            return
    elif not layer.rgb and "C" not in axes and len(spec.channels) > 1 and spec.grey == "refuse":
        same = [other for other in image_layers(viewer.layers) if not other.rgb and array_of(other).shape == shape]
        if len(same) > 1:
            form.channels.offer_layers(spec, same, layer)
            return
    form.channels.offer_nothing()
