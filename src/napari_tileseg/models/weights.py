"""Weights in checkpoints of all habits: found, freed of the prefixes of wrappers, and compared with the network they are for."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import WeightsError
from napari_tileseg.models.archive import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

__all__ = ["KEYS", "PREFIXES", "Fit", "best_fit", "compare", "find_state", "variants"]

KEYS = (
    "state_dict",
    "model_state_dict",
    "network_weights",
    "model",
    "net",
    "network",
    "weights",
    "params",
    "model_state",
    "state",
    "generator",
    "student",
    "module",
)
"""Under which keys programs put the weights, in the order in which they are looked for."""

AVERAGED = ("ema", "ema_state_dict", "model_ema", "state_dict_ema", "ema_model", "params_ema", "teacher")
"""Keys of moving averages of the weights, which are taken where nothing else is there."""

PREFIXES = ("module.", "_orig_mod.", "net.", "model.", "network.", "_model.", "ema_model.")
"""What wrappers for several devices, for compiling and for training put before each name."""

_DEEPEST = 4
_LISTED = 5


@dataclass(frozen=True)
class Fit:
    """How weights fit a network.

    Parameters
    ----------
    missing, unexpected : tuple of str
        Names that only the network, or only the weights have.
    shapes : tuple of (name, shape of the network, shape of the weights)
        Where both have one and differ.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    shapes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...] = ()

    @property
    def exact(self) -> bool:
        return not (self.missing or self.unexpected or self.shapes)

    @property
    def problems(self) -> int:
        return len(self.missing) + len(self.unexpected) + len(self.shapes)

    def __str__(self) -> str:
        """Say what does not fit: ``"2 missing (a, b); 1 of another shape (c: 2 x 3 instead of 4 x 3)"``."""
        parts = []
        for what, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            if names:
                parts.append(f"{len(names)} {what} ({_listed(names)})")
        if self.shapes:
            told = [f"{printable(name)}: {_size(found)} instead of {_size(expected)}" for name, expected, found in self.shapes]
            parts.append(f"{len(told)} of another shape ({'; '.join(told[:_LISTED])}{'; ...' if len(told) > _LISTED else ''})")
        return "; ".join(parts)


def compare(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> Fit:
    """Compare names and shapes; buffers that count batches may be missing, since nothing is computed with them."""
    missing = [name for name in expected if name not in found and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in found if name not in expected and not name.endswith("num_batches_tracked")]
    shapes = [(name, expected[name], found[name]) for name in expected if name in found and expected[name] != found[name]]
    return Fit(tuple(sorted(missing)), tuple(sorted(unexpected)), tuple(sorted(shapes)))


def find_state(content: Any, label: str) -> dict[str, Tensor]:
    """Return the weights that a checkpoint holds, by the names they have there.

    Parameters
    ----------
    content : object
        What was loaded: a state dict, or a dictionary with one inside under one of `KEYS` or `AVERAGED`.
    label : str
        Name of the file, for the sentence.

    Raises
    ------
    WeightsError
        If there are none; the sentence says what is there instead.
    """
    found = _find(content, 0)
    if found is None:
        if isinstance(content, dict):
            there = ", ".join(printable(str(key)) for key in list(content)[:8]) or "nothing"
            raise WeightsError(f"{label} holds no weights that were found, only {there}. Give a state dict, or one under state_dict.")
        kind = f"{type(content).__module__}.{type(content).__name__}"
        raise WeightsError(f"{label} holds a {printable(kind)}, no weights. Save the model's state_dict() instead.")
    return found


def variants(state: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the weights under the names they may have without wrappers: as they are, then with one prefix less each time.

    A prefix goes where every name has it; where only most have it, those without it are left out (what a loss or a metric
    remembers). Whether a prefix belongs to a wrapper or to the network shows only when the names are compared with its own.
    """
    result = dict(state)
    yield result
    for _ in range(_DEEPEST):
        heads = Counter(name.partition(".")[0] + "." for name in result if "." in name)
        prefix, count = max(heads.items(), key=lambda item: item[1], default=("", 0))
        known = prefix in PREFIXES
        if not count or (count < len(result) and not (known and count > len(result) / 2)):
            return
        result = {name[len(prefix) :]: value for name, value in result.items() if name.startswith(prefix)}
        yield result


def best_fit(expected: Mapping[str, tuple[int, ...]], state: Mapping[str, Any]) -> tuple[Fit, dict[str, Any]]:
    """Return how weights fit a network best, and the weights under the names that do so."""
    fits = [(compare(expected, {name: tuple(value.shape) for name, value in names.items()}), names) for names in variants(state)]
    return min(fits, key=lambda pair: pair[0].problems)


def _find(content: Any, depth: int) -> dict[str, Any] | None:
    if not isinstance(content, dict) or depth > _DEEPEST:
        return None
    if _is_state(content):
        return {str(name): value for name, value in content.items() if _is_tensor(value)}
    for key in (*KEYS, *AVERAGED):
        if key in content and (found := _find(content[key], depth + 1)) is not None:
            return found
    inside = [found for value in content.values() if isinstance(value, dict) and (found := _find(value, depth + 1)) is not None]
    named = [found for found in inside if any(name.endswith("weight") for name in found)]
    return named[0] if len(named) == 1 else None


def _is_state(content: Mapping[Any, Any]) -> bool:
    tensors = [name for name, value in content.items() if _is_tensor(value)]
    if not tensors or not all(isinstance(name, str) for name in tensors):
        return False
    others = [value for value in content.values() if isinstance(value, dict)]
    return any(name.endswith(("weight", "bias")) for name in tensors) and not any(_is_state(value) for value in others)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and hasattr(value, "is_floating_point")


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(printable(name) for name in names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(str(side) for side in shape) or "one number"
