"""The processing that a BioImage.IO description asks for, in the engine's own steps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.spec import Normalization, NormalizationStep

if TYPE_CHECKING:
    from napari_tileseg.models.loaders.bioimageio.tensors import Step, Tensor

__all__ = ["normalization", "pointwise"]

_FLOATS = ("float16", "float32", "float64")


def normalization(tensor: Tensor) -> Normalization:
    """Return what is done to the image before the network sees it.

    Raises
    ------
    ModelError
        If a step cannot be taken as it is meant; the sentence names the step.
    """
    found = [step for index, given in enumerate(tensor.steps) if (step := _before(given, tensor, first=index == 0)) is not None]
    return Normalization(kind="steps", steps=tuple(found)) if found else Normalization()


def pointwise(tensor: Tensor) -> list[NormalizationStep | str]:
    """Return what is done to the network's scores: steps, and ``"softmax"``.

    Raises
    ------
    ModelError
        If a step needs more than the scores of one pixel; the sentence names the step.
    """
    found: list[NormalizationStep | str] = []
    for given in tensor.steps:
        if given.name == "softmax":
            if given.along not in ("", "C"):
                raise _refusal(given, f"along {given.along.lower()}; it is known along the channels")
            found.append("softmax")
        elif given.name in ("scale_linear", "fixed_zero_mean_unit_variance", "clip", "binarize", "sigmoid"):
            step = _build(given, tensor)
            if step.measured:
                raise _refusal(given, "with percentiles of the output, which are known only when the whole image is finished")
            found.append(step)
        elif given.name == "ensure_dtype":
            _check_dtype(given, whole=bool(found) and isinstance(found[-1], NormalizationStep) and found[-1].kind == "binarize")
        elif given.name in ("scale_range", "zero_mean_unit_variance", "scale_mean_variance"):
            raise _refusal(given, "after the network; such a model returns images, and labels are wanted here")
        else:
            raise _refusal(given, "after the network, which this program does not know")
    return found


def _before(given: Step, tensor: Tensor, *, first: bool) -> NormalizationStep | None:
    if given.name == "ensure_dtype":
        _check_dtype(given, whole=first and str(given.values.get("dtype")) == tensor.dtype)
        return None
    if given.name == "scale_mean_variance":
        raise _refusal(given, "before the network, for which the image that it refers to would have to be at hand")
    if given.name not in _KNOWN:
        raise _refusal(given, f"before the network; known are {', '.join(_KNOWN)} and ensure_dtype")
    return _build(given, tensor)


_KNOWN = (
    "binarize",
    "clip",
    "fixed_zero_mean_unit_variance",
    "scale_linear",
    "scale_range",
    "sigmoid",
    "zero_mean_unit_variance",
)


def _build(given: Step, tensor: Tensor) -> NormalizationStep:
    try:
        return NormalizationStep(**_arguments(given, tensor))
    except ValidationError as error:
        raise _refusal(given, error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")) from None
    except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
        raise _refusal(given, f"with arguments that it cannot have: {error}") from None


def _arguments(given: Step, tensor: Tensor) -> dict[str, Any]:
    """Return the fields of the engine's step."""
    values = dict(given.values)
    match given.name:
        case "sigmoid":
            return {"kind": "sigmoid"}
        case "binarize":
            return {"kind": "binarize", "threshold": _numbers(given, tensor, values["threshold"])}
        case "scale_linear":
            gains, offsets = _numbers(given, tensor, values.get("gain", 1.0)), _numbers(given, tensor, values.get("offset", 0.0))
            pairs = [(gain, offset) for gain, offset in zip(*_same(gains, offsets), strict=True)]
            return {"kind": "linear", "offset": tuple(-o / g for g, o in pairs), "scale": tuple(1 / g for g, _ in pairs)}
        case "fixed_zero_mean_unit_variance":
            eps = float(values.get("eps", 1e-6))
            deviations = tuple(number + eps for number in _numbers(given, tensor, values["std"]))
            return {"kind": "linear", "offset": _numbers(given, tensor, values["mean"]), "scale": deviations}
        case "zero_mean_unit_variance":
            eps = float(values.get("eps", 1e-6))
            return {"kind": "mean_std", "eps": eps, "joint": _joint(given, tensor), "original": True}
        case "scale_range":
            of = values.get("reference_tensor")
            if of not in (None, tensor.name):
                raise _refusal(given, f'with the percentiles of another tensor, "{printable(str(of))}"')
            return {
                "kind": "percentiles",
                "lower": float(values.get("min_percentile", 0.0)),
                "upper": float(values.get("max_percentile", 100.0)),
                "eps": float(values.get("eps", 1e-6)),
                "joint": _joint(given, tensor),
                "original": True,  # as bioimageio.core measures
            }
        case _:
            limits = {
                "low": values.get("min"),
                "high": values.get("max"),
                "lower": values.get("min_percentile"),
                "upper": values.get("max_percentile"),
            }
            measured = limits["lower"] is not None or limits["upper"] is not None
            joint = {"joint": _joint(given, tensor), "method": "inverted_cdf", "original": True} if measured else {}
            return {"kind": "clip", **limits, **joint}


def _numbers(given: Step, tensor: Tensor, value: Any) -> tuple[float, ...]:
    """Return one number, or one for each channel."""
    numbers = tuple(float(number) for number in value) if isinstance(value, list | tuple) else (float(value),)
    if not all(math.isfinite(number) for number in numbers):
        raise _refusal(given, "with numbers that are not finite")
    if len(numbers) == 1:
        return numbers
    axis = tensor.axis("C")
    if given.along not in ("C", "") or axis is None:
        raise _refusal(given, f"along {given.along.lower() or 'no axis'}; numbers may differ between channels only")
    if axis.least and len(numbers) != axis.least:
        raise _refusal(given, f"with {len(numbers)} numbers for {axis.least} channels")
    return numbers


def _same(one: tuple[float, ...], two: tuple[float, ...]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    count = max(len(one), len(two))
    return (one if len(one) == count else one * count, two if len(two) == count else two * count)


def _joint(given: Step, tensor: Tensor) -> bool:
    """Tell whether all channels share one measurement; of space, only the whole of it can be measured."""
    if given.reduced is None:
        return True
    missing = [axis.letter for axis in tensor.space if axis.letter not in given.reduced]
    if missing or "?" in given.reduced:
        axes = ", ".join(letter.lower() for letter in given.reduced if letter != "?") or "unknown axes"
        raise _refusal(given, f"measured along {axes} only; planes and rows of an image are measured together here")
    return "C" in given.reduced


def _check_dtype(given: Step, *, whole: bool) -> None:
    dtype = str(given.values.get("dtype", ""))
    if dtype not in _FLOATS and not whole:
        raise _refusal(given, f"to {printable(dtype)}, which would round the values; they are kept as float32 here")


def _refusal(given: Step, why: str) -> ModelError:
    return ModelError(f'The model asks for the step "{printable(given.name)}" {why}. Export the model without it.')
