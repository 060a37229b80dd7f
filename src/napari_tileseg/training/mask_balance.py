"""``mask_classes`` and ``mask_lines``: what overlapping classes there are, and how much of the pixels each has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.models.registry import find_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.training.config import TrainConfig
    from napari_tileseg.training.fingerprint import Facts
    from napari_tileseg.training.report import Report

__all__ = ["classes_in", "mask_classes", "mask_lines", "names_of_start"]


def mask_classes(facts: Sequence[Facts], config: TrainConfig, warnings: list[str]) -> tuple[str, ...]:
    """Return the names of the classes, none of which is the background.

    Raises
    ------
    InputError
        If nothing is inside of any mask, or images differ in how many masks they have.
    OptionsError
        If other classes were named than there are.
    """
    classes = tuple(dict.fromkeys(name for fact in facts for name in fact.names))
    counts = {len(fact.masks) for fact in facts if not fact.names}
    if len(counts | ({len(classes)} if classes else set())) > 1 and counts:
        told = " and ".join(str(count) for count in sorted(counts | ({len(classes)} if classes else set())))
        raise InputError(f"Some labels have {told} masks without names. Give as many for each image, in the same order.")
    number = len(classes) or counts.pop()
    named = config.classes if not config.regions else ()
    if named and classes and not set(named) <= set(classes):
        absent = ", ".join(name for name in named if name not in classes)
        raise OptionsError(f"The labels hold no mask of {absent}, but of {', '.join(classes)}. Overlapping classes have no background.")
    if named and not classes and len(named) != number:
        raise OptionsError(f"{len(named)} classes were given, but the labels hold {number} masks. Name each; none is the background.")
    classes = named or classes or names_of_start(config, "sigmoid", number) or tuple(f"class {place + 1}" for place in range(number))
    inside, _ = _totals(facts, classes)
    if not any(inside.values()):
        raise InputError("Nothing is inside of any mask, so there is nothing to learn.")
    for name in classes:
        lacking = sum(1 for fact in facts if not _counts(fact, classes)[name][1])
        if not inside[name]:
            warnings.append(f'The class "{name}" is in none of the labels, so it is not learnt.')
        elif lacking:
            warnings.append(
                f'{lacking} of {len(facts)} images have no labels of "{name}": nothing is learnt of it there. '
                "Where there is none of it, give empty labels."
            )
    return classes


def mask_lines(facts: Sequence[Facts], classes: Sequence[str]) -> list[str]:
    """Say how much of its known pixels each class has, and how much belongs to several."""
    inside, known = _totals(facts, classes)
    shares = (f"{name} {100 * inside[name] / max(1, known[name]):.3g} %" for name in classes)
    pixels = sum(sum(fact.values.values()) for fact in facts)
    several = sum(fact.several for fact in facts)
    lines = [f"Classes that may overlap: {', '.join(shares)} of the labelled pixels; {100 * several / pixels:.3g} % belong to several."]
    unknown = [f"{name} {100 * known[name] / pixels:.3g} %" for name in classes if known[name] < pixels]
    return [*lines, f"Labelled: {', '.join(unknown)} of all pixels."] if unknown else lines


def names_of_start(config: TrainConfig, output: str, number: int) -> tuple[str, ...]:
    """Return what the model that is gone on from calls its classes, where they are as many as those of the labels."""
    start = find_spec(config.start) if config.start else None
    return tuple(start.classes) if start is not None and start.output == output and len(start.classes) == number else ()


def classes_in(fact: Facts, report: Report) -> set[str]:
    """Return the classes of which an item has a pixel."""
    if report.rule is None:
        return {name for value, name in zip(report.values, report.classes, strict=True) if fact.values.get(value)}
    return {name for name, (inside, _) in _counts(fact, report.classes).items() if inside}


def _counts(fact: Facts, classes: Sequence[str]) -> dict[str, tuple[int, int]]:
    names = fact.names if set(fact.names) & set(classes) else classes
    found = dict(zip(names, fact.masks, strict=True)) if len(names) == len(fact.masks) else {}
    return {name: found.get(name, (0, 0)) for name in classes}


def _totals(facts: Sequence[Facts], classes: Sequence[str]) -> tuple[dict[str, int], dict[str, int]]:
    counts = [_counts(fact, classes) for fact in facts]
    return tuple({name: sum(count[name][part] for count in counts) for name in classes} for part in (0, 1))  # type: ignore[return-value]
