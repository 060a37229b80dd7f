"""Weights of Keras in HDF5: arrays by the names of layers; nothing else of such a file is looked at, and nothing in it runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from napari_tileseg.errors import WeightsError
from napari_tileseg.models.archive import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["KerasWeights"]

_DEEPEST = 8
_MOST = 10_000
"""Groups and arrays that a file may have."""

_GROWTH = 64
"""How often an array may be larger than what is stored of it."""


class KerasWeights:
    """The arrays of a file, found but not read.

    Parameters
    ----------
    path : Path
        ``weights_best.h5``.

    Raises
    ------
    WeightsError
        If it is no intact HDF5 file, or one that points to other files, or declares more than it holds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[tuple[str, str], str] = {}
        self.shapes: dict[tuple[str, str], tuple[int, ...]] = {}
        with self._opened() as file:
            self._count = 0
            self._scan(file, [], 0)
        if not self.shapes:
            raise WeightsError(f"{printable(path.name)} holds no weights of Keras. Get the model again.")

    @property
    def layers(self) -> list[str]:
        """Names of the layers that have weights."""
        return list(dict.fromkeys(layer for layer, _ in self.shapes))

    def read(self, layer: str, name: str) -> NDArray[np.float32]:
        """Return an array, such as ``read("features", "kernel")``."""
        with self._opened() as file:
            return np.asarray(file[self._places[layer, name]][()], np.float32)

    @contextmanager
    def _opened(self) -> Iterator[Any]:
        try:
            with h5py.File(self._path, "r") as file:
                yield file
        except WeightsError:
            raise
        except (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError, RecursionError) as error:
            reason = printable(str(error).split("\n")[0]) or type(error).__name__
            raise WeightsError(f"{printable(self._path.name)} is no intact file of weights ({reason}). Get the model again.") from None

    def _scan(self, group: Any, above: list[str], depth: int) -> None:
        for name in group:
            self._count += 1
            if self._count > _MOST or depth > _DEEPEST:
                raise WeightsError(f"{printable(self._path.name)} is nested or cut too finely for weights. It was not read.")
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                raise WeightsError(f"{printable(self._path.name)} points to another place at {printable(name)}. It was not read.")
            item = group[name]
            if isinstance(item, h5py.Group):
                self._scan(item, [*above, name], depth + 1)
            elif isinstance(item, h5py.Dataset) and above and above[0] not in ("optimizer_weights", "top_level_model_weights"):
                self._note(item, above, name)

    def _note(self, item: Any, above: list[str], name: str) -> None:
        label = printable("/".join([*above, name]))
        if item.is_virtual or item.external is not None:
            raise WeightsError(f"{printable(self._path.name)} keeps {label} in another file. Such weights are not read.")
        if item.dtype.kind != "f":
            return
        if item.size * item.dtype.itemsize > _GROWTH * (item.id.get_storage_size() + 1024):
            raise WeightsError(f"{printable(self._path.name)} declares {label} far larger than what it holds. It was not read.")
        # A whole model is kept under model_weights; layers may be nested in their own names.
        start = 1 if above[0] == "model_weights" and len(above) > 1 else 0
        key = (above[start], name.partition(":")[0])
        self._places[key] = "/".join([*above, name])
        self.shapes[key] = tuple(item.shape)
