"""``Relief``: what a run gives up, step by step, when memory runs out, and what it has given up so far."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from napari_tileseg.models.sides import next_side, previous_side

if TYPE_CHECKING:
    from collections.abc import Mapping

    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["LEAST_SIDE", "Relief", "smaller_window"]

LEAST_SIDE = 32
"""No side of a window shrinks below this many pixels: a network that sees less of the image finds other things."""


@dataclass
class Relief:
    """The steps that a run has taken because memory was short; one object goes through all planes and frames of an image.

    Later samples begin with what earlier ones have settled for, and so does a run that continues.

    Parameters
    ----------
    batch : int or None
        Most tiles at once; None while nothing has been decided.
    host : bool or None
        Whether open scores lie in the computer's memory; None while nothing has been decided.
    fast : bool
        Whether the network computes in a short type for want of memory.
    window : tuple of int or None
        The smaller window, in the model's order.
    notes : list of str
        A sentence for each step, for the provenance.
    """

    batch: int | None = None
    host: bool | None = None
    fast: bool = False
    window: tuple[int, ...] | None = None
    notes: list[str] = field(default_factory=list)

    def note(self, sentence: str) -> str:
        """Remember a step and return its sentence."""
        self.notes.append(sentence)
        return sentence

    def options(self, options: SegmentOptions) -> SegmentOptions:
        """Return the user's options with the window that fits."""
        return options if self.window is None else options.model_copy(update={"window": self.window})

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able copy."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Relief:
        """Undo `to_dict`."""
        window = values.get("window")
        return cls(**{**values, "window": tuple(window) if window else None, "notes": list(values.get("notes", ()))})


def smaller_window(window: tuple[int, ...], spec: ModelSpec) -> tuple[int, ...] | None:
    """Return a window of about half as many pixels that the model takes; None where there is none.

    Parameters
    ----------
    window : tuple of int
        What was too large, in the model's order.
    spec : ModelSpec
        Sides must be multiples of its ``multiple_of`` plus its ``remainder``, and larger than what its output lacks.
    """
    if spec.fixed_window:
        return None
    offset = spec.output_offset or (0,) * len(window)
    shorter = []
    for size, lost, step in zip(window, offset, spec.multiples, strict=True):
        least = next_side(max(LEAST_SIDE, 2 * lost + (step if spec.steps == "aligned" else 1)), step, spec.remainder)
        wanted = previous_side(math.floor(size * 0.5 ** (1 / len(window))), step, spec.remainder)
        shorter.append(min(size, max(wanted, least)))
    return tuple(shorter) if tuple(shorter) != window else None
