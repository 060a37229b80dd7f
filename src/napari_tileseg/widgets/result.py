"""The layers of one run: made at the first finished slab, filled while it goes on, then the user's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels

from napari_tileseg.io.zarr_store import ZarrLabels
from napari_tileseg.results import highest
from napari_tileseg.segmentation import label_volume
from napari_tileseg.widgets.breaths import in_breaths
from napari_tileseg.widgets.layers import Placement, class_features, label_colors, place_over
from napari_tileseg.widgets.pyramid import stored_parts

if TYPE_CHECKING:
    from collections.abc import Mapping

    import napari
    from numpy.typing import NDArray

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["IN_MEMORY", "Result"]

IN_MEMORY = 1 << 30
"""Labels up to this many bytes are taken into memory when their run is done, so that the scratch file can go."""


class Result:
    """What a run leaves in the viewer.

    Parameters
    ----------
    viewer : napari.Viewer
    image : napari.layers.Image
        The layer it was made from; held by identity.
    volume : Volume
        The same as the run sees it.
    axis_map : AxisMap
    spec : ModelSpec
    """

    def __init__(self, viewer: napari.viewer.Viewer, image: Image, volume: Volume, axis_map: AxisMap, spec: ModelSpec) -> None:
        self.viewer = viewer
        self.image = image
        self.volume = volume
        self.axis_map = axis_map
        self.spec = spec
        self.name = f"{image.name}_{spec.name}"
        self.layers: list[Labels] = []
        self.scores: Image | None = None
        self.uncertainty: Image | None = None
        self.store: ZarrLabels | None = None
        """The finished labels, where they are a pyramid on the disk."""
        self.locked = True
        self._inserted = False
        # Where the labels go is settled now: the image may be moved or removed while the run goes on.
        self.placement: Placement = place_over(image, volume)

    @property
    def shown(self) -> bool:
        """There is a layer, in the viewer or just removed from it."""
        return self._inserted and bool(self.layers)

    def make(self, labels: Any) -> None:
        """Make locked layers over `labels`. napari takes its time for this, and again for `show`: leave it a breath between."""
        if self.layers:
            return
        for number, part in enumerate(self._laid(labels)):
            single = self.spec.output == "sigmoid"
            layer = Labels(
                part,
                multiscale=isinstance(part, list),
                name=f"{self.name}_{self.spec.classes[number]}" if single else self.name,
                colormap=label_colors(self.spec, number if single else None),
                metadata=self._metadata(),
                **self.placement.arguments,
            )
            layer.editable = False
            layer.events.editable.connect(self._hold)
            self.layers.append(layer)

    def show(self, labels: Any) -> None:
        """Put the layers above the image."""
        self.make(labels)
        at = self._index_above_image()
        for number, layer in enumerate(self.layers):
            with in_breaths(layer):
                self.viewer.layers.insert(at + number, layer)
        self._inserted = True
        self.lock()
        self.viewer.layers.selection.active = self.layers[-1]

    def follow(self, labels: Any) -> None:
        """Look at another array (the one that a continued run fills) and lock the layers again."""
        for layer, part in zip(self.layers, self._laid(labels), strict=True):
            layer.data = part
        self.lock()

    def refresh(self) -> None:
        """Draw what has been filled in since."""
        for layer in self.layers:
            layer.refresh(extent=False, highlight=False, thumbnail=False)

    def lock(self) -> None:
        """Keep hands off while the run writes; the undo history starts clean."""
        self.locked = True
        for layer in self.layers:
            layer.editable = False

    def unlock(self) -> None:
        """Let the user paint."""
        self.locked = False
        for layer in self.layers:
            layer.editable = not layer.multiscale  # napari paints on layers of one level only

    def finish(self, labels: Any, features: Mapping[str, NDArray[Any]], provenance: Mapping[str, Any]) -> None:
        """Take the finished labels, name their classes, keep their provenance and let the user paint."""
        self.store = labels if isinstance(labels, ZarrLabels) else None
        for number, (layer, part) in enumerate(zip(self.layers, self._laid(labels), strict=True)):
            layer.data = part
            own = {"index": np.arange(2), "class": np.array(["", self.spec.classes[number]], dtype=object)}
            layer.features = own if self.spec.output == "sigmoid" else dict(features)
            layer.metadata = {**layer.metadata, "tileseg": dict(provenance)}
        self.lock()
        self.unlock()

    def show_scores(self, scores: NDArray[Any], provenance: Mapping[str, Any]) -> None:
        """Add the scores as one image layer, class first, hidden so that it does not cover the labels.

        The single score of an anomaly model is a layer of the image's own axes, and shown.
        """
        if self.spec.output == "anomaly":
            self.scores = Image(
                self.placement.lay(scores[0]),
                name=f"{self.name}_anomaly map",
                rgb=False,
                colormap="inferno",
                blending="additive",
                opacity=0.7,
                metadata={"tileseg": dict(provenance), "classes": list(self.spec.score_names)},
                **self.placement.arguments,
            )
            self.viewer.layers.insert(self._index_above_image(), self.scores)
            self.viewer.layers.selection.active = self.layers[-1]
            return
        arguments = {name: _grown(name, value) for name, value in self.placement.arguments.items()}
        data = scores if self.placement.kept is None else np.expand_dims(scores, self.placement.kept + 1)
        self.scores = Image(
            data,
            name=f"{self.name}_scores",
            visible=False,
            rgb=False,
            metadata={"tileseg": dict(provenance), "classes": list(self.spec.score_names)},
            **arguments,
        )
        self.viewer.layers.insert(self._index_above_image(), self.scores)

    def show_uncertainty(self, uncertainty: NDArray[Any], provenance: Mapping[str, Any]) -> None:
        """Add how unsure the model is as an image layer, hidden until somebody asks."""
        self.uncertainty = Image(
            self.placement.lay(uncertainty),
            name=f"{self.name}_uncertainty",
            visible=False,
            rgb=False,
            colormap="magma",
            contrast_limits=(0, 1),
            opacity=0.5,
            metadata={"tileseg": dict(provenance)},
            **self.placement.arguments,
        )
        self.viewer.layers.insert(self._index_above_image(), self.uncertainty)

    def owns(self, layer: object) -> bool:
        return any(layer is own for own in self.layers)

    @property
    def missing(self) -> bool:
        """A layer of this result was removed from the viewer."""
        return any(layer not in self.viewer.layers for layer in self.layers)

    def restore(self) -> None:
        """Put removed layers back where they were."""
        at = self._index_above_image()
        for number, layer in enumerate(self.layers):
            if layer not in self.viewer.layers:
                self.viewer.layers.insert(min(at + number, len(self.viewer.layers)), layer)

    def remove(self) -> None:
        """Take the layers out of the viewer."""
        layers, self.layers = self.layers, []
        for layer in [*layers, *(extra for extra in (self.scores, self.uncertainty) if extra is not None)]:
            if layer in self.viewer.layers:
                self.viewer.layers.remove(layer)

    def detach(self) -> None:
        """Take the data off the scratch file where it fits into memory, so that the file can go."""
        for layer in self.layers:
            if isinstance(layer.data, np.memmap) and layer.data.nbytes <= IN_MEMORY:
                layer.data = np.array(layer.data)

    def labels_volume(self) -> Volume:
        """Return the labels as they are now, edits included, with their place in the world."""
        if self.store is not None:
            return label_volume(self.store, self.axis_map.result_axes, self.volume)
        parts = [self.placement.take(np.asarray(layer.data)) for layer in self.layers]
        data = np.stack(parts) if self.spec.output == "sigmoid" else parts[0]
        return label_volume(data, self.axis_map.result_axes, self.volume)

    def _metadata(self) -> dict[str, Any]:
        """Return what a layer holds before its run is done; the second part is what napari's own Save needs."""
        known = {**self.volume.metadata, "labels": True, "classes": list(self.spec.classes), "colors": list(self.spec.colors)}
        return {"tileseg": {"model": {"name": self.spec.name}, "state": "unfinished"}, "tileseg_volume": known}

    def _laid(self, labels: Any) -> list[Any]:
        """Return the data of each layer: an array, or a list of levels."""
        masks = self.spec.output == "sigmoid"
        if isinstance(labels, ZarrLabels):
            return list(stored_parts(labels, self.placement.kept, masks=masks))
        return [self.placement.lay(part) for part in (labels if masks else [labels])]

    def _index_above_image(self) -> int:
        layers = self.viewer.layers
        index: int = layers.index(self.image) + 1 if self.image in layers else len(layers)
        return index

    def _hold(self) -> None:
        """Lock again: napari makes a layer editable whenever its data is set."""
        if self.locked:
            for layer in self.layers:
                if layer.editable:
                    layer.editable = False


def finished_features(spec: ModelSpec, labels: Any, table: Mapping[str, NDArray[Any]] | None) -> dict[str, NDArray[Any]]:
    """Return the features of a finished layer: class names, and the objects table where there is one."""
    if spec.output == "sigmoid":
        return {}
    features = class_features(spec, highest(labels) if spec.finds_objects else 0)
    rows = len(features["index"])
    for name, column in (table or {}).items():
        if name == "index":
            continue
        full = np.full(rows, np.nan)
        full[np.asarray(table["index"], dtype=np.int64)] = column  # type: ignore[index]  # a table has this column
        features[name] = full
    return features


def _grown(name: str, value: Any) -> Any:
    """Add one leading axis to a placement."""
    if name == "scale":
        return np.concatenate([[1.0], value])
    if name == "translate":
        return np.concatenate([[0.0], value])
    if name in ("rotate", "shear", "affine"):
        grown = np.eye(len(value) + 1)
        grown[1:, 1:] = value
        return grown
    return (("pixel" if name == "units" else "class"), *value)
