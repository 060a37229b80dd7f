"""The recipe that Segment holds now: model, options, and what the user has said about axes and channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari.layers import Image

from napari_tileseg.errors import TileSegError
from napari_tileseg.io.registry import read_volume
from napari_tileseg.models.registry import list_models
from napari_tileseg.widgets.batch.choices import Recipe
from napari_tileseg.widgets.choices import ImageFacts, options_from, pick_model
from napari_tileseg.widgets.layers import facts_of
from napari_tileseg.widgets.segment import SegmentWidget

if TYPE_CHECKING:
    from napari_tileseg.widgets.session import Session

__all__ = ["fitting", "segment_recipe"]


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
        image = active if isinstance(active, Image) else None
        best = pick_model(list_models(), facts_of(image) if image is not None else None, session.last_model)
        return Recipe(best.name if best is not None else "", free=image is None)
    axes = dock.named_axes.upper() or None
    if dock.plan is not None:
        job = dock.plan.job
        return Recipe(job.model, job.options, axes, job.channels)
    options = options_from(dock.form.choices(), dock.spec)
    return Recipe(dock.spec.name, options, axes if axes and "?" not in axes else None, free=not dock.decided)


def fitting(recipe: Recipe, path: str, last: str = "") -> Recipe:
    """Return the recipe with the model that fits an image, where nobody has chosen one.

    Parameters
    ----------
    recipe : Recipe
    path : str
        The first image of the batch.
    last : str
        Name of the model that ran last.
    """
    if not recipe.free:
        return recipe
    try:
        volume = read_volume(path)
    except TileSegError:
        return recipe
    facts = ImageFacts(
        volume.name, volume.shape, axis_labels=tuple(volume.axes), spacing=tuple(volume.spacing.values()), units=volume.units
    )
    best = pick_model(list_models(), facts, last)
    return recipe if best is None or best.name == recipe.model else Recipe(best.name, axes=recipe.axes, free=True)
