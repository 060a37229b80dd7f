"""``Report``: what a folder of images and labels is like, and what is wrong with it, before anything is learnt."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.errors import Cancelled, InputError, OptionsError
from napari_tileseg.models.registry import find_spec
from napari_tileseg.training.fingerprint import divide, look_at, number_of_values
from napari_tileseg.training.items import find_items, keep_apart
from napari_tileseg.training.kinds import same_kind
from napari_tileseg.training.listed import Listed
from napari_tileseg.training.mask_balance import classes_in, mask_classes, mask_lines, names_of_start
from napari_tileseg.training.masks import MaskRule, holds_masks
from napari_tileseg.training.sentences import left_out, some

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.training.config import TrainConfig
    from napari_tileseg.training.fingerprint import Facts
    from napari_tileseg.training.items import Item

__all__ = ["Report", "inspect"]

_MOST_CLASSES = 64


@dataclass(frozen=True)
class Report:
    """What was found.

    Parameters
    ----------
    facts : tuple of Facts
        Of the items that can be used.
    train, val : tuple of Item
    task : {"classes", "overlapping", "instances"}
    values : tuple of int
        The number in the labels of each class, the background first; empty where classes overlap.
    classes : tuple of str
    lines : tuple of str
        The facts, a sentence each.
    warnings : tuple of str
        What should be known; training goes on.
    rule : MaskRule, optional
        How labels become masks, where classes overlap.
    """

    facts: tuple[Facts, ...]
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    task: str
    values: tuple[int, ...]
    classes: tuple[str, ...]
    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    rule: MaskRule | None = None

    @property
    def channels(self) -> int:
        """Those that a model needs: red, green and blue where images differ."""
        found = {facts.channels for facts in self.facts}
        return 3 if len(found) > 1 else found.pop()

    @property
    def grey(self) -> bool:
        """Whether some images are grey among others with colours."""
        return 1 in {facts.channels for facts in self.facts} and self.channels > 1

    @property
    def typical(self) -> Facts:
        """The first image that has all channels."""
        return max(self.facts, key=lambda facts: (facts.channels == self.channels, facts.channels > 1))

    def of(self, item: Item) -> Facts:
        """Return the facts of an item, or of the whole that it is a region of."""
        return next(facts for facts in self.facts if facts.item.image is item.image and facts.item.labels is item.labels)


def inspect(
    config: TrainConfig,
    data: Sequence[tuple[Any, Any]] | None = None,
    *,
    on_item: Callable[[int, int], None] = lambda done, total: None,
    cancel: Callable[[], bool] = lambda: False,
) -> Report:
    """Look through everything once.

    Parameters
    ----------
    config, data
        As of `find_items`.
    on_item : callable
        Told how many of how many items were looked at.
    cancel : callable
        Asked before each.

    Raises
    ------
    InputError
        If nothing can be used, or nothing can be kept for validation.
    OptionsError
        If the labels do not go with what the config says of them.
    Cancelled
    """
    found = find_items(config, data)
    start = find_spec(config.start) if config.start else None
    rule = _mask_rule(found.items, config, start)
    looked = []
    for number, item in enumerate(found.items):
        if cancel():
            raise Cancelled("Stopped before the training began.")
        on_item(number, len(found.items))
        looked.append(look_at(item, config.axes, rule))
    warnings = [f"{some(found.unmatched)}." for _ in found.unmatched[:1]]
    problems = dict.fromkeys(facts.problem for facts in looked if facts.problem)
    warnings += [left_out([facts.item.name for facts in looked if facts.problem == problem], problem) for problem in problems]
    facts, changes, others = same_kind([facts for facts in looked if not facts.problem], start)
    warnings += others
    if not facts:
        problem = next((facts for facts in looked if facts.problem), None)
        raise InputError("None of the images can be used" + (f'; "{problem.item.name}": {problem.problem}.' if problem else "."))
    task = _task(facts, config) if rule is None else "overlapping"
    values: tuple[int, ...] = ()
    if rule is None:
        values, classes = _classes(facts, config, task, warnings, start)
    else:
        classes = mask_classes(facts, config, warnings)
        rule = replace(rule, classes=classes)
    parts = _parts(facts, config, task, rule, warnings)
    train, val = keep_apart([fact.item for fact in facts], config, parts)
    report = Report(tuple(facts), tuple(train), tuple(val), task, values, classes, (), (), rule)
    _leaks(report, warnings)
    _one_sided(report, warnings)
    if config.val_share == 0 and not val:
        warnings.append("Nothing is kept for validation, so nobody knows how good the model becomes; the last weights are taken.")
    lines = [*_lines(report, config), *changes]
    return Report(report.facts, report.train, report.val, task, values, classes, tuple(lines), tuple(warnings), rule)


def _mask_rule(items: Sequence[Item], config: TrainConfig, start: ModelSpec | None) -> MaskRule | None:
    """Return how labels become masks; None where classes exclude each other."""
    if start is not None and start.region_labels and config.task in ("auto", "overlapping") and not (config.regions or config.classes):
        return MaskRule(regions=dict(zip(start.heads, start.region_labels, strict=True)), unlabelled=config.unlabelled)
    if config.task == "overlapping" or config.regions or (config.task == "auto" and holds_masks(items, config.axes)):
        return MaskRule(regions=config.regions, unlabelled=config.unlabelled)
    return None


def _task(facts: list[Facts], config: TrainConfig) -> str:
    if any(isinstance(fact.item.labels, Listed) for fact in facts):
        if config.task == "classes":
            raise OptionsError("A COCO file lists objects, or classes that may overlap. Set the task to instances or overlapping.")
        return "instances"
    if config.task != "auto":
        return config.task
    if config.values or len(config.classes) > 2 or config.unlabelled is not None:
        return "classes"
    counts = [len([value for value in fact.values if value]) for fact in facts]
    if max(counts) > _MOST_CLASSES:
        return "instances"
    if len(facts[0].names) > 2:
        return "classes"
    # Objects: many values, each in one piece, and other numbers of them from image to image.
    pieces = all(fact.components <= 1.2 * count + 1 for fact, count in zip(facts, counts, strict=True))
    return "instances" if max(counts) > 6 and pieces and (len(facts) == 1 or len(set(counts)) > 1) else "classes"


def _classes(
    facts: list[Facts], config: TrainConfig, task: str, warnings: list[str], start: ModelSpec | None
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    if task == "instances":
        if len(config.classes) not in (0, 2):
            raise OptionsError(f"{len(config.classes)} classes were given; objects have two: background and what they are.")
        if all(not any(fact.values.keys() - {0}) for fact in facts):
            raise InputError("There is no object in any of the labels.")
        return (0, 1), config.classes or ("background", "object")
    total = number_of_values(facts)
    found = sorted(value for value in total if value != config.unlabelled)
    if config.values:
        values = config.values
    elif config.classes and found and 0 <= found[0] and found[-1] < len(config.classes):
        values = tuple(range(len(config.classes)))
    elif start is not None and _holds_some_of(facts, found, start) and not config.classes:
        values = tuple(range(len(start.classes)))
    elif found and len(found) <= _MOST_CLASSES:
        values = tuple(found) if 0 in found or config.unlabelled is not None else (0, *found)
    else:
        raise InputError(
            f"The labels hold {len(found)} values, which is too many for classes. If they are objects, set the task to instances."
        )
    beyond = [value for value in found if value not in values]
    if beyond:
        where = next(fact.item.name for fact in facts if any(value in fact.values for value in beyond))
        raise InputError(
            f'The labels hold {_numbers(beyond)} (in "{where}"), which is none of the values {_numbers(values)}. '
            "Name it in values, or correct the labels."
        )
    if config.classes and len(config.classes) != len(values):
        rare = min(values[1:], key=lambda value: sum(value in fact.values for fact in facts), default=0)
        where = next((f' ({rare} is in "{fact.item.name}")' for fact in facts if rare in fact.values), "")
        raise OptionsError(
            f"{len(config.classes)} classes were given, but the labels hold the values {_numbers(values)}{where}. "
            "Give a name for each, the background first."
        )
    if len(values) < 2 or (len(found) < 2 and not config.start):
        held = f"no other value than {found[0]}" if found else "nothing"
        raise InputError(f"The labels hold {held}, so there is nothing to tell apart. Label the background and at least one class.")
    if values != tuple(range(len(values))):
        told = ", ".join(f"{value} is class {number}" for number, value in enumerate(values))
        warnings.append(f"The numbers in the labels have holes: {told}.")
    names = config.classes or next((fact.names for fact in facts if len(fact.names) == len(values)), ())
    names = names or names_of_start(config, "softmax", len(values))
    names = names or ("background", *(("foreground",) if len(values) == 2 else (f"class {value}" for value in values[1:])))
    absent = [name for value, name in zip(values, names, strict=True) if not total.get(value)]
    if start is not None and len(absent) > 1:
        warnings.append(f"Classes that are in none of the labels: {some(absent)}. They are background here, so the model forgets them.")
    else:
        warnings += [f'The class "{name}" is in none of the labels, so it is not learnt.' for name in absent]
    return values, names


def _holds_some_of(facts: list[Facts], found: list[int], start: ModelSpec) -> bool:
    """Tell whether labels hold numbers of a model's classes, as corrected ones do, and do not say that they mean others."""
    named = any(fact.names and tuple(fact.names) != tuple(start.classes) for fact in facts)
    return start.output == "softmax" and not named and bool(found) and 0 <= found[0] and found[-1] < len(start.classes)


