"""What the Segment form holds, as data, and what follows from it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from napari_tileseg.engine.axes import guess_axes, map_axes
from napari_tileseg.errors import OptionsError, TileSegError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.units import unit_symbol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_tileseg.models.spec import ModelSpec

__all__ = [
    "Choices",
    "ImageFacts",
    "Settings",
    "changes",
    "default_channels",
    "default_settings",
    "fits",
    "options_from",
    "parse_window",
    "pick_model",
    "results_words",
]


@dataclass(frozen=True)
class ImageFacts:
    """What must be known of an image before anything of it is read.

    Parameters
    ----------
    name : str
    shape : tuple of int
        Shape of the array, the colour axis included.
    rgb : bool
        The last axis holds colours.
    axis_labels : tuple of str
        What the layer calls its axes; one less than dimensions for RGB.
    spacing : tuple of float
        World length of one step along each axis of the layer (without the colour axis).
    units : tuple of str
        Unit of each axis of the layer.
    """

    name: str
    shape: tuple[int, ...]
    rgb: bool = False
    axis_labels: tuple[str, ...] = ()
    spacing: tuple[float, ...] = ()
    units: tuple[str, ...] = ()

    def guess(self, spec: ModelSpec | None) -> str:
        """Name the axes as far as that is safe; ``?`` stands where only the user can know."""
        return guess_axes(self.shape, rgb=self.rgb, axis_labels=self.axis_labels, spec=spec)

    def pixel(self, axes: str, spatial: str) -> tuple[float, str]:
        """Return area or volume of one pixel over the axes `spatial`, and its unit: ``(0.423, "µm²")``.

        Where the unit is not known, or differs between the axes, pixels are counted.
        """
        power = {2: "²", 3: "³"}[len(spatial)]
        places = [axes.index(axis) for axis in spatial if axis in axes]
        if len(places) < len(spatial) or max(places) >= len(self.spacing):
            return 1.0, "px"
        units = {self.units[place] for place in places}
        if len(units) != 1 or "pixel" in units:
            return 1.0, "px"
        unit = next(iter(units))
        return math.prod(abs(self.spacing[place]) for place in places), unit_symbol(unit) + power


@dataclass(frozen=True)
class Settings:
    """The fields under Options, as the user sees them; ``min_size`` is in the image's unit."""

    window: str
    overlap: float
    blending: str
    precision: str = "exact"
    threshold: float = 0.5
    min_size: float = 0.0
    rescale: bool = True
    tta: str = ""
    sigma: float = 0.125
    padding: str = "zeros"
    adaptive: bool = False
    skip_background: bool = False


@dataclass(frozen=True)
class Choices:
    """Everything the form holds, layers aside."""

    model: str
    axes: str
    settings: Settings
    channels: tuple[int, ...] | None = None
    device: str = "auto"
    region: str = "whole"
    scores: bool = False
    uncertainty: str = ""
    objects: bool = False
    keep: str = "auto"


def default_settings(spec: ModelSpec) -> Settings:
    """Return what the model says."""
    return Settings(
        window=", ".join(str(size) for size in spec.window),
        overlap=spec.overlap,
        blending=spec.blending,
        tta=spec.tta or "",
        sigma=spec.sigma,
        padding=spec.padding,
    )


def changes(settings: Settings, defaults: Settings, *, unit: str = "px") -> str:
    """Say which options differ from the model's: ``"window 512, 512, overlap 0.25"``."""
    words = {
        "window": f"window {settings.window}",
        "overlap": f"overlap {settings.overlap:.2f}",
        "blending": settings.blending,
        "precision": "fast" if settings.precision == "auto" else "exact",
        "threshold": f"threshold {settings.threshold:.2f}",
        "min_size": f"min. size {settings.min_size:g} {unit}",
        "rescale": "pixel size not matched",
        "tta": {"": "no flips", "flips": "flips averaged", "rotations": "flips and turns averaged"}[settings.tta],
        "sigma": f"sigma {settings.sigma:g}",
        "padding": "mirrored at the border" if settings.padding == "reflect" else "zeros at the border",
        "adaptive": "adaptive overlap",
        "skip_background": "background skipped",
    }
    changed = [words[item.name] for item in fields(Settings) if not _same(getattr(settings, item.name), getattr(defaults, item.name))]
    return ", ".join(changed) or "as the model says"


def results_words(choices: Choices) -> str:
    """Say what a run will leave: ``"labels, scores"``."""
    words = ["labels"] + ["scores"] * choices.scores + ["uncertainty"] * bool(choices.uncertainty) + ["objects table"] * choices.objects
    kept = {"memory": "in memory", "disk": "on disk"}.get(choices.keep)
    return ", ".join(words + [kept] * bool(kept))  # type: ignore[list-item]  # None is left out by the multiplication


