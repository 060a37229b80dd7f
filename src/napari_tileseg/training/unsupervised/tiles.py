"""``Tiles``: batches of tiles out of images that are read where a tile lies; batch number n is always the same."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.engine.prepare import PreparedSource, SampleReader, measure_frame
from napari_tileseg.errors import InputError
from napari_tileseg.image import check_dtype, refuse_guesses
from napari_tileseg.models.spec import Normalization

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.protocols import Source
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["Part", "Tiles", "one_hot", "parts_of", "split"]

_KEPT_VALUES = 1 << 26
"""Normalised values that are kept in memory, 256 MB; what goes beyond is normalised tile by tile."""


@dataclass(frozen=True)
class Part:
    """A plane of an image, or some of its rows.

    Parameters
    ----------
    name : str
        Of the image.
    source : Source
        Normalised, shape (C, Y, X).
    masks : Source, optional
        Classes of the pixels, shape (1, Y, X).
    row : tuple of int
        First row and the one after the last.
    """

    name: str
    source: Source
    masks: Source | None = None
    row: tuple[int, int] = field(default=(0, 0))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.row[1] - self.row[0], self.source.shape[2]

    def read(self, top: int, left: int, size: tuple[int, int]) -> NDArray[np.float32]:
        """Return a tile, shape (C, *size); masks, if there are any, are one more channel."""
        region = (slice(self.row[0] + top, self.row[0] + top + size[0]), slice(left, left + size[1]))
        tile = self.source.read(region)
        return tile if self.masks is None else np.concatenate([tile, self.masks.read(region)])


class _Kept:
    """A source that was read once."""

    def __init__(self, values: NDArray[np.float32]) -> None:
        self._values = values

    @property
    def shape(self) -> tuple[int, ...]:
        return self._values.shape

    def read(self, region: tuple[slice, ...]) -> NDArray[np.float32]:
        return self._values[(slice(None), *region)]


def parts_of(volume: Volume, spec: ModelSpec, masks: Volume | None = None) -> list[Part]:
    """Return the planes of an image as a model sees them; statistics are those of the whole image.

    Parameters
    ----------
    volume : Volume
    spec : ModelSpec
        Of planes (CYX).
    masks : Volume, optional
        Classes on the grid of the image, without channels.

    Raises
    ------
    InputError
        If the image does not suit the model, or the masks the image.
    """
    check_dtype(volume)
    refuse_guesses(volume, volume.name, spec, how="Give its axes")
    axis_map = map_axes(volume.axes, volume.shape, spec)
    mask_map = None if masks is None else _mask_map(volume, masks, axis_map, spec)
    found = []
    for position in axis_map.samples():
        statistics = measure_frame(volume, axis_map, spec.normalization, position.get("T"))
        source = PreparedSource(SampleReader(volume, axis_map, position), statistics, spec.normalization)
        classes = None
        if masks is not None and mask_map is not None:
            check_dtype(masks)
            plain = Normalization()
            reader = SampleReader(masks, mask_map, position)
            classes = PreparedSource(reader, measure_frame(masks, mask_map, plain, position.get("T")), plain)
        found.append(Part(volume.name, source, classes, (0, source.shape[1])))
    return found


def _mask_map(volume: Volume, masks: Volume, axis_map: AxisMap, spec: ModelSpec) -> AxisMap:
    if tuple(masks.shape) != axis_map.grid_shape:
        raise InputError(f'The mask of "{volume.name}" has the shape {masks.shape}, the image {axis_map.grid_shape}. They must be equal.')
    one = spec.model_copy(update={"channels": ["class"]})
    return map_axes(axis_map.grid_axes, masks.shape, one)


def split(parts: Sequence[Part], share: float, tile: tuple[int, int], seed: int) -> tuple[list[Part], list[Part]]:
    """Part images into those to learn from and those that are held out: whole ones, or the lowest rows where there is only one.

    Parameters
    ----------
    share : float
        Held out.
    tile : tuple of int
        Least height and width of what is left of an image.

    Raises
    ------
    InputError
        If a single image is too low to be parted.
    """
    names = sorted({part.name for part in parts})
    if len(names) > 1:
        count = min(max(1, round(share * len(names))), len(names) - 1)
        held = set(np.random.default_rng([seed, 1]).permutation(names)[:count])
        return [part for part in parts if part.name not in held], [part for part in parts if part.name in held]
    height = parts[0].shape[0]
    rows = max(tile[0], round(share * height))
    if height - rows < tile[0]:
        raise InputError(
            f'"{names[0]}" has {height} rows, too few to learn from some and to hold out others: give two images, or smaller tiles.'
        )
    cut = height - rows
    return [replace(part, row=(0, cut)) for part in parts], [replace(part, row=(cut, height)) for part in parts]


class Tiles:
    """Draws tiles from parts of images, each place as often as any other.

    Parameters
    ----------
    parts : sequence of Part
        None smaller than a tile.
    tile : tuple of int
        Height and width.
    batch : int
        Tiles of a batch.
    classes : int
        Of the masks; each becomes one more channel, 1 where it is and -1 elsewhere. Of two classes the second one is all that is not 0.
    flips : bool
        Mirror tiles at random; turn them where they are square.
    seed : int
    """

    def __init__(
        self, parts: Sequence[Part], tile: tuple[int, int], *, batch: int, classes: int = 0, flips: bool = True, seed: int = 0
    ) -> None:
        self._parts = _kept(parts)
        self._tile, self._batch, self._classes, self._flips, self._seed = tile, batch, classes, flips, seed
        places = np.array([float(np.prod([side - size + 1 for side, size in zip(part.shape, tile, strict=True)])) for part in parts])
        self._chances = places / places.sum()

    def __call__(self, number: int) -> Tensor:
        """Draw batch `number`, shape (B, C, *tile), float32 on [-1, 1]."""
        generator = np.random.default_rng([self._seed, 2, number])
        chosen = generator.choice(len(self._parts), self._batch, p=self._chances)
        return torch.from_numpy(np.stack([self._draw(self._parts[index], generator) for index in chosen]))

    def _draw(self, part: Part, generator: np.random.Generator) -> NDArray[np.float32]:
        top, left = (int(generator.integers(side - size + 1)) for side, size in zip(part.shape, self._tile, strict=True))
        tile = part.read(top, left, self._tile)
        if self._classes:
            tile = np.concatenate([tile[:-1], one_hot(tile[-1], self._classes, part.name)])
        if self._flips:
            down, across, turned = generator.integers(0, 2, 3)
            tile = tile[:, :: -1 if down else 1, :: -1 if across else 1]
            if turned and self._tile[0] == self._tile[1]:
                tile = tile.transpose(0, 2, 1)
        return np.ascontiguousarray(tile, np.float32)


def one_hot(mask: NDArray[np.float32], classes: int, name: str) -> NDArray[np.float32]:
    """Return 1 where each class is and -1 elsewhere, shape (classes, Y, X).

    Raises
    ------
    InputError
        If the mask holds another class.
    """
    values = (mask > 0).astype(np.int64) if classes == 2 else mask.astype(np.int64)
    if values.min() < 0 or values.max() >= classes:
        wrong = int(values.max() if values.max() >= classes else values.min())
        raise InputError(f'The mask of "{name}" holds the class {wrong}; there are {classes} classes, 0 to {classes - 1}. Name them all.')
    return np.where(values[None] == np.arange(classes)[:, None, None], np.float32(1), np.float32(-1))


def _kept(parts: Sequence[Part]) -> list[Part]:
    """Read what fits in memory once; the parts of one plane share it."""
    left = _KEPT_VALUES
    found = []
    for part in parts:
        values = int(np.prod(part.source.shape))
        if values <= left:
            left -= values
            height, width = part.source.shape[1:]
            part = replace(part, source=_Kept(part.source.read((slice(0, height), slice(0, width)))))
        found.append(part)
    return found