def _parts(
    facts: list[Facts], config: TrainConfig, task: str, rule: MaskRule | None, warnings: list[str]
) -> list[tuple[Item, Item] | None]:
    own = [fact for fact in facts if not fact.item.held_out]
    by_region = config.split == "region" or (config.split == "auto" and len(own) == 1)
    if not by_region or config.val_share == 0 or len(own) < len(facts):
        return [None] * len(facts)
    if len(own) == 1:
        warnings.append("There is one image only: a region of it is kept for validation, and the score says little about other images.")
    parts: list[tuple[Item, Item] | None] = []
    for fact in facts:
        divided = divide(fact, config.val_share, instances=task == "instances", axes=config.axes, rule=rule)
        if divided is not None and not divided[2]:
            warnings.append(f'Objects of "{fact.item.name}" lie in both regions, the learnt and the validated one; scores are too good.')
        parts.append(None if divided is None else divided[:2])
    return parts


def _leaks(report: Report, warnings: list[str]) -> None:
    places: dict[str, list[str]] = {}
    for part, items in (("train", report.train), ("validation", report.val)):
        for item in items:
            if item.box is None:
                places.setdefault(report.of(item).digest, []).append(f"{item.name} ({part})")
    for names in places.values():
        parts = {name.rsplit(" ", 1)[1] for name in names}
        if len(parts) > 1:
            warnings.append(f"The same image is learnt and validated: {some(names)}. Its score is worthless.")
        elif len(names) > 1:
            warnings.append(f"The same image is there {len(names)} times: {some(names)}.")


