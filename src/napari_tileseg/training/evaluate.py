"""``evaluate``: labels compared with the truth, image by image, the worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from napari_tileseg.errors import InputError, OptionsError, TileSegError
from napari_tileseg.io.files import zarr_root
from napari_tileseg.io.registry import read_volume
from napari_tileseg.io.tables import write_rows
from napari_tileseg.training.class_folders import match_class_folders
from napari_tileseg.training.items import Item
from napari_tileseg.training.masks import IGNORED, MaskRule, open_masks
from napari_tileseg.training.matching import list_files, match, stem
from napari_tileseg.training.metrics import average_precision, dice, gland_scores, jaccard, panoptic_quality
from napari_tileseg.training.surfaces import average_distance, hausdorff, surface_distances
from napari_tileseg.units import unit_symbol
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

__all__ = ["CLASS_METRICS", "METRICS", "OBJECT_METRICS", "Evaluation", "Row", "compare", "evaluate", "known_only"]

Kind = Literal["auto", "classes", "objects"]

CLASS_METRICS = ("dice", "iou", "hd95", "assd")
"""Metrics of each class."""

OBJECT_METRICS = ("ap50", "ap75", "ap", "object_f1", "object_dice", "pq")
"""Metrics of objects. ``ap``: the mean over thresholds 0.5, 0.55, ... 0.95."""

METRICS = (*CLASS_METRICS, *OBJECT_METRICS)

_LARGER_IS_WORSE = ("hd95", "assd")
_MOST_CLASSES = 64
"""Labels with more values than that are taken for objects."""


@dataclass(frozen=True)
class Row:
    """Scores of one image.

    Parameters
    ----------
    name : str
    values : mapping of str to float
        By the name of the metric; NaN where it says nothing (a class that is in neither image).
    counts : mapping of str to int
        ``found``, ``spurious``, ``missed``: objects as GlaS counts them.
    problem : str
        Why it could not be scored; empty if it was.
    paths : pair of Path or None
        Prediction and truth, where they are files.
    """

    name: str
    values: Mapping[str, float] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    problem: str = ""
    paths: tuple[Path, Path] | None = None


@dataclass(frozen=True)
class Evaluation:
    """A table of scores.

    Parameters
    ----------
    columns : tuple of str
        Names of the metrics, with class and unit: ``"dice nucleus"``, ``"hd95 nucleus [mm]"``.
    rows : tuple of Row
        The worst image first, by the mean of the first metric; images that could not be scored before all.
    missing : tuple of str
        Names of truths without a prediction.
    extra : tuple of str
        Names of predictions without a truth.
    """

    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Row, ...]:
        return tuple(row for row in self.rows if row.problem)

    def mean(self) -> dict[str, float]:
        """Return the mean of each metric over the images for which it says something; NaN where there are none."""
        return {name: _mean(row.values.get(name, math.nan) for row in self.rows) for name in self.columns}

    def pooled_f1(self) -> float:
        """Return F1 of all objects of all images together, as the GlaS challenge ranks; NaN without objects."""
        found, spurious, missed = (sum(row.counts.get(key, 0) for row in self.rows) for key in ("found", "spurious", "missed"))
        total = 2 * found + spurious + missed
        return 2 * found / total if total else math.nan

    def write(self, path: Path | str) -> Path:
        """Write the table as CSV, with the means in the last row.

        Raises
        ------
        OutputError
            If it cannot be written there.
        """
        lines = [[row.name, *(row.values.get(name, math.nan) for name in self.columns), row.problem] for row in self.rows]
        means = self.mean()
        return write_rows(["image", *self.columns, "problem"], [*lines, ["mean", *(means[name] for name in self.columns), ""]], Path(path))


def evaluate(
    predictions: Any,
    truths: Any,
    *,
    metrics: Sequence[str] | None = None,
    kind: Kind = "auto",
    classes: Sequence[str] = (),
    on_row: Callable[[Row, int, int], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> Evaluation:
    """Compare labels with the truth.

    Parameters
    ----------
    predictions, truths : path, sequence or mapping
        Folders, whose files are matched by name (see `training.matching.match`), of overlapping classes also with a folder of truths
        for each class; one file each; sequences of paths, arrays or volumes of equal length; or mappings from names to those.
    metrics : sequence of str, optional
        Of `METRICS`; by default those that fit the labels.
    kind : {"auto", "classes", "objects"}
        What the numbers in the labels stand for. auto: what the files say of their classes, else objects where there are more than 64
        values. Metrics of classes take all objects together as one class, metrics of objects take each class's pixels as they are.
    classes : sequence of str, optional
        Names of the classes, the background first; by default what the files say, else their numbers.
    on_row : callable, optional
        Called with each row as soon as it is there, its number and the number of all.
    cancel : callable, optional
        Asked before each image; what is there by then is returned.

    Returns
    -------
    Evaluation
        Files that cannot be read or do not fit together have a row that says why; the others are scored.

    Raises
    ------
    InputError
        If a folder is missing or empty, or nothing fits together.
    OptionsError
        If a metric is unknown.
    """
    wanted = _checked(metrics)
    items, extra, missing = _listed(predictions, truths)
    rows: list[Row] = []
    columns: dict[str, None] = {}
    for number, (name, prediction, truth) in enumerate(items):
        if cancel is not None and cancel():
            break
        paths = (prediction, truth) if isinstance(prediction, Path) and isinstance(truth, Path) else None
        try:
            found = _opened(prediction)
            found, expected = known_only(found, _truth(name, truth, found))
            values, counts = compare(found, expected, metrics=wanted, kind=kind, classes=classes)
            row = Row(name, values, counts, paths=paths)
        except TileSegError as error:
            row = Row(name, problem=str(error), paths=paths)
        columns |= dict.fromkeys(row.values)
        rows.append(row)
        if on_row is not None:
            on_row(row, number + 1, len(items))
    names = tuple(sorted(columns, key=lambda column: _place(column, wanted or METRICS)))
    return Evaluation(names, tuple(sorted(rows, key=lambda row: _badness(row, names))), tuple(missing), tuple(extra))


def known_only(prediction: Volume, truth: Volume) -> tuple[Volume, Volume]:
    """Return both with what nobody has labelled (`IGNORED` in the truth) as background."""
    expected = np.asarray(truth.data)
    unknown = expected == IGNORED
    if prediction.shape != truth.shape or not unknown.any():
        return prediction, truth
    return prediction.with_data(np.where(unknown, 0, np.asarray(prediction.data))), truth.with_data(np.where(unknown, 0, expected))


def compare(
    prediction: Volume, truth: Volume, *, metrics: Sequence[str] | None = None, kind: Kind = "auto", classes: Sequence[str] = ()
) -> tuple[dict[str, float], dict[str, int]]:
    """Score one prediction.

    Parameters
    ----------
    prediction, truth : Volume of int
        On the same grid; where the prediction has overlapping classes along C, the truth has them too.
    metrics, kind, classes
        As of `evaluate`.

    Returns
    -------
    values : dict of str to float
    counts : dict of str to int
        Objects found, spurious and missed; empty unless GlaS scores were asked for.

    Raises
    ------
    InputError
        If the two cannot be compared.
    """
    found, expected = _array(prediction), _array(truth)
    if found.shape != expected.shape:
        raise InputError(f"The prediction has the shape {found.shape}, the truth {expected.shape}. They must be equal.")
    if _differs(prediction, truth):
        raise InputError(
            f"The pixel size of the prediction is {_sizes(prediction)}, that of the truth {_sizes(truth)}. They must be those of one image."
        )
    names = tuple(classes) or _named(truth) or _named(prediction)
    objects = kind == "objects" or (
        kind == "auto" and not names and max(int(found.max(initial=0)), int(expected.max(initial=0))) > _MOST_CLASSES
    )
    if kind == "auto" and names and _says_objects(truth, prediction):
        objects = True
    wanted = metrics or (("ap50", "ap75", "object_f1", "object_dice", "pq", "dice") if objects else CLASS_METRICS)
    values: dict[str, float] = {}
    counts: dict[str, int] = {}
    masks = "C" in truth.axes
    for metric in wanted:
        if metric in CLASS_METRICS:
            values |= _of_classes(metric, found, expected, truth, names, objects=objects, masks=masks)
    chosen = [metric for metric in wanted if metric in OBJECT_METRICS]
    if chosen:
        told, counts = _of_objects(chosen, found, expected)
        values |= told
    return values, counts


def _of_classes(
    metric: str, found: NDArray[Any], expected: NDArray[Any], truth: Volume, names: Sequence[str], *, objects: bool, masks: bool
) -> dict[str, float]:
    unit, spacing = _steps(truth, "C" if masks else "")
    suffix = f" [{unit}]" if metric in _LARGER_IS_WORSE else ""
    values = {}
    for title, here, there in _each_class(found, expected, truth, names, objects=objects, masks=masks):
        if metric in ("dice", "iou"):
            score = dice(here, there, (True,), empty=math.nan)
            value = float((score if metric == "dice" else jaccard(score))[0])
        else:
            distances = surface_distances(here, there, spacing)
            value = hausdorff(distances) if metric == "hd95" else average_distance(distances)
        values[f"{metric} {title}".strip() + suffix] = value
    return values


def _each_class(
    found: NDArray[Any], expected: NDArray[Any], truth: Volume, names: Sequence[str], *, objects: bool, masks: bool
) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Yield name and masks of each class but the background."""
    if objects:
        yield "", found > 0, expected > 0
    elif masks:
        axis = truth.axes.index("C")
        for number in range(found.shape[axis]):
            title = names[number] if number < len(names) else str(number + 1)
            yield title, np.take(found, number, axis) > 0, np.take(expected, number, axis) > 0
    else:
        top = max(len(names) - 1, int(found.max(initial=0)), int(expected.max(initial=0)))
        for number in range(1, top + 1):
            title = names[number] if number < len(names) else str(number)
            yield "" if top == 1 and not names else title, found == number, expected == number


