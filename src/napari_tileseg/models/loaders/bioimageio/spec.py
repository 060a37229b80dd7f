"""From a BioImage.IO description to the card of a model."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import ValidationError

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.loaders.allowed import harmless, known_network
from napari_tileseg.models.loaders.bioimageio.arrays import read_array
from napari_tileseg.models.loaders.bioimageio.steps import normalization, pointwise
from napari_tileseg.models.loaders.bioimageio.tensors import FORMATS
from napari_tileseg.models.spec import ModelSpec, NormalizationStep

if TYPE_CHECKING:
    from napari_tileseg.models.loaders.bioimageio.description import Package
    from napari_tileseg.models.loaders.bioimageio.tensors import Axis, Description, Tensor, Weights

__all__ = ["Meaning", "by_risk", "image_tensors", "meaning_of", "spec_of"]

_SIDE = {2: 512, 3: 96}
"""About how long the side of a window is where the description allows several, by the number of axes of space."""

_UNITS = {
    **{"micrometer": 1.0, "micrometre": 1.0, "micron": 1.0, "um": 1.0, "µm": 1.0},
    **{"nanometer": 1e-3, "millimeter": 1e3, "centimeter": 1e4, "angstrom": 1e-4},
}


@dataclass(frozen=True)
class Meaning:
    """What the channels of the output are.

    Parameters
    ----------
    output : str
        "softmax" or "sigmoid".
    scores : str
        What the network's numbers are: "logits", "probabilities", or "shifted" (less than a threshold, which becomes 0).
    steps : tuple of NormalizationStep or str
        What is done to them before; ``"softmax"`` is one over the channels.
    threshold : tuple of float
        What the numbers are compared with where they are "shifted".
    known : bool
        Whether the description says so; otherwise the values of the test output do, or nothing does.
    """

    output: str
    scores: str
    steps: tuple[NormalizationStep | str, ...] = ()
    threshold: tuple[float, ...] = (0.5,)
    known: bool = True


def image_tensors(description: Description) -> tuple[Tensor, Tensor]:
    """Return the one input and the output that is used: the first one on a grid of pixels.

    Raises
    ------
    ModelError
        If there are several inputs, or no output has the input's axes of space.
    """
    if len(description.inputs) != 1:
        names = ", ".join(printable(tensor.name) for tensor in description.inputs)
        raise ModelError(f"The model takes {len(description.inputs)} inputs ({names}); models of one input can be used.")
    given = description.inputs[0]
    space = "".join(axis.letter for axis in given.space)
    if space not in ("YX", "ZYX"):
        raise ModelError(f"The model's input has the axes {given.letters.lower()}; images need y and x, and z for volumes.")
    for tensor in (given, *description.outputs):
        odd = next((axis.letter for axis in tensor.axes if axis.letter in "TI" and axis.least != 1), None)
        if odd is not None and tensor is given:
            raise ModelError(f"The model's input has the axis {odd.lower()}; batch, channel, z, y and x can be used.")
    fitting = (tensor for tensor in description.outputs if "".join(axis.letter for axis in tensor.space) == space)
    output = next(fitting, None)
    if output is None:
        names = ", ".join(printable(tensor.name) for tensor in description.outputs)
        raise ModelError(f"None of the model's outputs ({names}) is an image with the axes {space.lower()}, so it gives no labels.")
    return given, output


def spec_of(package: Package) -> ModelSpec:
    """Return the card.

    Raises
    ------
    ModelError
        If the model cannot be used as it is described; the sentence says why.
    """
    description = package.description
    given, output = image_tensors(description)
    meaning = meaning_of(package, output)
    window, multiple, fixed = _window(given)
    halo, lost = _border(given, output)
    unknown = [] if meaning.known else ["output"]
    channels, classes = _names(given, "C"), _names(output, "C")
    if output.axis("C") is None or (len(classes) == 1 and classes[0] == "channel 1"):
        classes = ["foreground"]
    if len(set(classes)) == 1 or all(re.fullmatch(r"channel ?\d+", name) for name in classes):
        unknown.append("classes")
    spacing = _spacing(given)
    remarks = _remarks(description, output)
    if halo is not None and any(halo):
        overlap = max((2 * lost_pixels + 0.5) / size for lost_pixels, size in zip(halo, window, strict=True))
    else:
        overlap = 0.0
    if overlap >= 1:
        raise ModelError(f"The model's halo is {halo}, more than half of its window {window}. Get the model again.")
    try:
        return ModelSpec(
            name=_identifier(description.name),
            title=printable(description.name),
            description=" ".join(description.text.split())[:1000],
            version=description.version,
            **_network(description, given, output, meaning),
            axes="CYX" if len(given.space) == 2 else "CZYX",
            channels=channels,
            normalization=normalization(given),
            spacing=spacing,
            spacing_unit="micrometer",
            window=window,
            multiple_of=multiple,
            fixed_window=fixed,
            overlap=overlap,
            blending="crop",
            output_offset=lost if any(lost) else None,
            output=meaning.output,
            classes=classes,
            licence=description.licence,
            attribution=", ".join(description.authors),
            citation="\n".join(description.citations),
            unknown=unknown,
            training={
                "source": f"BioImage.IO {description.version}",
                **({"id": description.identifier} if description.identifier else {}),
                "weights": [FORMATS[entry.kind] for entry in description.weights],
                **({"remarks": remarks} if remarks else {}),
            },
        )
    except ValidationError as error:
        reason = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        raise ModelError(f"{printable(description.name)} cannot be used: {reason}.") from None


def _network(description: Description, given: Tensor, output: Tensor, meaning: Meaning) -> dict[str, Any]:
    """Return the fields of the card that name the network, where nothing stands between it and the engine."""
    first = next(iter(by_risk(description)), None)
    made = first.architecture if first is not None and first.kind == "pytorch_state_dict" else None
    if made is None or made.file or (name := known_network(f"{made.module}.{made.name}")) is None:
        return {}
    space = "YX" if len(given.space) == 2 else "ZYX"
    straight = given.letters == output.letters == f"BC{space}" and output is description.outputs[0] and given.dtype == "float32"
    if not straight or meaning.scores != "logits" or meaning.steps:
        return {}
    try:
        return {"architecture": name, "arguments": harmless(made.arguments)}
    except ModelError:
        return {}  # which is said where it is loaded


def by_risk(description: Description) -> list[Weights]:
    """Return the weights that can be read, in the order in which they are tried: what runs no code first."""

    def risk(weights: Weights) -> int:
        from_file = weights.architecture is not None and bool(weights.architecture.file)
        return {"pytorch_state_dict": 2 if from_file else 0, "onnx": 1, "torchscript": 3}[weights.kind]

    return sorted(description.weights, key=risk)


def meaning_of(package: Package, output: Tensor) -> Meaning:
    """Decide what the output's channels are, from the steps after the network, its range, and its test output.

    Raises
    ------
    ModelError
        If a step cannot be taken, or the output holds labels instead of scores.
    """
    steps = pointwise(output)
    if output.dtype not in ("float16", "float32", "float64") and not steps:
        raise ModelError(
            f'The model\'s output "{printable(output.name)}" is of the type {printable(output.dtype)}: '
            "labels, not scores, and tiles of labels cannot be joined. Export the model without its last step."
        )
    last = steps[-1] if steps else None
    if isinstance(last, NormalizationStep):
        if last.kind == "binarize":
            return Meaning("sigmoid", "shifted", tuple(steps[:-1]), last.threshold)
        if last.kind == "sigmoid":
            return Meaning("sigmoid", "logits", tuple(steps[:-1]))
    if last == "softmax":
        channels = output.axis("C")
        if channels is not None and len(channels.names) == 1:
            raise ModelError("The model takes the softmax of a single channel, which is 1 everywhere. Get the model again.")
        return Meaning("softmax", "logits", tuple(steps[:-1]))
    low, high = output.span
    told = low is not None and high is not None and low >= 0 and high <= 1
    values = _test_values(package, output)
    if values is not None and not (values.min() >= 0 and values.max() <= 1):
        return Meaning("sigmoid", "logits", tuple(steps), known=False)
    if told or values is not None:
        place = output.letters.find("C")
        if values is not None and place >= 0 and values.shape[place] > 1 and np.allclose(values.sum(axis=place), 1, atol=1e-3):
            return Meaning("softmax", "probabilities", tuple(steps))
        return Meaning("sigmoid", "probabilities", tuple(steps), known=told)
    return Meaning("sigmoid", "logits", tuple(steps), known=False)


def _test_values(package: Package, output: Tensor) -> Any:
    """Return the output's test values; None where there are none that can be read."""
    if not output.test:
        return None
    try:
        values = read_array(package.file(output.test))
    except ModelError:
        return None
    return values if values.ndim == len(output.axes) and values.size and np.isfinite(values).all() else None


def _window(given: Tensor) -> tuple[tuple[int, ...], tuple[int, ...], bool]:
    """Return the window, what its sides must be multiples of, and whether no other one will do."""
    side = _SIDE[len(given.space)]
    window = []
    for axis in given.space:
        if axis.least < 1:
            raise ModelError(f"The description gives no size for the axis {axis.letter.lower()} of the input. Get the model again.")
        window.append(axis.least + axis.step * max(0, math.ceil((side - axis.least) / axis.step)) if axis.step else axis.least)
    if max(window) > 1 << 14:
        raise ModelError(f"The model's tiles have {max(window)} pixels on a side; 16384 are accepted.")
    if not any(axis.step for axis in given.space):
        return tuple(window), (1,) * len(window), True
    return tuple(window), tuple(math.gcd(size, axis.step) for size, axis in zip(window, given.space, strict=True)), False


def _border(given: Tensor, output: Tensor) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the halo to throw away, and what the network itself loses at each side."""
    halos, lost = [], []
    for before, after in zip(given.space, output.space, strict=True):
        if after.least and not before.step:  # both sizes are fixed
            missing = (before.least - after.least) / 2
        elif after.least:
            raise ModelError(f"The output always has {after.least} pixels along {after.letter.lower()}, whatever the input has.")
        else:
            missing = -after.offset
        if not math.isclose(after.factor, 1.0) or missing < 0 or missing != int(missing):
            raise ModelError(
                f"The output has another pixel size than the input along {after.letter.lower()}, "
                "or more pixels than it, so its labels would not lie on the image. Such models cannot be used."
            )
        halos.append(after.halo)
        lost.append(int(missing))
    return tuple(halos), tuple(lost)


def _spacing(given: Tensor) -> tuple[float, ...] | None:
    """Return the pixel size in micrometres, where all axes name a unit of length."""
    factors = [_UNITS.get(axis.unit.lower()) for axis in given.space]
    if any(factor is None for factor in factors):
        return None
    return tuple(axis.scale * factor for axis, factor in zip(given.space, factors, strict=True) if factor is not None)


def _names(tensor: Tensor, letter: str) -> list[str]:
    axis: Axis | None = tensor.axis(letter)
    if axis is None:
        return ["intensity"]
    names = [printable(name) or f"channel {index + 1}" for index, name in enumerate(axis.names)]
    if not names:
        raise ModelError(f'The tensor "{printable(tensor.name)}" does not say how many channels it has. Get the model again.')
    return names


def _remarks(description: Description, output: Tensor) -> list[str]:
    remarks = []
    if len(description.outputs) > 1:
        others = ", ".join(printable(tensor.name) for tensor in description.outputs if tensor is not output)
        remarks.append(f'The output "{printable(output.name)}" is used; the others ({others}) are not.')
    if description.other_weights:
        remarks.append(f"Its weights for {', '.join(printable(kind) for kind in description.other_weights)} are not used.")
    return remarks


def _identifier(name: str) -> str:
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")[:80]
    return text or "model"
