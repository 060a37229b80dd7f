"""``Recipe``: how this run is tiled, decided from what the model says and what the user wants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_tileseg.engine.checks import check_labels
from napari_tileseg.engine.tiles import TilePlan, plan_tiles
from napari_tileseg.engine.views import check_passes, check_views, views
from napari_tileseg.errors import OptionsError
from napari_tileseg.models.sides import next_side

if TYPE_CHECKING:
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["FIRST_OVERLAP", "Recipe", "resolve"]

FIRST_OVERLAP = 0.1
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
    strides: tuple[int, ...] = ()

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
            strides=self.strides,
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
        If the window does not suit the model, or the turns, the uncertainty or anything else that is asked for.
    """
    window = options.window or spec.window
    if len(window) != spec.spatial_ndim:
        raise OptionsError(
            f"Window {_text(window)} has {len(window)} sizes, the model's axes are {spec.spatial_axes}. Give one size for each."
        )
    if spec.fixed_window and tuple(window) != spec.window:
        raise OptionsError(f"Window {_text(window)} was given; {spec.label} takes tiles of {_text(spec.window)} only. Leave it open.")
    for axis, size, step in zip(spec.spatial_axes, window, spec.multiples, strict=True):
        if size % step != spec.remainder:
            where = f" along {axis}" if isinstance(spec.multiple_of, tuple) else ""
            plus = f" plus {spec.remainder}" if spec.remainder else ""
            raise OptionsError(f"Window {size}{where} is no multiple of {step}{plus}. Use {next_side(size, step, spec.remainder)}.")
    check_labels(spec, options)
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
        blending="seam" if spec.output == "labels" else options.blending or spec.blending,
        sigma=options.sigma if "sigma" in options.model_fields_set else spec.sigma,
        padding=options.padding or spec.padding,
        output_offset=spec.output_offset,
        from_end=tuple(axis in spec.from_end for axis in spec.spatial_axes),
        strides=spec.multiples,
    )


def _text(window: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in window)
