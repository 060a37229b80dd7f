"""``embed``: tiles or objects of an image as points in the space of a model's codes, where what looks alike lies close together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy import ndimage

from napari_tileseg.engine.axes import map_axes
from napari_tileseg.errors import Cancelled, InputError, ModelError, OptionsError
from napari_tileseg.image import as_volume
from napari_tileseg.models.predictor import Predictor, load_model
from napari_tileseg.training.unsupervised.embedding import Embedding, project
from napari_tileseg.training.unsupervised.tiles import Part, parts_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.volume import Volume

__all__ = ["Embedding", "embed", "project"]

_BATCH = 256


def embed(
    model: str | Path | Predictor,
    volume: Volume | NDArray[Any] | str | Path,
    labels: Volume | NDArray[Any] | None = None,
    *,
    by: str = "auto",
    axes: str | None = None,
    dimensions: int = 2,
    device: str = "auto",
    cancel: Callable[[], bool] | None = None,
) -> Embedding:
    """Return the codes of the tiles of an image, or of its objects.

    Parameters
    ----------
    model : str, path or Predictor
        An autoencoder, a VAE, or a GAN with its encoder, trained here.
    volume : Volume, ndarray or path
        The image.
    labels : Volume or ndarray, optional
        On the grid of the image without C. Objects are looked at in a tile around their middle; tiles get their most frequent label.
    by : {"auto", "tiles", "objects"}
        What a point stands for; objects, where there are labels, by default.
    axes : str, optional
        Of the image, one letter per dimension.
    dimensions : {2, 3}
        Of the points.
    cancel : callable, optional
        Asked before every batch.

    Raises
    ------
    ModelError
        If the model has no codes.
    InputError
        If the image does not suit the model, the labels the image, or there is nothing to look at.
    OptionsError
        If an option is not accepted.
    Cancelled
        If somebody asked for it.
    """
    if dimensions not in (2, 3):
        raise OptionsError(f"{dimensions} dimensions cannot be shown. Choose 2 or 3.")
    if by not in ("auto", "tiles", "objects") or (by == "objects" and labels is None):
        raise OptionsError(f'by = "{by}" is not accepted. Use "tiles", or with labels "objects".')
    predictor = load_model(str(model), device=device) if isinstance(model, str | Path) else model
    network: Any = getattr(predictor, "module", None)
    if not hasattr(network, "codes"):
        raise ModelError(f"{predictor.spec.label} has no codes. Choose a trained autoencoder, vae or GAN.")
    spec = predictor.spec
    image = as_volume(volume, axes=axes, spec=spec)
    axis_map = map_axes(image.axes, image.shape, spec)
    found = _labels(labels, axis_map, image.name)
    size = (spec.window[0], spec.window[1])
    objects = by == "objects" or (by == "auto" and found is not None)
    places = [
        (position, part, place, label)
        for position, part in zip(axis_map.samples(), parts_of(image, spec), strict=True)
        for place, label in _places(part, _plane(found, axis_map, position), size, objects=objects)
    ]
    if not places:
        raise InputError(f'There is nothing to look at in "{image.name}": its labels are empty. Label something, or look at tiles.')
    codes, scores = _codes(predictor, [(part, middle) for _, part, middle, _ in places], size, cancel)
    return Embedding(
        positions=np.array([_position(axis_map, position, middle) for position, _, middle, _ in places]),
        codes=codes,
        points=project(codes, dimensions),
        labels=np.array([label for *_, label in places], np.int64),
        scores=scores,
        axes="".join(axis_map.grid_axes),
    )


def _codes(
    predictor: Any, places: Sequence[tuple[Any, Any]], size: tuple[int, int], cancel: Callable[[], bool] | None
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the codes of the tiles around places (image, middle), and how strange each is: 0 where the model does not say."""
    codes, scores = [], []
    with torch.inference_mode():
        for start in range(0, len(places), _BATCH):
            if cancel is not None and cancel():
                raise Cancelled(f"Stopped after {start} of {len(places)}.")
            tiles = np.stack([_tile(part, middle, size) for part, middle in places[start : start + _BATCH]])
            batch = torch.from_numpy(tiles).to(predictor.device)
            codes.append(predictor.module.codes(batch).float().cpu().numpy())
            told = predictor.module(batch)
            strange = told.mean((1, 2, 3)) if predictor.spec.output == "anomaly" else torch.zeros(len(tiles))
            scores.append(strange.float().cpu().numpy())
    return np.concatenate(codes), np.concatenate(scores)


def _labels(labels: Volume | NDArray[Any] | None, axis_map: AxisMap, name: str) -> Any:
    if labels is None:
        return None
    array: Any = getattr(labels, "data", labels) if not isinstance(labels, np.ndarray) else labels
    if tuple(array.shape) != axis_map.grid_shape:
        raise InputError(f'The labels have the shape {tuple(array.shape)}, "{name}" {axis_map.grid_shape}. They must be equal.')
    if np.dtype(array.dtype).kind not in "biu":
        raise InputError(f"Labels are whole numbers; these are {array.dtype}. Round them first.")
    return array


def _plane(labels: Any, axis_map: AxisMap, position: dict[str, int]) -> NDArray[Any] | None:
    """Return the labels of one plane, rows first."""
    if labels is None:
        return None
    plane = np.asarray(labels[tuple(position.get(axis, slice(None)) for axis in axis_map.grid_axes)])
    left = [axis for axis in axis_map.grid_axes if axis not in position]
    return plane if left == list(axis_map.spatial) else plane.T


def _places(part: Part, labels: NDArray[Any] | None, size: tuple[int, int], *, objects: bool) -> Iterator[tuple[tuple[float, float], int]]:
    """Yield the middle of each tile or object, and its label."""
    if objects and labels is not None:
        values, inverse = np.unique(labels, return_inverse=True)
        numbered = inverse.reshape(labels.shape)
        middles = ndimage.center_of_mass(np.ones(labels.shape, np.uint8), numbered, np.arange(len(values)))
        yield from (((middle[0], middle[1]), int(value)) for value, middle in zip(values, middles, strict=True) if value != 0)
        return
    for top in _starts(part.shape[0], size[0]):
        for left in _starts(part.shape[1], size[1]):
            inside = None if labels is None else labels[top : top + size[0], left : left + size[1]]
            label = 0 if inside is None else int(_most_frequent(inside))
            yield (top + (size[0] - 1) / 2, left + (size[1] - 1) / 2), label


def _starts(side: int, tile: int) -> range | list[int]:
    return range(0, side - tile + 1, tile) if side >= tile else [0]


def _most_frequent(values: NDArray[Any]) -> Any:
    found, counts = np.unique(values, return_counts=True)
    return found[counts.argmax()]


def _tile(part: Part, middle: tuple[float, float], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the tile around a place; what lies beyond the image is mirrored."""
    starts = [round(place - (length - 1) / 2) for place, length in zip(middle, size, strict=True)]
    inside = [
        (min(max(start, 0), max(side - 1, 0)), max(min(start + length, side), 1))
        for start, length, side in zip(starts, size, part.shape, strict=True)
    ]
    tile = part.source.read(tuple(slice(*span) for span in inside))
    missing = [(span[0] - start, start + length - span[1]) for span, start, length in zip(inside, starts, size, strict=True)]
    return np.pad(tile, [(0, 0), *missing], mode="symmetric")


def _position(axis_map: AxisMap, position: dict[str, int], middle: tuple[float, float]) -> list[float]:
    places: dict[str, float] = {**position, **dict(zip(axis_map.spatial, middle, strict=True))}
    return [places[axis] for axis in axis_map.grid_axes]
