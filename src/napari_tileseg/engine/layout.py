"""``Layout``: one part on the grids of the image and of the model, with tiles laid over it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from napari_tileseg.engine.levels import choose_view
from napari_tileseg.engine.parts import Part, plan_parts
from napari_tileseg.engine.recipe import resolve
from napari_tileseg.engine.scan import plan_scan
from napari_tileseg.engine.spacing import spacing_ratios

if TYPE_CHECKING:
    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.grid import Grid
    from napari_tileseg.engine.levels import View
    from napari_tileseg.engine.parts import Region, Regions
    from napari_tileseg.engine.scan import Turn
    from napari_tileseg.engine.tiles import TilePlan
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["Layout", "largest", "lay", "lay_parts", "seen"]


@dataclass(frozen=True, eq=False)
class Layout:
    """Where a part is read, where its labels go, and its tiles.

    Parameters
    ----------
    part : Part
        In pixels of the image.
    read : Part
        The same box in pixels of the resolution that is read.
    reading, grid : Grid
        From the pixels that are read, and from those of the image, to those of the model.
    turn : Turn
        The axis of the scan.
    plan : TilePlan
        In the order of the scan.
    """

    part: Part
    read: Part
    reading: Grid
    grid: Grid
    turn: Turn
    plan: TilePlan


def lay(view: View, part: Part, read: Part, spec: ModelSpec, options: SegmentOptions) -> Layout:
    """Match the grids of a box, as `View.snapped` gives it, and lay tiles over it."""
    reading, grid = view.grids(part, read)
    restored = spec.resampling.scores is not None and not grid.same
    return Layout(part, read, reading, grid, *plan_scan(grid.model, spec, options, restored=restored))


def lay_parts(
    image: Volume, axis_map: AxisMap, spec: ModelSpec, options: SegmentOptions, regions: Regions = ()
) -> tuple[View, list[Layout]]:
    """Lay out all that a run will do; nothing is read.

    Parameters
    ----------
    regions : tuple of tuple of (start, stop)
        What is wanted, as for `plan_parts`.

    Returns
    -------
    View
        The resolution that is read.
    list of Layout
        At least one; planes, frames and volumes in order, of each the parts in the order of the regions.

    Raises
    ------
    OptionsError
        If a region does not lie inside the image, or an option does not suit the model.
    """
    # Labels of a first model lie on the finest resolution.
    levels = replace(image, levels=()) if spec.previous is not None else image
    view = choose_view(levels, spec, axis_map.spatial, rescale=options.rescale)
    recipe = resolve(spec, options)
    laid: dict[tuple[tuple[int, ...], ...], Layout] = {}  # equal boxes have equal tiles

    def laid_out(part: Part) -> Layout:
        part, read = view.snapped(part, axis_map.spatial)
        shapes = part.shape, read.shape
        if shapes not in laid:
            laid[shapes] = lay(view, part, read, spec, options)
        return replace(laid[shapes], part=part, read=read)

    ratios = spacing_ratios(image, spec) if options.rescale else None
    parts = plan_parts(axis_map, regions, recipe.window, ratios, lambda part: len(laid_out(part).plan))
    return view, [laid_out(part) for part in parts]


def largest(layouts: list[Layout]) -> TilePlan:
    """Return the tiles of the part that takes the most memory."""
    return max((layout.plan for layout in layouts), key=lambda plan: plan.depth * math.prod(plan.canvas.shape[1:]))


def seen(axis_map: AxisMap, layouts: list[Layout]) -> tuple[Region, ...]:
    """Return the parts of the result's grid that the network sees, along every axis of it."""
    found = []
    for part in (layout.part for layout in layouts):
        spans = {axis: (index, index + 1) for axis, index in part.position.items()}
        spans |= {axis: (start, stop) for axis, start, stop in zip(axis_map.spatial, part.start, part.stop, strict=True)}
        found.append(tuple(spans[axis] for axis in axis_map.grid_axes))
    return tuple(found)
