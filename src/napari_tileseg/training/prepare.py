"""``prepare_items``: images on the model's grid, normalised as the engine does it, kept in memory or, where that is short, on the disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.grid import Grid, ResampledSource
from napari_tileseg.engine.prepare import PreparedSource, SampleReader, blocks_of, measure_frame
from napari_tileseg.engine.spacing import spacing_ratios
from napari_tileseg.errors import Cancelled, InputError, TileSegError
from napari_tileseg.io.output import refused
from napari_tileseg.training.data import Example
from napari_tileseg.training.fingerprint import state_of
from napari_tileseg.training.items import open_image, open_labels
from napari_tileseg.training.masks import IGNORED, open_masks
from napari_tileseg.training.object_targets import targets_of
from napari_tileseg.training.places import places_of
from napari_tileseg.training.truth import whole_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.engine.protocols import Source
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.training.items import Item
    from napari_tileseg.training.report import Report

__all__ = ["IGNORED", "memory_room", "prepare_items", "to_classes"]

_MEMORY_SHARE = 0.25


def prepare_items(
    items: Sequence[Item],
    report: Report,
    spec: ModelSpec,
    *,
    folder: Path,
    unlabelled: int | None = None,
    axes: str | None = None,
    memory_limit: int | None = None,
    cancel: Callable[[], bool] = lambda: False,
) -> list[Example]:
    """Read images block by block.

    Parameters
    ----------
    items : sequence of Item
    report : Report
        That has looked at them.
    spec : ModelSpec
        The model; its grid and its normalisation count.
    folder : Path
        For what does not fit into memory.
    unlabelled : int, optional
        Value of labels that do not count.
    axes : str, optional
        Of every image.
    memory_limit : int, optional
        Bytes; a quarter of the free memory if None.

    Returns
    -------
    list of Example
        One for each plane, frame or volume that has something labelled.

    Raises
    ------
    InputError
        If a file has changed or gone since the report was made, or nothing is labelled.
    OutputError
        If the disk is full.
    Cancelled
    """
    room = memory_limit if memory_limit is not None else memory_room()
    examples: list[Example] = []
    used = 0
    for item in items:
        facts = report.of(item)
        if facts.state != state_of(item):
            raise InputError(f'"{item.name}" has changed, or is gone, since the training began to look at it. Start again.')
        for example in _examples(item, spec, report, unlabelled=unlabelled, axes=axes, sparse=unlabelled is not None):
            if cancel():
                raise Cancelled("Stopped before the training began.")
            used += sum(array.nbytes for array in (example.image, example.labels, example.maps))
            examples.append(example if used <= room else _on_disk(example, folder, len(examples)))
    if not examples:
        raise InputError("Nothing is labelled in any of the images to learn from.")
    return examples


def memory_room() -> int:
    """Return how many bytes of prepared images may lie in memory, where nobody says it."""
    return int(_MEMORY_SHARE * psutil.virtual_memory().available)


def to_classes(labels: NDArray[Any], values: Sequence[int], unlabelled: int | None) -> NDArray[np.int32]:
    """Turn the numbers in labels into classes 0, 1, 2, ...; what is unlabelled becomes `IGNORED`."""
    ordered = np.argsort(values)
    places = np.searchsorted(np.asarray(values)[ordered], labels).clip(0, len(values) - 1)
    classes = ordered[places].astype(np.int32)
    return classes if unlabelled is None else np.where(labels == unlabelled, np.int32(IGNORED), classes)


def _examples(item: Item, spec: ModelSpec, report: Report, *, unlabelled: int | None, axes: str | None, sparse: bool) -> Iterator[Example]:
    try:
        image = open_image(item, axes)
        mapped = map_axes(image.axes, image.shape, spec)
        if report.rule is not None:
            volume = open_masks(item, image, report.rule)
            numbers = np.asarray(volume.data)
            sparse = sparse or bool((numbers == IGNORED).any())
        else:
            volume = open_labels(item, image.axes)
            numbers = np.asarray(whole_numbers(np.asarray(volume.data)))
    except TileSegError as error:
        raise InputError(f'"{item.name}" cannot be used: {error}') from error
    letters = volume.axes
    statistics: dict[int | None, Any] = {}
    for count, position in enumerate(mapped.samples()):
        frame = position.get("T")
        if frame not in statistics:
            statistics = {frame: measure_frame(image, mapped, spec.normalization, frame)}
        source: Source = PreparedSource(SampleReader(image, mapped, position), statistics[frame], spec.normalization)
        grid = Grid.match(source.shape[1:], spacing_ratios(image, spec))
        sample = numbers[tuple(position.get(axis, slice(None)) for axis in letters)]
        have = [axis for axis in letters if axis not in position]
        classes = "C" if report.rule is not None else ""
        sample = _nearest(sample.transpose([have.index(axis) for axis in classes + mapped.spatial]), grid)
        if not grid.same:
            source = ResampledSource(source, grid)
        if spec.output == "instances":
            labels = _numbered(sample, unlabelled)
            learnt = targets_of(spec)
            maps, vectors = learnt.make_maps(np.maximum(labels, 0), spec).astype(np.float16), learnt.vectors
        else:
            labels = sample if classes else to_classes(sample, report.values, unlabelled)
            maps, vectors = np.zeros((0, *sample.shape[len(classes) :]), np.float16), False
        if sparse and not (labels != IGNORED).any():
            continue
        pixels = np.empty(source.shape, np.float16)
        for region in blocks_of(source.shape):
            pixels[(slice(None), *region)] = source.read(region)
        name = item.name if mapped.count == 1 else f"{item.name} {count + 1}"
        places = places_of(labels, instances=spec.output == "instances", sparse=sparse, masks=bool(classes))
        yield Example(name, item.group, pixels, labels, maps, places, IGNORED, vectors)


def _nearest(labels: NDArray[Any], grid: Grid) -> NDArray[Any]:
    first = labels.ndim - len(grid.model)
    for axis, size in enumerate(labels.shape[first:]):
        if not grid.unchanged(axis):
            centres = np.floor(grid.centres(axis, 0, grid.model[axis]) + 0.5)
            labels = labels.take(centres.clip(0, size - 1).astype(np.intp), axis=first + axis)
    return labels


def _numbered(labels: NDArray[Any], unlabelled: int | None) -> NDArray[np.int32]:
    """Give objects the numbers 1, 2, 3, ...: theirs may be too large for the float32 that crops are cut in."""
    found, compact = np.unique(labels, return_inverse=True)
    objects = np.isin(found, [0, *([] if unlabelled is None else [unlabelled])], invert=True)
    numbers = np.where(objects, np.cumsum(objects), 0).astype(np.int32)
    if unlabelled is not None:
        numbers[found == unlabelled] = IGNORED
    result: NDArray[np.int32] = numbers[compact.reshape(labels.shape)]
    return result


def _on_disk(example: Example, folder: Path, number: int) -> Example:
    """Put the arrays of an example into files that are read where a crop lies."""
    mapped: dict[str, Any] = {}
    for field in ("image", "labels", "maps"):
        array, path = getattr(example, field), folder / f"{number}_{field}.npy"
        if not array.size:
            mapped[field] = array
            continue
        try:
            folder.mkdir(parents=True, exist_ok=True)
            np.save(path, array)
            mapped[field] = np.load(path, mmap_mode="r")
        except OSError as error:
            raise refused(path, error) from error
    return Example(example.name, example.group, places=example.places, outside=example.outside, vectors=example.vectors, **mapped)
