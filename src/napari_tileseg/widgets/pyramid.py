"""Large results in the viewer: what a multiscale layer looks at, and a window on it that can be painted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Labels

from napari_tileseg.errors import OptionsError
from napari_tileseg.io.lazy import LazyArray

if TYPE_CHECKING:
    from napari.layers import Layer
    from numpy.typing import NDArray

    from napari_tileseg.io.zarr_store import ZarrLabels
    from napari_tileseg.widgets.regions import Region
    from napari_tileseg.widgets.result import Result

__all__ = ["Window", "looks_at", "stored_parts"]

_MOST_BYTES = 1 << 28
"""Size of the largest window: painting and undoing keep copies of it."""


def stored_parts(store: ZarrLabels, kept: int | None, *, masks: bool) -> list[list[LazyArray]]:
    """Return the levels for each layer of a result.

    Parameters
    ----------
    store : ZarrLabels
    kept : int or None
        Where the layers have an axis of length one that the labels lack (`Placement.kept`).
    masks : bool
        Whether the first axis holds one mask per class, each of which gets a layer.
    """
    levels: list[LazyArray] = store.pyramid()
    parts: list[list[LazyArray]] = [levels]
    if masks:
        parts = [[_Part(level, index) for level in levels] for index in range(store.shape[0])]
    return parts if kept is None else [[_Grown(level, kept) for level in part] for part in parts]


class _Part(LazyArray):
    """One entry of the first axis."""

    def __init__(self, array: LazyArray, index: int) -> None:
        self.base = array
        self._index = index
        self.shape = array.shape[1:]
        self.dtype = array.dtype

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        return np.asarray(self.base[(self._index, *box)])


class _Grown(LazyArray):
    """One more axis, of length one."""

    def __init__(self, array: LazyArray, axis: int) -> None:
        self.base = array
        self._axis = axis
        self.shape = (*array.shape[:axis], 1, *array.shape[axis:])
        self.dtype = array.dtype

    def _read(self, box: tuple[slice, ...]) -> NDArray[Any]:
        return np.expand_dims(self.base[(*box[: self._axis], *box[self._axis + 1 :])], self._axis)


def looks_at(layer: Layer, store: Any) -> bool:
    """Say whether a layer draws from a store."""
    if not getattr(layer, "multiscale", False):
        return False
    level = layer.data[0]
    while isinstance(level, _Part | _Grown):
        level = level.base
    return getattr(level, "store", None) is store


class Window:
    """Part of a large result as a layer of its own, which can be painted; it goes back into the result when it is closed.

    Parameters
    ----------
    result : Result
        The result; its layers are in the viewer.
    store : ZarrLabels
        Its labels.
    number : int
        Which of its layers (the class, where each has one).
    region : Region
        Start and stop along each axis of the image without C.

    Raises
    ------
    OptionsError
        If the region is too large.
    """

    def __init__(self, result: Result, store: ZarrLabels, number: int, region: Region) -> None:
        size = math.prod(stop - start for start, stop in region) * store.dtype.itemsize
        if size > _MOST_BYTES:
            raise OptionsError(f"The region has {size / 1e9:.1f} GB; {_MOST_BYTES / 1e9:.1f} GB can be edited at once. Zoom in first.")
        self._result = result
        self._store = store
        masks = result.spec.output == "sigmoid"
        self.box: Region = (((number, number + 1),) if masks else ()) + tuple(region)
        self._base = base = result.layers[number]
        placement = result.placement
        arguments = dict(placement.arguments)
        offset = np.array([start for start, _ in region], dtype=np.float64)
        offset = offset if placement.kept is None else np.insert(offset, placement.kept, 0)
        linear = np.asarray(arguments["rotate"]) @ np.asarray(arguments["shear"]) @ np.diag(arguments["scale"])
        arguments["translate"] = np.asarray(arguments["translate"]) + linear @ offset
        part = np.asarray(store[tuple(slice(*span) for span in self.box)])
        part = part[0] if masks else part
        self.layer = Labels(
            placement.lay(part),
            name=f"{base.name}_region",
            colormap=base.colormap if not result.spec.finds_objects else None,
            features=base.features,
            metadata=dict(base.metadata),
            **arguments,
        )
        self.layer.selected_label = 1

    def put_back(self) -> None:
        """Write the labels into the result and make its coarser levels anew there.

        Raises
        ------
        OutputError
            If the disk refuses.
        """
        data = self._result.placement.take(np.asarray(self.layer.data))
        self._store[tuple(slice(*span) for span in self.box)] = data[None] if len(self.box) > data.ndim else data
        self._store.rebuild(self.box)
        told = {name: self.layer.metadata[name] for name in ("tileseg",) if name in self.layer.metadata}
        self._base.metadata = {**self._base.metadata, **told}  # which tools were used
        self._base.features = self.layer.features  # what was said of objects
        self._result.refresh()
