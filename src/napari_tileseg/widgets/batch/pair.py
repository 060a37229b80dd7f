"""``Pair``: the image and the result of one file in the viewer; the next one takes their place."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer
from qtpy.QtCore import QTimer

from napari_tileseg.batch.naming import stem_of
from napari_tileseg.errors import InputError
from napari_tileseg.io.napari_hooks import pyramid_layers
from napari_tileseg.io.registry import find_format, read_volume
from napari_tileseg.widgets.breaths import in_breaths

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import napari

    from napari_tileseg.io.napari_hooks import LayerData
    from napari_tileseg.widgets.batch.rows import Row

__all__ = ["Pair", "Shown", "read_pair"]

_BREATH = 40
"""Milliseconds between two layers."""

_MEASURED = 1 << 27
"""Images with so many numbers at most are looked through for their contrast while they are read; napari itself samples larger ones."""

_KEPT = {Image: ("visible", "gamma", "interpolation2d"), Labels: ("visible", "contour", "opacity", "blending")}
"""What a user may have set for one file and wants for the next."""


@dataclass(frozen=True, eq=False)
class Shown:
    """What is to be shown of a file: layers as napari's readers give them, the image's first."""

    image: list[LayerData]
    labels: list[LayerData]
    problem: str = ""


def read_pair(row: Row, *, image: bool = True) -> Shown:
    """Open image and result of a file; large ones are read as they are looked at. Not for Qt's thread.

    Parameters
    ----------
    row : Row
    image : bool
        Whether the image is wanted too.
    """
    pictures: list[LayerData] = []
    problem = ""
    if image:
        try:
            pictures = [_measured(item) for item in pyramid_layers(read_volume(row.input, series=row.series))]
        except InputError as error:
            problem = str(error)
    results: list[LayerData] = []
    if row.output and row.state == "done" and find_format(row.output) is None:
        problem = problem or f'"{Path(row.output).name}" is a table or a mesh, which is not shown here. Open it in the program it is for.'
    elif row.output and row.state == "done":
        try:
            results = [_as_labels(item, row) for item in pyramid_layers(read_volume(row.output))]
        except InputError as error:
            problem = problem or str(error)
    return Shown(pictures, results, problem)


def _measured(item: LayerData) -> LayerData:
    """Add the range of the numbers, which napari would otherwise look for while the window waits."""
    data, meta, kind = item
    finest = data[0] if isinstance(data, list) else data
    if kind != "image" or meta.get("rgb") or not isinstance(finest, np.ndarray) or not 0 < finest.size <= _MEASURED:
        return item
    low, high = float(np.nanmin(finest)), float(np.nanmax(finest))
    return (data, meta | {"contrast_limits": (low, high)}, kind) if np.isfinite([low, high]).all() and low < high else item


def _as_labels(item: LayerData, row: Row) -> LayerData:
    data, meta, _ = item
    look = {key: value for key, value in meta.items() if key not in ("rgb", "contrast_limits")}
    if meta.get("blending") == "additive":
        look = {key: value for key, value in look.items() if key not in ("blending", "colormap")}
    return data, look | {"name": f"{stem_of(Path(row.input).name)[0]}_{row.model}"}, "labels"


class Pair:
    """One image and its result, replaced by the next ones, unless somebody has painted on them: those layers stay.

    Parameters
    ----------
    viewer : napari.viewer.Viewer
    """

    def __init__(self, viewer: napari.viewer.Viewer) -> None:
        self._viewer = viewer
        self.layers: list[Layer] = []
        self._edited: set[int] = set()
        self._number = 0

    def show(self, shown: Shown) -> None:
        """Put the layers of another file in the place of those of the last one."""
        self._number += 1
        old = [layer for layer in self.layers if layer in self._viewer.layers]
        items = [*shown.image, *shown.labels]
        if len(old) == len(self.layers) and not self._edited and _alike(old, items):
            deeds: list[Callable[[], object]] = [partial(_refill, layer, item) for layer, item in zip(old, items, strict=True)]
            anew = any(np.shape(_finest(layer.data)) != np.shape(_finest(item[0])) for layer, item in zip(old, items, strict=True))
        else:
            anew = True
            deeds = self._replace(old, items)
        if anew and items:
            deeds.append(self._viewer.reset_view)
        self._in_turn(deeds)

    def _replace(self, old: list[Layer], items: list[LayerData]) -> list[Callable[[], object]]:
        """Make new layers, and return what adds them; the old ones go, unless somebody has painted on them."""
        kept = {type(layer): {name: getattr(layer, name) for name in _KEPT.get(type(layer), ())} for layer in old}
        if not self._edited:
            for layer in old:
                self._viewer.layers.remove(layer)
        self._edited = set()
        self.layers = [Layer.create(*item) for item in items]
        for layer in self.layers:
            for name, value in kept.get(type(layer), {}).items():
                setattr(layer, name, value)
            if isinstance(layer, Labels):
                layer.events.paint.connect(lambda event, layer=layer: self._edited.add(id(layer)))
                layer.events.labels_update.connect(lambda event, layer=layer: self._edited.add(id(layer)))
        return [partial(self._add, layer) for layer in self.layers]

    def _in_turn(self, deeds: list[Callable[[], object]]) -> None:
        """Do one thing after the other, a breath between two, until another file is asked for.

        Each begins only when the one before it is over: on a busy computer both were due at once, and labels that came in before their
        image lay under it.
        """
        number = self._number

        def go_on() -> None:
            if number == self._number and deeds:
                deeds.pop(0)()
                QTimer.singleShot(_BREATH, go_on)

        QTimer.singleShot(0, go_on)

    def _add(self, layer: Layer) -> None:
        with in_breaths(layer):
            self._viewer.layers.append(layer)


def _alike(layers: Sequence[Layer], items: Sequence[LayerData]) -> bool:
    """Tell whether layers can simply hold other arrays: napari stands still for long when layers come and go."""
    return bool(layers) and len(layers) == len(items) and all(_fits(layer, *item) for layer, item in zip(layers, items, strict=True))


def _fits(layer: Layer, data: Any, meta: dict[str, Any], kind: str) -> bool:
    same = type(layer).__name__.lower() == kind and layer.multiscale == isinstance(data, list) and not layer.multiscale
    rgb = bool(getattr(layer, "rgb", False))
    return same and rgb == bool(meta.get("rgb")) and layer.ndim == np.ndim(data) - rgb and "affine" not in meta and "colormap" not in meta


def _refill(layer: Layer, item: LayerData) -> None:
    """Give a layer the array of another file, and its place."""
    data, meta, _ = item
    layer.data = data
    for name in ("name", "scale", "translate", "units", "axis_labels", "contrast_limits", "metadata", "features"):
        if name in meta:
            setattr(layer, name, meta[name])


def _finest(data: Any) -> Any:
    return data[0] if isinstance(data, list | tuple) else data
