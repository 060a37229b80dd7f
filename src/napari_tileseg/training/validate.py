"""``Validation``: scores of a network in training, through the same path that users' images take."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.errors import Cancelled, OutputError, TileSegError
from napari_tileseg.io.output import refused
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import Predictor
from napari_tileseg.moving import move
from napari_tileseg.pipeline import segment
from napari_tileseg.segmentation import label_volume
from napari_tileseg.training.evaluate import compare, known_only
from napari_tileseg.training.items import open_image, open_labels
from napari_tileseg.training.listed import Listed
from napari_tileseg.training.masks import IGNORED, open_masks
from napari_tileseg.training.prepare import to_classes
from napari_tileseg.training.ranks import ALONE
from napari_tileseg.training.truth import whole_numbers
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.training.items import Item
    from napari_tileseg.training.masks import MaskRule
    from napari_tileseg.training.ranks import Ranks

__all__ = ["Validation"]

_KEPT = 1 << 30
"""Bytes of validation images that stay in memory from epoch to epoch."""

_METRICS = dict.fromkeys(("softmax", "sigmoid", "regions"), ("dice", "iou")) | {"instances": ("ap50", "pq", "dice")}


class Validation:
    """Images that are not learnt from, and what to compare on them.

    Parameters
    ----------
    items : sequence of Item
    spec : ModelSpec
    values : sequence of int
        The number in the labels of each class.
    rule : MaskRule, optional
        How labels become masks, where classes overlap.
    unlabelled : int, optional
        Value of labels that do not count.
    axes : str, optional
        Of every image.
    preview : str
        Name of the image whose labels are kept; the first if empty.
    views : Path, optional
        Folder for the labels of every image, for `look_back`.
    ranks : Ranks
        The processes that each segment a part of the images.
    """

    def __init__(
        self,
        items: Sequence[Item],
        spec: ModelSpec,
        *,
        values: Sequence[int],
        rule: MaskRule | None = None,
        unlabelled: int | None = None,
        axes: str | None = None,
        preview: str = "",
        views: Path | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.items = list(items)
        self.spec = spec
        self.values = values
        self.rule = rule
        self.unlabelled = unlabelled
        self.axes = axes
        self.preview = preview if any(item.name == preview for item in items) else items[0].name if items else ""
        self.views = views
        self.ranks = ranks
        self.rows: dict[str, dict[str, float]] = {}
        self._kept: dict[str, tuple[Volume, Volume]] = {}
        self._room = _KEPT

    def run(
        self,
        network: nn.Module,
        *,
        device: str,
        cancel: Callable[[], bool] = lambda: False,
        note: Callable[[str], None] = lambda text: None,
    ) -> tuple[dict[str, float], NDArray[Any] | None]:
        """Segment and compare all images; `rows` then holds the scores of each.

        Parameters
        ----------
        network : torch module
            Put into eval mode; its gradients are switched off.
        device : str
        cancel : callable
        note : callable
            Told of images that cannot be read any more, which are left out.

        Returns
        -------
        scores : dict of str to float
            Means over all images for which they are defined.
        labels : ndarray or None
            Those of the preview; where classes overlap, each pixel shows the last of its classes.
        """
        try:
            rows, shown, lines = self._own(network, device, cancel)
            stopped = None
        except Cancelled as error:
            rows, shown, lines, stopped = {}, None, [], error
        found = self.ranks.gather((rows, shown, lines, stopped is not None))
        if any(cancelled for *_, cancelled in found):
            raise stopped or Cancelled("Stopped.")
        for line in (line for _, _, own, _ in found for line in own):
            note(line)
        known = {name: row for own, *_ in found for name, row in own.items()}
        self.rows = {item.name: known[item.name] for item in self.items if item.name in known}
        names = dict.fromkeys(name for row in self.rows.values() for name in row)
        means = {name: _mean([row.get(name, math.nan) for row in self.rows.values()]) for name in names}
        preview = next((labels for _, labels, *_ in found if labels is not None), None)
        return {name: mean for name, mean in means.items() if not math.isnan(mean)}, preview

    def _own(
        self, network: nn.Module, device: str, cancel: Callable[[], bool]
    ) -> tuple[dict[str, dict[str, float]], NDArray[Any] | None, list[str]]:
        """Return scores of this process' part of the images, the labels of the preview, and what the user should know."""
        predictor = Predictor(network, self.spec, device)
        rows: dict[str, dict[str, float]] = {}
        shown, notes = None, []
        for item in self.ranks.part_of(self.items):
            try:
                image, truth = self._opened(item)
                # An average over mirror images would take eight times as long, epoch after epoch.
                found = segment(image, predictor, options=SegmentOptions(device=device, tta=False), cancel=cancel)
                labels = np.asarray(found.labels)
                single = labels if self.spec.output != "sigmoid" else _flat(labels)
                shown = single.copy() if item.name == self.preview else shown
                self._view(item, single)
                compared = self._compared(found.labels_volume().with_data(labels), truth, image)
                rows[item.name] = {name: value for name, value in compared.items() if not math.isnan(value)}
            except (Cancelled, OutputError):
                raise
            except TileSegError as error:
                notes.append(f'"{item.name}" is left out of this validation: {error}')
        return rows, shown, notes

    def score(self, scores: dict[str, float]) -> float | None:
        """Return the one number by which epochs are compared; None where nothing was scored."""
        first = _METRICS[self.spec.output][0]
        mean = _mean([value for name, value in scores.items() if name.split(" ")[0] == first])
        return None if math.isnan(mean) else mean

    def previewed(self, labels: NDArray[Any]) -> tuple[Volume, NDArray[Any]] | None:
        """Return the image whose labels `run` has given, and its reference; None where the file has changed since."""
        try:
            image, truth = self._opened(next(item for item in self.items if item.name == self.preview))
        except TileSegError:
            return None
        expected = np.asarray(truth.data) if self.rule is None else self._single(np.asarray(truth.data))
        return (image, expected) if expected.shape == labels.shape else None

    def look_back(self) -> tuple[dict[str, Any], ...]:
        """Return what `EpochEnded.images` holds, for the run before; its labels stay until the next call."""
        if self.views is None:
            return ()
        new, kept = self.views / "new", self.views / "best"
        if new.is_dir():
            shutil.rmtree(kept, ignore_errors=True)  # Windows leaves what somebody is just looking at
            kept.mkdir(exist_ok=True)
            for file in new.iterdir():
                move(file, kept / file.name)
            new.rmdir()
        return tuple(
            {
                "name": item.name,
                "scores": self.rows[item.name],
                "image": str(item.image) if isinstance(item.image, str | Path) else "",
                "truth": self._truth(number, item),
                "labels": str(kept / f"{number}.npy"),
                "box": item.box,
            }
            for number, item in enumerate(self.items)
            if item.name in self.rows
        )

    def _view(self, item: Item, labels: NDArray[Any]) -> None:
        if self.views is None:
            return
        _save(self.views / "new" / f"{self.items.index(item)}.npy", labels)

    def _truth(self, number: int, item: Item) -> str:
        """Return the file of an item's labels; masks get one in which each pixel shows the last of its classes."""
        if (self.rule is None and not isinstance(item.labels, Listed)) or self.views is None:
            return str(item.labels) if isinstance(item.labels, str | Path) else ""
        path = self.views / "truth" / f"{number}.npy"
        if not path.is_file():
            whole = replace(item, box=None)
            image = open_image(whole, self.axes)
            truth = open_labels(whole, image.axes) if self.rule is None else open_masks(whole, image, self.rule)
            _save(path, np.asarray(truth.data) if self.rule is None else self._single(np.asarray(truth.data)))
        return str(path)

    def _single(self, masks: NDArray[Any]) -> NDArray[Any]:
        """Return the labels of masks as the model would give them where it gives one for each pixel."""
        return np.array((0, *self.spec.region_values), np.uint16)[_flat(masks)] if self.spec.output == "regions" else _flat(masks)

    def _compared(self, found: Volume, truth: Volume, image: Volume) -> dict[str, float]:
        instances = self.spec.output == "instances"
        if self.spec.output == "regions":
            found = label_volume(self._regions(np.asarray(found.data)), truth.axes, image)
        found, truth = known_only(found, truth)
        kind: Any = "objects" if instances else "classes"
        names = () if instances else self.spec.score_names if self.spec.output == "regions" else self.spec.classes
        return compare(found, truth, metrics=_METRICS[self.spec.output], kind=kind, classes=names)[0]

    def _regions(self, labels: NDArray[Any]) -> NDArray[np.int8]:
        """Return the mask of each region in labels that hold one value for each pixel: a region is what its labels cover."""
        return np.stack([np.isin(labels, inside) for inside in self.spec.region_labels]).astype(np.int8)

    def _opened(self, item: Item) -> tuple[Volume, Volume]:
        if item.name in self._kept:
            return self._kept[item.name]
        image = open_image(item, self.axes)
        truth = open_masks(item, image, self.rule) if self.rule is not None else self._numbered(item, image)
        image = replace(image, data=np.asarray(image.data), levels=())
        size = np.asarray(image.data).nbytes + np.asarray(truth.data).nbytes
        if size <= self._room:
            self._room -= size
            self._kept[item.name] = (image, truth)
        return image, truth

    def _numbered(self, item: Item, image: Volume) -> Volume:
        """Return classes or objects on the image's grid: labels often do not say where they lie."""
        numbers = np.asarray(whole_numbers(np.asarray(open_labels(item, image.axes).data)))
        if self.spec.output != "instances":
            numbers = to_classes(numbers, self.values, self.unlabelled)
        elif self.unlabelled is not None:
            numbers = np.where(numbers == self.unlabelled, IGNORED, numbers.astype(np.int64))
        axes, affine, units = image.drop("C")
        return Volume(numbers, axes, affine, units, image.name)


def _flat(masks: NDArray[Any]) -> NDArray[Any]:
    """Return for each pixel the number of the last mask that it lies in, from 1; masks along the first axis."""
    numbers = np.arange(1, len(masks) + 1, dtype=np.uint16).reshape(-1, *(1,) * (masks.ndim - 1))
    found: NDArray[Any] = ((masks > 0) * numbers).max(axis=0)
    return found


def _save(path: Path, labels: NDArray[Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, labels)
    except OSError as error:
        raise refused(path, error) from error


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan
