"""What a MONAI bundle does to an image before the network, in the engine's own terms."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.loaders.monai_bundle.expression import Component
from napari_tileseg.models.loaders.strange import STRANGE
from napari_tileseg.models.spec import NormalizationStep

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["Preparation", "listed", "plain_name", "prepare", "value_of"]

_NOTHING = frozenset(
    {
        "EnsureChannelFirst",
        "AddChannel",
        "AsChannelFirst",
        "EnsureType",
        "ToTensor",
        "ToDevice",
        "Identity",
        "DeleteItems",
        "SelectItems",
        "SqueezeDim",
    }
)
"""Transforms that change how an image is held, not its values."""

_TYPES = ("float32", "float64", "float16", "float", "None")


@dataclass
class Preparation:
    """What is done to the image.

    Parameters
    ----------
    reversed : bool
        Whether the network knows axes as X, Y, Z: all readers but NumPy's give them so.
    orientation : str
        Where its axes lead, in the network's order: ``"RAS"``.
    pixdim : tuple of float or None
        Pixel size in the network's order, in millimetres.
    order : int
        Of the interpolation: 0 nearest, 1 linear.
    steps : list of NormalizationStep
        What is done to the values.
    before : bool
        Whether that happens after the image was resampled.
    """

    reversed: bool = True
    orientation: str = ""
    pixdim: tuple[float, ...] | None = None
    order: int = 1
    steps: list[NormalizationStep] = field(default_factory=list)
    before: bool = True
    pads: list[tuple[int, ...]] = field(default_factory=list)


def listed(value: Any, what: str) -> list[Component]:
    """Return the transforms of a ``Compose``, one inside another included.

    Raises
    ------
    ModelError
        If it is something else.
    """
    if isinstance(value, Component) and value.name == "Compose":
        value = value.arguments.get("transforms", [])
    if isinstance(value, Component):
        value = [value]
    if not isinstance(value, list | tuple) or not all(isinstance(part, Component) or part is None for part in value):
        raise ModelError(f"The bundle's {what} is no list of transforms. Get the model again.")
    found: list[Component] = []
    for part in value:
        if part is not None:
            found += listed(part, what) if part.name == "Compose" else [part]
    return found


def plain_name(transform: Component) -> str:
    """Return a transform's name without the ending that says it works on dictionaries."""
    name = transform.name
    for ending in ("Dict", "D", "d"):
        if name.endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def value_of(transform: Component, name: str, key: str, default: Any = None) -> Any:
    """Return an argument of a transform for one key, where each key may have its own."""
    value = transform.arguments.get(name, default)
    keys = transform.arguments.get("keys")
    if isinstance(keys, list | tuple) and isinstance(value, list | tuple) and len(value) == len(keys) and key in keys:
        return value[list(keys).index(key)]
    return value


def prepare(transforms: Sequence[Component], key: str, without: Collection[str] = ()) -> Preparation:
    """Read the preprocessing.

    Parameters
    ----------
    transforms : sequence of Component
        In order.
    key : str
        Of the image among what the transforms work on.
    without : collection of str
        Transforms that are to be left out.

    Raises
    ------
    ModelError
        If a transform cannot be done as it is meant; the sentence names it.
    """
    found = Preparation()
    for transform in transforms:
        keys = transform.arguments.get("keys", key)
        if key not in ([keys] if isinstance(keys, str) else keys) or {transform.name, plain_name(transform)} & set(without):
            continue
        try:
            _take(found, transform, plain_name(transform), key)
        except STRANGE as error:
            raise _refusal(transform, f"has arguments that are not understood ({printable(str(error))})") from None
    return found


