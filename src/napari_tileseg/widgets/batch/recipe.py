"""The recipe that Segment holds now: model, options, and what the user has said about axes and channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image

from napari_tileseg.models.registry import list_models
from napari_tileseg.widgets.batch.choices import Recipe
from napari_tileseg.widgets.choices import options_from, pick_model
from napari_tileseg.widgets.layers import facts_of
from napari_tileseg.widgets.segment import SegmentWidget

if TYPE_CHECKING:
    from napari_tileseg.widgets.session import Session

__all__ = ["segment_recipe"]


def segment_recipe(session: Session) -> Recipe:
    """Return what the Segment dock of a viewer holds; the model that fits the active image where there is no such dock.

    Raises
    ------
    OptionsError
        If the fields of Segment cannot be used.
    """
    dock = next((dock for dock in session.docks.living() if isinstance(dock, SegmentWidget)), None)
    if dock is None or dock.spec is None:
        viewer = session.viewer
        active = viewer.layers.selection.active if viewer is not None else None
        best = pick_model(list_models(), facts_of(active) if isinstance(active, Image) else None, session.last_model)
        return Recipe(best.name if best is not None else "")
    axes = dock.named_axes.upper() or None
    if dock.plan is not None:
        job = dock.plan.job
        return Recipe(job.model, job.options, axes, job.channels)
    return Recipe(dock.spec.name, options_from(dock.form.choices(), dock.spec), axes if axes and "?" not in axes else None)