def parse_window(text: str, spec: ModelSpec) -> tuple[int, ...]:
    """Read a window: one number for all axes, or one for each.

    Raises
    ------
    OptionsError
        If it is no list of that many whole numbers.
    """
    parts = [part for part in re.split(r"[\s,;x×]+", text.strip()) if part]
    if not parts or not all(part.isdigit() and int(part) > 0 for part in parts):
        example = ", ".join(str(size) for size in spec.window)
        raise OptionsError(f'Window "{text}" is no list of whole numbers. Write for example {example}.')
    sizes = tuple(int(part) for part in parts)
    if len(sizes) == 1:
        sizes *= spec.spatial_ndim
    if len(sizes) != spec.spatial_ndim:
        axes = " ".join(spec.spatial_axes)
        numbers = f"Window {', '.join(parts)} has {len(sizes)} numbers"
        raise OptionsError(f"{numbers}; the model has the axes {axes}. Give one number, or {spec.spatial_ndim}.")
    return sizes


def options_from(choices: Choices, spec: ModelSpec, pixel: float = 1.0) -> SegmentOptions:
    """Make the options of a run; what equals the model's own value is left to the model.

    Parameters
    ----------
    choices : Choices
    spec : ModelSpec
    pixel : float
        Area or volume of one pixel in the unit of ``min_size``.

    Raises
    ------
    OptionsError
        One sentence about the first field that cannot be used.
    """
    settings, defaults = choices.settings, default_settings(spec)
    window = parse_window(settings.window, spec)
    values: dict[str, Any] = {
        "window": None if window == spec.window else window,
        "overlap": None if _same(settings.overlap, defaults.overlap) else round(settings.overlap, 4),
        "blending": None if settings.blending == defaults.blending else settings.blending,
        "precision": settings.precision,
        "device": choices.device,
        "threshold": round(settings.threshold, 4),
        "min_size": round(settings.min_size / pixel, 6),
        "rescale": settings.rescale,
        "tta": None if settings.tta == defaults.tta else settings.tta or False,
        "padding": None if settings.padding == defaults.padding else settings.padding,
        "adaptive": settings.adaptive,
        "skip_background": settings.skip_background,
        "scores": choices.scores,
        "uncertainty": choices.uncertainty or False,
    }
    if not _same(settings.sigma, defaults.sigma):
        values["sigma"] = round(settings.sigma, 4)
    return SegmentOptions.parse(**values)


def fits(spec: ModelSpec, facts: ImageFacts, *, whole: bool = True) -> bool:
    """Whether a model can take an image without asking anything.

    Parameters
    ----------
    spec : ModelSpec
    facts : ImageFacts
    whole : bool
        The model must see all of space at once: a 2D model does not fit a volume, although it could go through its planes.
    """
    try:
        axis_map = map_axes(facts.guess(spec), facts.shape, spec, channels=_first_channel(spec, facts))
    except TileSegError:
        return False
    return not (whole and "Z" in axis_map.iterated)


def pick_model(specs: Sequence[ModelSpec], facts: ImageFacts | None, last: str = "") -> ModelSpec | None:
    """Choose the model the form starts with: the last one that fits the image, else the first that fits, else the last one.

    Parameters
    ----------
    specs : sequence of ModelSpec
        The bundled ones first.
    facts : ImageFacts or None
        The image, if there is one.
    last : str
        Name of the model that ran last.
    """
    by_name: Mapping[str, ModelSpec] = {spec.name: spec for spec in specs}
    for whole in (True, False):
        fitting = [spec for spec in specs if facts is not None and fits(spec, facts, whole=whole)]
        if fitting:
            return next((spec for spec in fitting if spec.name == last), fitting[0])
    return by_name.get(last) or (specs[0] if specs else None)


def default_channels(spec: ModelSpec, available: int | None) -> tuple[int, ...] | None:
    """Return the channels to start with where the model cannot take all of them: the first ones."""
    needed = len(spec.channels)
    if available is None or available == needed or (available == 4 and needed == 3):
        return None
    if needed == 1 or spec.grey == "repeat":
        return (0,)
    if spec.grey == "fewer":
        return (0,) if available > needed else None
    return tuple(range(needed)) if available > needed else None


def _first_channel(spec: ModelSpec, facts: ImageFacts) -> tuple[int, ...] | None:
    axes = facts.guess(spec)
    return default_channels(spec, facts.shape[axes.index("C")] if "C" in axes else None)


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, float | int):
        return math.isclose(one, other, abs_tol=5e-5)
    return one == other