def _take(found: Preparation, transform: Component, name: str, key: str) -> None:
    arguments = transform.arguments
    if name == "LoadImage":
        reader = arguments.get("reader")
        reader = reader.name if isinstance(reader, Component) else reader
        if str(reader) == "WSIReader":
            raise _refusal(transform, "reads whole slides by itself")
        found.reversed = str(reader).lower() != "numpyreader"
    elif name == "CastToType" or (name == "EnsureType" and arguments.get("dtype") is not None):
        dtype = str(value_of(transform, "dtype", key))
        if dtype.removeprefix("torch.") not in _TYPES:
            raise _refusal(transform, f"rounds values to {printable(dtype)}")
    elif name in _NOTHING:
        return
    elif name == "Orientation":
        _orientation(found, transform)
    elif name == "Spacing":
        _spacing(found, transform, key)
    elif name in ("SpatialPad", "DivisiblePad"):
        _pad(found, transform, name)
    elif name in _VALUES:
        try:
            found.steps += _VALUES[name](arguments)
        except ValidationError as error:
            raise _refusal(transform, str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")) from None
    else:
        raise _refusal(transform, f"is not among those that can be done: {', '.join(sorted([*_VALUES, 'Orientation', 'Spacing']))}")


def _orientation(found: Preparation, transform: Component) -> None:
    codes = transform.arguments.get("axcodes")
    if transform.arguments.get("as_closest_canonical"):
        codes = "RAS"
    if isinstance(codes, list | tuple):
        codes = "".join(str(code) for code in codes)
    if not isinstance(codes, str) or len(codes) != 3 or found.pixdim is not None:
        raise _refusal(transform, "names no three directions, or comes after Spacing")
    found.orientation = codes.upper()


def _spacing(found: Preparation, transform: Component, key: str) -> None:
    arguments = transform.arguments
    pixdim = arguments.get("pixdim")
    pixdim = [pixdim] if isinstance(pixdim, int | float) else pixdim
    if not isinstance(pixdim, list | tuple) or not all(isinstance(size, int | float) and size > 0 for size in pixdim):
        raise _refusal(transform, "does not give a positive pixel size along each axis")
    mode = str(value_of(transform, "mode", key, "bilinear"))
    if mode not in ("bilinear", "nearest", "trilinear"):
        raise _refusal(transform, f'interpolates in the way "{printable(mode)}"; bilinear and nearest can be done')
    if str(value_of(transform, "padding_mode", key, "border")) != "border":
        raise _refusal(transform, "sees something else than the last pixel beyond the border")
    for name in ("diagonal", "scale_extent", "align_corners", "min_pixdim", "max_pixdim", "ensure_same_shape"):
        default = name == "ensure_same_shape"
        if value_of(transform, name, key, default) not in (None, default, False):
            raise _refusal(transform, f"has {name} set")
    found.before = not found.steps
    if found.steps and found.pixdim is None:
        found.before = False
    found.pixdim, found.order = tuple(float(size) for size in pixdim), 0 if mode == "nearest" else 1


def _pad(found: Preparation, transform: Component, name: str) -> None:
    size = transform.arguments.get("spatial_size")
    plain = transform.arguments.get("mode", "constant") == "constant" and transform.arguments.get("method", "symmetric") == "symmetric"
    if name != "SpatialPad" or not plain or not isinstance(size, list | tuple):
        raise _refusal(transform, "pads the image in another way than the windows do")
    found.pads.append(tuple(int(side) for side in size))


def _range(arguments: dict[str, Any]) -> list[NormalizationStep]:
    low, high = float(arguments["a_min"]), float(arguments["a_max"])
    return _between([NormalizationStep(kind="linear", offset=(low,), scale=(high - low,))], arguments)


def _between(steps: list[NormalizationStep], arguments: dict[str, Any]) -> list[NormalizationStep]:
    """Bring values from 0 and 1 to `b_min` and `b_max`, and clip them there."""
    low, high = arguments.get("b_min"), arguments.get("b_max")
    if low is not None and high is not None and (low, high) != (0, 1):
        scale = 1 / (float(high) - float(low))
        steps.append(NormalizationStep(kind="linear", offset=(-float(low) * scale,), scale=(scale,)))
    if arguments.get("clip"):
        steps.append(NormalizationStep(kind="clip", low=low, high=high))
    return steps


def _percentiles(arguments: dict[str, Any]) -> list[NormalizationStep]:
    if arguments.get("relative"):
        raise ValueError("relative")
    lower, upper = float(arguments["lower"]), float(arguments["upper"])
    step = NormalizationStep(kind="percentiles", lower=lower, upper=upper, joint=not arguments.get("channel_wise", False))
    return _between([step], arguments)


def _intensity(arguments: dict[str, Any]) -> list[NormalizationStep]:
    if arguments.get("factor") is not None:
        raise ValueError("factor")
    low, high = arguments.get("minv", 0.0), arguments.get("maxv", 1.0)
    step = NormalizationStep(kind="percentiles", lower=0.0, upper=100.0, joint=not arguments.get("channel_wise", False))
    return _between([step], {"b_min": low, "b_max": high})


def _normalize(arguments: dict[str, Any]) -> list[NormalizationStep]:
    nonzero, wise = bool(arguments.get("nonzero", False)), bool(arguments.get("channel_wise", False))
    mean, deviation = arguments.get("subtrahend"), arguments.get("divisor")
    if mean is None and deviation is None:
        return [NormalizationStep(kind="mean_std", joint=not wise, nonzero=nonzero)]
    if mean is None or deviation is None:
        raise ValueError("subtrahend without divisor, or the other way round")
    means, scales = _several(mean), tuple(number or 1.0 for number in _several(deviation))
    return [NormalizationStep(kind="linear", offset=means, scale=scales, nonzero=nonzero)]


def _several(value: Any) -> tuple[float, ...]:
    return tuple(float(number) for number in value) if isinstance(value, list | tuple) else (float(value),)


def _threshold(arguments: dict[str, Any]) -> list[NormalizationStep]:
    limit, above, value = float(arguments["threshold"]), arguments.get("above", True), float(arguments.get("cval", 0.0))
    if value != limit:
        raise ValueError("cval")
    return [NormalizationStep(kind="clip", **{"low" if above else "high": limit})]


_VALUES = {
    "ScaleIntensityRange": _range,
    "ScaleIntensityRangePercentiles": _percentiles,
    "ScaleIntensity": _intensity,
    "NormalizeIntensity": _normalize,
    "ThresholdIntensity": _threshold,
}
"""Transforms of values."""


def _refusal(transform: Component, why: str) -> ModelError:
    return ModelError(
        f"The bundle's preprocessing has {printable(transform.name)}, which {why}. "
        f"Change the bundle, or leave the step out: monai:PATH?without={printable(transform.name)}."
    )
