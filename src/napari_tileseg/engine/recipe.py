"""``Recipe``: how this run is tiled, decided from what the model says and what the user wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tileseg.engine.tiles import TilePlan, plan_tiles
from napari_tileseg.engine.views import check_passes, check_views, views
from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["FIRST_OVERLAP", "Recipe", "resolve"]

FIRST_OVERLAP = 0.125
"""Overlap of the first pass of an adaptive run where the user names none."""


@dataclass(frozen=True)
class Recipe:
    """Every setting of the tiling, with nothing left open. Made by `resolve`."""

    window: tuple[int, ...]
    overlap: float
    steps: str
    blending: str
    sigma: float
    padding: str
    output_offset: tuple[int, ...] | None
    from_end: tuple[bool, ...] = ()
    multiples: tuple[int, ...] = ()

    def plan(self, shape: tuple[int, ...]) -> TilePlan:
        """Lay the tiles over an image of that spatial shape."""
        return plan_tiles(
            shape,
            self.window,
            overlap=self.overlap,
            steps=self.steps,
            output_offset=self.output_offset,
            blending=self.blending,
            reflect=self.padding == "reflect",
            from_end=self.from_end,
            multiples=self.multiples,
        )


def resolve(spec: ModelSpec, options: SegmentOptions) -> Recipe:
    """Let the options that were given override the model's recipe.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    options : SegmentOptions
        ``None``, or a sigma nobody has set, means: as the model says.

    Returns
    -------
    Recipe

    Raises
    ------
    OptionsError
        If the window does not suit the model, or the turns or the uncertainty that are asked for.
    """
    window = options.window or spec.window
    if len(window) != spec.spatial_ndim:
        raise OptionsError(
            f"Window {_text(window)} has {len(window)} sizes, the model's axes are {spec.spatial_axes}. Give one size for each."
        )
    if spec.fixed_window and tuple(window) != spec.window:
        raise OptionsError(f"Window {_text(window)} was given; {spec.label} takes tiles of {_text(spec.window)} only. Leave it open.")
    wrong = next((size for size in window if size % spec.multiple_of), None)
    if wrong is not None:
        better = -(-wrong // spec.multiple_of) * spec.multiple_of
        raise OptionsError(f"Window {wrong} is no multiple of {spec.multiple_of}. Use {better}.")
    check_views(options.tta, spec, tuple(window))
    check_passes(options.uncertainty, len(views(options.tta, spec)) * max(1, len(spec.members)))
    if options.adaptive and (options.blending or spec.blending) == "crop":
        raise OptionsError('Adaptive overlap averages tiles, blending "crop" does not. Use blending "gaussian", or no adaptive overlap.')
    overlap = spec.overlap if options.overlap is None else options.overlap
    if options.adaptive and options.overlap is None:
        overlap = FIRST_OVERLAP
    return Recipe(
        window=tuple(window),
        overlap=overlap,
        steps="even" if options.adaptive else spec.steps,
        blending=options.blending or spec.blending,
        sigma=options.sigma if "sigma" in options.model_fields_set else spec.sigma,
        padding=options.padding or spec.padding,
        output_offset=spec.output_offset,
        from_end=tuple(axis in spec.from_end for axis in spec.spatial_axes),
        multiples=spec.pooling or (spec.multiple_of,) * spec.spatial_ndim,
    )


def _text(window: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in window)