def _of_objects(metrics: Iterable[str], found: NDArray[Any], expected: NDArray[Any]) -> tuple[dict[str, float], dict[str, int]]:
    values: dict[str, float] = {}
    counts: dict[str, int] = {}
    for metric in metrics:
        if metric == "ap":
            values[metric] = float(average_precision(found, expected, np.arange(0.5, 1, 0.05).tolist()).mean())
        elif metric.startswith("ap"):
            values[metric] = float(average_precision(found, expected, (int(metric[2:]) / 100,))[0])
        elif metric == "pq":
            values[metric] = panoptic_quality(found, expected)
        else:
            scores = gland_scores(found, expected)
            values[metric] = scores.f1 if metric == "object_f1" else scores.object_dice
            counts = {"found": scores.found, "spurious": scores.spurious, "missed": scores.missed}
    return values, counts


def _listed(predictions: Any, truths: Any) -> tuple[list[tuple[str, Any, Any]], list[str], list[str]]:
    """Return names with what belongs together, and the names of predictions and of truths that have no partner."""
    if isinstance(predictions, str | Path) and isinstance(truths, str | Path):
        first, second = Path(predictions), Path(truths)
        if not _is_folder(first) and not _is_folder(second):
            return [(stem(first), first, second)], [], []
        of_classes = match_class_folders(first, second) if _is_folder(first) else None
        if of_classes is not None and of_classes[0]:
            pairs, others = of_classes
            known = {path for path, _ in pairs}
            rest = [path.name for path in list_files(first) if path not in known]
            lone = [text.removesuffix(" has no image") for text in others if text.endswith(" has no image")]
            return [(stem(path), path, masks) for path, masks in pairs], rest, lone
        matched = match(list_files(first), list_files(second), root=first, other=second)
        if not matched.pairs:
            raise InputError(
                f'No file of "{first.name}" has the name of one of "{second.name}". '
                "Name them alike, as in cell_1.tif and cell_1_labels.png."
            )
        items = [(stem(truth), prediction, truth) for prediction, truth in matched.pairs]
        return items, [path.name for path in matched.first_only], [path.name for path in matched.second_only]
    if isinstance(predictions, Mapping) and isinstance(truths, Mapping):
        both = [(str(name), predictions[name], truths[name]) for name in truths if name in predictions]
        return both, [str(name) for name in predictions if name not in truths], [str(name) for name in truths if name not in predictions]
    here, there = list(predictions), list(truths)
    if len(here) != len(there):
        raise InputError(f"{len(here)} predictions and {len(there)} truths were given. Give one truth for each prediction.")
    names = [stem(Path(item)) if isinstance(item, str | Path) else str(number) for number, item in enumerate(there)]
    return list(zip(names, here, there, strict=True)), [], []


