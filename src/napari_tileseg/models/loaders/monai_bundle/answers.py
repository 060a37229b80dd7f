"""What a MONAI bundle does with the network's scores, in the engine's own terms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.loaders.monai_bundle.transforms import plain_name, value_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from napari_tileseg.models.loaders.monai_bundle.expression import Component

__all__ = ["Answer", "read_answer"]

_NOTHING = ("SaveImage", "EnsureType", "ToTensor", "DeleteItems", "SelectItems", "ToDevice", "Identity", "CopyItems")


@dataclass
class Answer:
    """What becomes of scores.

    Parameters
    ----------
    output : str
        "softmax", "sigmoid", or empty where the bundle does not say.
    activated : bool
        Whether scores become probabilities before they are brought back.
    threshold : float
        Least probability of a mask (or least score, without an activation).
    back : str
        What is brought to the image's grid: "scores", "labels", or empty for nothing.
    """

    output: str = ""
    activated: bool = False
    threshold: float = 0.5
    back: str = ""


def read_answer(transforms: Sequence[Component], key: str, without: Collection[str] = ()) -> Answer:
    """Read the postprocessing.

    Raises
    ------
    ModelError
        If a transform cannot be done as it is meant; the sentence names it.
    """
    found = Answer()
    decided = False
    for transform in transforms:
        name = plain_name(transform)
        keys = transform.arguments.get("keys", key)
        if key not in ([keys] if isinstance(keys, str) else keys) or {transform.name, name} & set(without):
            continue
        if name == "Activations":
            _activation(found, transform, key)
        elif name == "AsDiscrete":
            decided = True
            _discrete(found, transform, key)
        elif name == "Invert":
            nearest = bool(value_of(transform, "nearest_interp", key, True))
            if decided and not nearest:
                raise _refusal(transform, "mixes labels of neighbours")
            found.back = "labels" if nearest else "scores"
        elif name not in _NOTHING:
            raise _refusal(transform, "is not among those that can be done: Activations, AsDiscrete, Invert")
    return found


def _activation(found: Answer, transform: Component, key: str) -> None:
    given: dict[str, Any] = {name: value_of(transform, name, key) for name in ("softmax", "sigmoid", "other")}
    if given["other"] is not None:
        raise _refusal(transform, "applies a function of its own")
    for name in ("softmax", "sigmoid"):
        if given[name]:
            found.output, found.activated = name, True


def _discrete(found: Answer, transform: Component, key: str) -> None:
    if value_of(transform, "argmax", key):
        found.output = "softmax"
    threshold = value_of(transform, "threshold", key)
    if threshold is not None and not isinstance(threshold, bool):
        found.output, found.threshold = "sigmoid", float(threshold)
    if value_of(transform, "rounding", key):
        found.output = found.output or "sigmoid"


def _refusal(transform: Component, why: str) -> ModelError:
    return ModelError(
        f"The bundle's postprocessing has {printable(transform.name)}, which {why}. "
        f"Change the bundle, or leave the step out: monai:PATH?without={printable(transform.name)}."
    )