def _one_sided(report: Report, warnings: list[str]) -> None:
    """Name the classes that are in one of the two parts only; regions of an image are not looked at again."""
    if report.task == "instances" or any(item.box is not None for item in (*report.train, *report.val)):
        return
    learnt, kept = ([classes_in(report.of(item), report) for item in items] for items in (report.train, report.val))
    for name in report.classes if report.rule else report.classes[1:]:
        here, there = (any(name in found for found in part) for part in (learnt, kept))
        if there and not here:
            warnings.append(f'The class "{name}" is only in images that are kept for validation, so it is not learnt. Give another seed.')
        elif here and not there and report.val:
            warnings.append(f'The class "{name}" is in none of the images that are kept for validation, so it is not scored.')


def _lines(report: Report, config: TrainConfig) -> list[str]:
    facts = report.facts
    shapes = [[size for axis, size in fact.sizes.items() if axis != "C"] for fact in facts]
    ends = zip(np.min(shapes, axis=0), np.max(shapes, axis=0), strict=True) if len({len(shape) for shape in shapes}) == 1 else ()
    extent = " x ".join(str(low) if low == high else f"{low}-{high}" for low, high in ends) or "of several shapes"
    channels = " or ".join(str(count) for count in sorted({fact.channels for fact in facts}))
    axes, types = (" or ".join(sorted(found)) for found in ({fact.axes for fact in facts}, {fact.dtype for fact in facts}))
    lines = [
        f"{len(report.train)} image{'s' * (len(report.train) != 1)} to learn from, {len(report.val)} to validate on.",
        f"Axes {axes}, {extent}, {channels} channel{'s' * (channels != '1')}, {types}, "
        f"intensities {min(fact.low for fact in facts):g} to {max(fact.high for fact in facts):g}.",
    ]
    sizes = [list(fact.spacing.values()) for fact in facts if fact.spacing]
    if len(sizes) == len(facts):
        scale, unit = (1000, "mm") if np.median(sizes) >= 100 else (1, "µm")
        low, high = np.min(sizes, axis=0) / scale, np.max(sizes, axis=0) / scale
        text = " x ".join(f"{a:.3g}" if np.isclose(a, b, rtol=0.01) else f"{a:.3g}-{b:.3g}" for a, b in zip(low, high, strict=True))
        lines.append(f"Pixel size {text} {unit}.")
    else:
        lines.append("Pixel size unknown." if not sizes else f"Pixel size known of {len(sizes)} of {len(facts)} images.")
    if report.task == "instances":
        numbers = [len(fact.values.keys() - {0}) for fact in facts]
        lines.append(f"Objects: {sum(numbers)}, {min(numbers)} to {max(numbers)} in an image.")
    elif report.task == "overlapping":
        lines += mask_lines(facts, report.classes)
    else:
        total = number_of_values(list(facts))
        known = sum(count for value, count in total.items() if value != config.unlabelled)
        shares = (f"{name} {_percent(total.get(value, 0) / known)}" for value, name in zip(report.values, report.classes, strict=True))
        lines.append(f"Classes: {', '.join(shares)} of the labelled pixels.")
        if config.unlabelled is not None:
            lines.append(f"Labelled: {_percent(known / max(1, sum(total.values())))} of all pixels.")
    ground = {0, None if report.rule else config.unlabelled}
    empty = [fact.item.name for fact in facts if not any(count for value, count in fact.values.items() if value not in ground)]
    if empty:
        lines.append(f"Only background: {some(empty)}.")
    return lines


def _numbers(values: Sequence[int]) -> str:
    return some([str(value) for value in values])


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