def _is_folder(path: Path) -> bool:
    return path.is_dir() and zarr_root(path) is None


def _opened(item: Any) -> Volume:
    if isinstance(item, Volume):
        return item
    if isinstance(item, str | Path):
        return read_volume(Path(item))
    array = np.asarray(item)
    return Volume(array, "TZYX"[-array.ndim :])


def _truth(name: str, item: Any, prediction: Volume) -> Volume:
    """Open a truth; of a prediction with overlapping classes as masks in its order, whether they are files, channels or polygons."""
    names = _named(prediction)
    if isinstance(item, Mapping) or ("C" in prediction.axes and names and isinstance(item, str | Path)):
        return open_masks(Item(name, None, item), prediction, MaskRule(classes=names if "C" in prediction.axes else ()))
    return _opened(item)


def _array(volume: Volume) -> NDArray[Any]:
    data = np.asarray(volume.data)
    if data.dtype.kind == "f" and np.isfinite(data).all() and (data == np.rint(data)).all():
        data = data.astype(np.int64)  # NIfTI labels are often stored so
    if data.dtype.kind not in "biu":
        raise InputError(
            f'"{volume.name}" holds {data.dtype} values; labels are whole numbers. Give the labels, not the image or its scores.'
        )
    return data.astype(np.uint8) if data.dtype.kind == "b" else data


