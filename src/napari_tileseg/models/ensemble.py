"""Ensembles: several models that answer as one, with the mean of their scores."""

from __future__ import annotations

import csv
import hashlib
import io
import math
from typing import TYPE_CHECKING

from napari_tileseg.errors import ModelError
from napari_tileseg.models.sides import next_side

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

    from napari_tileseg.models.predictor import Predictor
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["SCHEME", "Ensemble", "combine", "join", "split"]

SCHEME = "ensemble:"
"""How the reference of an ensemble starts; the references of its members follow, with commas between them."""

_EQUAL = {
    "axes": "axes",
    "channels": "channels",
    "grey": "use of grey images",
    "normalization": "normalisation",
    "spacing": "pixel size",
    "spacing_unit": "unit of the pixel size",
    "output": "kind of output",
    "classes": "classes",
    "heads": "score channels",
    "decoder": "decoder",
    "previous": "first stages",
    "output_offset": "pixels lost at the border",
    "remainder": "sides of tiles",
}
"""What members must agree on, because the image is prepared once and one mean is decoded, and how to call it."""


def join(refs: Iterable[str]) -> str:
    """Return the reference of an ensemble: ``"ensemble:fold-0,fold-1"``; one that holds a comma is put in double quotes."""
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(refs)
    return SCHEME + line.getvalue()


def split(ref: str) -> tuple[str, ...]:
    """Return the references of an ensemble's members; nothing where `ref` names no ensemble.

    Raises
    ------
    ModelError
        If fewer than two are named.
    """
    if not ref.startswith(SCHEME):
        return ()
    members = tuple(part.strip() for part in next(csv.reader([ref.removeprefix(SCHEME)], skipinitialspace=True), []))
    if len(members) < 2 or not all(members):
        raise ModelError(f'"{ref}" names no ensemble. Give two models or more with commas between them: {SCHEME}fold-0,fold-1.')
    return members


def combine(specs: Sequence[ModelSpec]) -> ModelSpec:
    """Return the card of an ensemble.

    Tiling, decoder parameters and colours are those of the first member; `members` names all of them.

    Raises
    ------
    ModelError
        If the members do not take the same image and give the same scores; the sentence names the first difference.
    """
    first = specs[0]
    for other in specs[1:]:
        for field, words in _EQUAL.items():
            one, two = getattr(first, field), getattr(other, field)
            if one != two:
                raise ModelError(
                    f"{first.label} and {other.label} cannot answer together: they differ in their {words} "
                    f"({_text(one)} and {_text(two)}). Choose models that were made for the same images and classes."
                )
    if first.previous is not None:
        raise ModelError(f"{first.label} is the second stage of a cascade, which runs with its first stage alone. Use its folds together.")
    if first.output == "labels":
        raise ModelError(f"{first.label} gives labels, of which there is no mean. Use its members one by one.")
    multiples = [math.lcm(*steps) for steps in zip(*(spec.multiples for spec in specs), strict=True)]
    sums = "".join(spec.weights_sha256 for spec in specs)
    return first.model_copy(
        update={
            "name": f"{first.name}-ensemble-of-{len(specs)}",
            "title": " + ".join(dict.fromkeys(spec.label for spec in specs)),
            "description": f"Mean of the scores of {len(specs)} models.",
            "architecture": "",
            "arguments": {},
            "mirror_axes": _shared([spec.mirror_axes for spec in specs]),
            "multiple_of": multiples[0] if len(set(multiples)) == 1 else tuple(multiples),
            "window": tuple(next_side(size, step, first.remainder) for size, step in zip(first.window, multiples, strict=True)),
            "licence": " AND ".join(dict.fromkeys(spec.licence for spec in specs if spec.licence)),
            "attribution": "\n".join(dict.fromkeys(spec.attribution for spec in specs if spec.attribution)),
            "citation": "\n".join(dict.fromkeys(spec.citation for spec in specs if spec.citation)),
            "training": {},
            "members": [{"name": spec.name, "version": spec.version, "weights_sha256": spec.weights_sha256} for spec in specs],
            "weights_sha256": hashlib.sha256(sums.encode()).hexdigest(),
        }
    )


class Ensemble:
    """Several predictors on one device behind the protocol of one.

    Parameters
    ----------
    members : sequence of Predictor
        All on the same device. The engine calls them one by one, so that it can stop between them and see where they differ.

    Raises
    ------
    ModelError
        If they do not fit each other, see `combine`.
    """

    module = None
    """There is no single network."""

    previous: Predictor | Ensemble | None = None
    """The first model of a cascade, where these are the second."""

    def __init__(self, members: Sequence[Predictor]) -> None:
        self.members = tuple(members)
        self.spec = combine([member.spec for member in members])
        self.device = members[0].device

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return the mean of the members' raw scores, shape (N, K, *out), for tiles of shape (N, C, *window)."""
        total = self.members[0](batch).float()
        for member in self.members[1:]:
            total = total + member(batch)
        return total / len(self.members)

    @property
    def size(self) -> int:
        """Bytes of all weights on the device."""
        return sum(member.size for member in self.members)


def _shared(axes: Sequence[str | None]) -> str | None:
    """Return the letters that all of them hold; None stands for any."""
    known = [letters for letters in axes if letters is not None]
    return "".join(letter for letter in known[0] if all(letter in letters for letters in known)) if known else None


def _text(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(part) for part in value) or "none"
    return "none" if value in (None, "") else str(value)
