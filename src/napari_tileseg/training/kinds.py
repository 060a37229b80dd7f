"""``same_kind``: the images that one model can learn from together; grey ones beside colours are taken for colours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.training.sentences import left_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.training.fingerprint import Facts

__all__ = ["same_kind"]


def same_kind(facts: Sequence[Facts], start: ModelSpec | None = None) -> tuple[list[Facts], list[str], list[str]]:
    """Keep the images with the axes of space and the channels that most have.

    Parameters
    ----------
    facts : sequence of Facts
        Of images that can be used.
    start : ModelSpec, optional
        A model to go on from; it decides whether grey images may be repeated. Otherwise they are wherever there are colours too.

    Returns
    -------
    kept : list of Facts
        In their order.
    lines : list of str
        What is done so that they go together.
    warnings : list of str
        What is left out.
    """
    if not facts:
        return [], [], []
    spaces = ["".join(axis for axis in fact.axes if axis in "ZYX") for fact in facts]
    usual = max(dict.fromkeys(spaces), key=spaces.count)
    warnings = _grouped(
        [
            (fact, f"its axes are {fact.axes}, most have {usual}", f"their axes are {fact.axes}, most have {usual}")
            for fact, space in zip(facts, spaces, strict=True)
            if space != usual
        ]
    )
    alike = [fact for fact, space in zip(facts, spaces, strict=True) if space == usual]
    repeat = start.grey == "repeat" if start is not None else any(_coloured(fact) for fact in alike)
    taken = [_channels(fact, alike, repeat) for fact in alike]
    count = max(dict.fromkeys(taken), key=taken.count)
    odd = [fact for fact, channels in zip(alike, taken, strict=True) if channels != count]
    warnings += _grouped([(fact, f"it {_beside(fact, count)}", f"they {_beside(fact, count, 'have')}") for fact in odd])
    kept = [fact for fact, channels in zip(alike, taken, strict=True) if channels == count]
    return kept, _changes(kept), warnings


def _grouped(odd: Sequence[tuple[Facts, str, str]]) -> list[str]:
    """Return a sentence for each reason."""
    reasons = {one: many for _, one, many in odd}
    return [left_out([fact.item.name for fact, reason, _ in odd if reason == one], one, many) for one, many in reasons.items()]


def _changes(kept: Sequence[Facts]) -> list[str]:
    found = {fact.channels for fact in kept}
    lines = []
    if len(found) > 1 and 1 in found:
        grey = sum(fact.channels == 1 for fact in kept)
        are = "is grey: its" if grey == 1 else "are grey: their"
        lines.append(
            f"{grey} of the {len(kept)} images {are} one channel is repeated for red, green and blue; the model will take both kinds."
        )
    if len(found) > 1 and 4 in found:
        clear = sum(fact.channels == 4 for fact in kept)
        lines.append(f"The transparency of {clear} of the {len(kept)} images is not used.")
    return lines


def _coloured(fact: Facts) -> bool:
    """Say whether an image has colours, perhaps with transparency: its channels are the last axis, as the engine sees it too."""
    return fact.axes.endswith("C") and fact.channels in (3, 4)


def _channels(fact: Facts, others: Sequence[Facts], repeat: bool) -> int:
    """Return the channels that an image gives to a model which also learns from the others."""
    mixed = any(other.channels != 4 for other in others)
    if _coloured(fact) and mixed:
        return 3
    if fact.channels == 1 and repeat:
        return 3
    # Three planes of stains are no colours where one channel may stand for all.
    return -3 if repeat and fact.channels == 3 else fact.channels


def _beside(fact: Facts, usual: int, have: str = "has") -> str:
    if abs(usual) == fact.channels:
        return f"{have} {fact.channels} channels that are {'no ' if usual > 0 else ''}colours, unlike most"
    return f"{have} {fact.channels} channel{'s' * (fact.channels != 1)}, most have {abs(usual)}"