def _named(volume: Volume) -> tuple[str, ...]:
    return tuple(str(name) for name in volume.metadata.get("classes") or ())


def _says_objects(*volumes: Volume) -> bool:
    """Whether a file that we wrote holds objects: it then has two classes and more than two labels."""
    return any(len(_named(volume)) == 2 and int(np.asarray(volume.data).max(initial=0)) > 1 for volume in volumes)


def _steps(volume: Volume, without: str) -> tuple[str, list[float]]:
    """Return the unit and the pixel size along each axis; pixels where the units are unknown or differ."""
    axes = [axis for axis in volume.axes if axis not in without]
    symbols = {unit_symbol(volume.unit[axis]) for axis in axes if axis in "ZYX"}
    if len(symbols) != 1 or symbols == {"px"}:
        return "px", [1.0] * len(axes)
    return symbols.pop(), [volume.spacing[axis] if axis in "ZYX" else 1.0 for axis in axes]


def _differs(one: Volume, another: Volume) -> bool:
    """Whether two pixel sizes differ by more than a hundredth; unknown ones fit any."""
    (unit, here), (other, there) = _steps(one, "C"), _steps(another, "C")
    return unit == other != "px" and len(here) == len(there) and not np.allclose(here, there, rtol=0.01)


def _sizes(volume: Volume) -> str:
    unit, steps = _steps(volume, "C")
    return f"{' x '.join(f'{step:g}' for step in steps)} {unit}"


def _checked(metrics: Sequence[str] | None) -> tuple[str, ...] | None:
    for name in metrics or ():
        if name not in METRICS:
            raise OptionsError(f'There is no metric "{name}". Choose from {", ".join(METRICS)}.')
    return tuple(metrics) if metrics else None


def _place(column: str, order: Sequence[str]) -> int:
    return order.index(column.split(" ")[0]) if column.split(" ")[0] in order else len(order)


def _badness(row: Row, columns: Sequence[str]) -> float:
    """Return a number by which the worst image comes first."""
    if row.problem or not columns:
        return -math.inf
    first = columns[0].split(" ")[0]
    mean = _mean(value for name, value in row.values.items() if name.split(" ")[0] == first)
    if math.isnan(mean):
        return math.inf
    return -mean if first in _LARGER_IS_WORSE else mean


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
