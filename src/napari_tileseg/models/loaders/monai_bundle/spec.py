"""From a MONAI bundle to the card of a model."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.loaders.monai_bundle.answers import Answer, read_answer
from napari_tileseg.models.loaders.monai_bundle.architecture import STATE, known_architecture
from napari_tileseg.models.loaders.monai_bundle.expression import Component
from napari_tileseg.models.loaders.monai_bundle.transforms import Preparation, listed, prepare
from napari_tileseg.models.resampling import Interpolation, Resampling
from napari_tileseg.models.spec import ModelSpec, Normalization

if TYPE_CHECKING:
    from napari_tileseg.models.loaders.monai_bundle.bundle import Bundle

__all__ = ["image_key", "preparation_of", "spec_of", "threshold_of"]

_TOLERANCE = 1e-3
"""Millimetres by which MONAI takes pixel sizes for equal."""


def spec_of(bundle: Bundle, *, without: str = "") -> ModelSpec:
    """Return the card.

    Parameters
    ----------
    without : str
        Names of transforms that are left out, with commas between them.

    Raises
    ------
    ModelError
        If a part of the bundle cannot be done as it is meant; the sentence names it.
    TrustError
        If a part that is needed here could run code.
    """
    left_out = _names(without)
    preparation, answer = preparation_of(bundle, without=without), _answer(bundle, left_out)
    tiling = _tiling(bundle)
    ndim = len(tiling["window"])
    network = bundle.config.get("network_def") if "network_def" in bundle.config else None
    arguments = network.arguments if isinstance(network, Component) else {}
    # A mask from another threshold on is a shift of the scores, which no network of a name has.
    own = bundle.has(STATE) and answer.threshold == 0.5
    data = bundle.metadata.get("network_data_format")
    channels, classes, unknown = _channels(data, arguments, answer)
    if preparation.reversed:
        tiling["window"] = tiling["window"][::-1]
    if any(any(side > size for side, size in zip(pad, tiling["window"][::-1], strict=False)) for pad in preparation.pads):
        raise ModelError("The bundle's preprocessing has SpatialPad, which pads the image beyond the window. Change the bundle.")
    if not answer.output:
        unknown.append("output")
        answer.output = "softmax" if len(classes) > 1 else "sigmoid"
    multiple, said = _multiple(data, tiling["window"])
    if not said:
        unknown.append("multiple_of")
    metadata = bundle.metadata
    try:
        return ModelSpec(
            name=_identifier(str(metadata.get("name") or bundle.path.name.removesuffix(".zip"))),
            title=printable(str(metadata.get("name") or bundle.path.name)),
            description=" ".join(str(metadata.get("description") or metadata.get("task") or "").split())[:1000],
            version=str(metadata.get("version", "1")),
            **(known_architecture(network, ndim, reversed=preparation.reversed) if own and isinstance(network, Component) else {}),
            axes="CYX" if ndim == 2 else "CZYX",
            channels=channels,
            normalization=Normalization(kind="steps", steps=tuple(preparation.steps)) if preparation.steps else Normalization(),
            multiple_of=multiple,
            output=answer.output,
            classes=classes,
            licence=_licence(bundle),
            attribution=str(metadata.get("authors", "")),
            citation="\n".join(str(reference) for reference in metadata.get("references") or []),
            unknown=unknown,
            training={"source": f"MONAI bundle {metadata.get('version', '')}".strip(), "remarks": _remarks(preparation, answer, left_out)},
            **_grids(preparation, answer, ndim),
            **tiling,
        )
    except ValidationError as error:
        reason = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        raise ModelError(f"{printable(bundle.path.name)} cannot be used: {reason}.") from None


def image_key(bundle: Bundle) -> str:
    """Return what the image is called among the data."""
    data = bundle.metadata.get("network_data_format")
    inputs = data.get("inputs") if isinstance(data, dict) else None
    if isinstance(inputs, dict) and len(inputs) > 1:
        names = ", ".join(printable(str(name)) for name in inputs)
        raise ModelError(f"The bundle takes {len(inputs)} inputs ({names}); models of one image can be used.")
    return str(next(iter(inputs))) if isinstance(inputs, dict) and inputs else "image"


def preparation_of(bundle: Bundle, *, without: str = "") -> Preparation:
    """Read the preprocessing."""
    return prepare(listed(bundle.config.get("preprocessing"), "preprocessing"), image_key(bundle), _names(without))


def threshold_of(bundle: Bundle, *, without: str = "") -> float:
    """Return the least probability of a mask."""
    return _answer(bundle, _names(without)).threshold


def _answer(bundle: Bundle, without: frozenset[str]) -> Answer:
    if "postprocessing" not in bundle.config:
        return Answer()
    return read_answer(listed(bundle.config.get("postprocessing"), "postprocessing"), "pred", without)


def _names(without: str) -> frozenset[str]:
    return frozenset(name.strip() for name in without.split(",") if name.strip())


def _tiling(bundle: Bundle) -> dict[str, Any]:
    inferer = bundle.config.get("inferer")
    if not isinstance(inferer, Component) or inferer.name not in ("SlidingWindowInferer", "SlidingWindowInfererAdapt"):
        name = inferer.name if isinstance(inferer, Component) else type(inferer).__name__
        raise ModelError(f"The bundle's inferer is {printable(name)}; SlidingWindowInferer can be used. Change the bundle.")
    given = inferer.arguments
    window = given.get("roi_size")
    if not isinstance(window, list | tuple) or len(window) not in (2, 3) or not all(isinstance(side, int) and side > 0 for side in window):
        raise ModelError(f"The bundle's inferer has roi_size {printable(str(window))}; two or three positive sizes can be used.")
    overlap, sigma = _same(given.get("overlap", 0.25), "overlap"), _same(given.get("sigma_scale", 0.125), "sigma_scale")
    mode = str(given.get("mode", "constant")).rpartition(".")[2].lower()
    padding = str(given.get("padding_mode", "constant")).rpartition(".")[2].lower()
    if mode not in ("constant", "gaussian"):
        raise ModelError(f"The bundle's inferer joins windows in the mode {printable(mode)}; constant and gaussian can be used.")
    if padding not in ("constant", "reflect") or (padding == "constant" and given.get("cval", 0.0) != 0) or given.get("with_coord"):
        raise ModelError("The bundle's inferer pads images in a way that cannot be done here; zeros and reflect can. Change the bundle.")
    blending = {"overlap": overlap, "sigma": sigma, "blending": mode, "padding": "zeros" if padding == "constant" else "reflect"}
    return {"window": tuple(window), "steps": "fixed", **blending}


def _same(value: Any, name: str) -> float:
    numbers = list(value) if isinstance(value, list | tuple) else [value]
    if not numbers or any(number != numbers[0] for number in numbers) or not isinstance(numbers[0], int | float):
        raise ModelError(f"The bundle's inferer has {name} {printable(str(value))}; one number for all axes can be used.")
    return float(numbers[0])


def _grids(preparation: Preparation, answer: Answer, ndim: int) -> dict[str, Any]:
    turn = slice(None, None, -1) if preparation.reversed else slice(None)
    found: dict[str, Any] = {}
    if preparation.orientation:
        if ndim != 3:
            raise ModelError("The bundle turns images by Orientation, but its windows have two axes. Change the bundle.")
        found["orientation"] = preparation.orientation[turn]
    if preparation.pixdim is not None:
        sizes = preparation.pixdim * ndim if len(preparation.pixdim) == 1 else preparation.pixdim
        if len(sizes) < ndim:
            raise ModelError(f"The bundle's Spacing names {len(sizes)} pixel sizes for {ndim} axes. Change the bundle.")
        scores = Interpolation(order=1, antialias=False) if answer.back == "scores" else None
        found["spacing"] = sizes[:ndim][turn]
        found["spacing_unit"] = "millimeter"
        found["resampling"] = Resampling(
            tolerance=_TOLERANCE / max(sizes),
            anchor="points",
            before=preparation.before,
            image=Interpolation(order=0 if preparation.order == 0 else 1, antialias=False),
            scores=scores,
            probabilities=scores is not None and answer.activated,
        )
    return found


def _channels(data: Any, arguments: dict[str, Any], answer: Answer) -> tuple[list[str], list[str], list[str]]:
    """Return names of input channels and classes, and which of the two are not known."""
    unknown = []
    taken, given = _definition(data, "inputs"), _definition(data, "outputs")
    count = _count(arguments, "in_channels") or _number(data, "inputs") or len(taken) or 1
    channels = [taken.get(index) or f"channel {index + 1}" for index in range(count)]
    if count > 1 and len(taken) < count:
        unknown.append("channels")
    count = _count(arguments, "out_channels") or _count(arguments, "num_classes") or _number(data, "outputs") or len(given)
    if not count:
        raise ModelError("The bundle does not say how many classes its network tells apart. Add a channel_def to its metadata.")
    first = ["background"] if answer.output == "softmax" else ["class 1"]
    fallback = [*first, *(f"class {index + (answer.output != 'softmax')}" for index in range(1, count))]
    if len(given) < count:
        unknown.append("classes")
    return channels, [given.get(index) or fallback[index] for index in range(count)], unknown


def _count(arguments: dict[str, Any], name: str) -> int:
    value = arguments.get(name)
    return value if isinstance(value, int) and 0 < value <= 4096 else 0


def _format(data: Any, side: str) -> dict[str, Any]:
    tensors = data.get(side) if isinstance(data, dict) else None
    first = next(iter(tensors.values()), None) if isinstance(tensors, dict) else None
    return first if isinstance(first, dict) else {}


def _number(data: Any, side: str) -> int:
    value = _format(data, side).get("num_channels")
    return value if isinstance(value, int) and 0 < value <= 4096 else 0


def _definition(data: Any, side: str) -> dict[int, str]:
    names = _format(data, side).get("channel_def")
    if not isinstance(names, dict):
        return {}
    return {int(key): printable(str(name)) for key, name in names.items() if str(key).isdecimal() and int(key) < 4096}


def _multiple(data: Any, window: tuple[int, ...]) -> tuple[int, bool]:
    """Return what sides must be multiples of, and whether the bundle says so; else the largest power of two up to 32 that fits."""
    shape = _format(data, "inputs").get("spatial_shape")
    said = [int(match[1]) for side in shape if (match := re.fullmatch(r"(\d{1,3}) ?\* ?n", str(side)))] if isinstance(shape, list) else []
    if said and min(said) > 0 and all(size % math.lcm(*said) == 0 for size in window):
        return math.lcm(*said), True
    return math.gcd(32, *window), False


def _licence(bundle: Bundle) -> str:
    given = bundle.metadata.get("license") or bundle.metadata.get("licence")
    if given:
        return printable(str(given))
    text = next((found for name in ("LICENSE", "docs/license.txt", "docs/LICENSE") if (found := bundle.text(name))), "")
    return "Apache-2.0" if "Apache License" in text and "Version 2.0" in text else ""


def _remarks(preparation: Preparation, answer: Answer, without: frozenset[str]) -> list[str]:
    remarks = [f"{printable(name)} is left out, as its reference says." for name in sorted(without)]
    if preparation.pixdim is not None and answer.back == "labels":
        remarks.append("Labels come back from the nearest pixel. Halfway between two, single pixels may differ from MONAI's.")
    if preparation.pixdim is not None and not answer.back:
        remarks.append("The bundle leaves its labels on the grid of its network; here they are brought back to the image.")
    remarks.append("It runs in float32 unless the precision is set to auto, whatever amp says in the bundle.")
    return remarks


def _identifier(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:80] or "bundle"
