"""``Kept``: the scores that a run has left beside its labels, and how they become labels again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image

from napari_tileseg.engine.abnormal import limit_of, whole
from napari_tileseg.engine.decoders import find_decoder, objects_of
from napari_tileseg.errors import InputError, TileSegError
from napari_tileseg.models.registry import find_spec
from napari_tileseg.refine import scores as again
from napari_tileseg.refine.again import blend
from napari_tileseg.refine.delta import Edit
from napari_tileseg.replay import recall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from napari.layers import Labels, Layer
    from numpy.typing import NDArray

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.refine.blocks import Box
    from napari_tileseg.refine.canvas import Canvas
    from napari_tileseg.refine.delta import Change

__all__ = ["Kept", "class_number", "kept_scores"]

_SLAB = 1 << 24
"""Values of scores that are decoded at once where nothing asks for more."""


@dataclass(frozen=True, eq=False)
class Kept:
    """Scores on the grid of some labels.

    Parameters
    ----------
    scores : array-like of float, shape (K, *labels)
        As the network gave them.
    spec : ModelSpec or None
        Of the model; None where it is not on this computer.
    number : int
        Which class's mask the labels are, where each class has labels of its own.
    threshold, min_size : float
        What the labels were decoded with; the size in pixels.
    trouble : str
        Why they cannot be decoded again; empty if they can.
    """

    scores: Any
    spec: ModelSpec | None
    number: int = 0
    threshold: float = 0.5
    min_size: float = 0.0
    trouble: str = ""

    @property
    def kind(self) -> again.Kind:
        """What they are scores of."""
        return self.spec.output if self.spec is not None else "softmax"  # type: ignore[return-value]  # others have `trouble`

    def block(self, box: Box) -> NDArray[Any]:
        """Read the scores in a box of the labels; axes keep their places."""
        return np.asarray(self.scores[(slice(None), *box)])

    def decode(self, block: NDArray[Any], threshold: float, min_size: float) -> NDArray[Any]:
        """Turn scores (K, ...) into labels (...), with only the axes of space in the block."""
        if self.kind == "sigmoid":
            found = again.decode(block[self.number : self.number + 1], "sigmoid", threshold=threshold, min_size=min_size)[0]
            mask: NDArray[Any] = found.view(np.uint8)
            return mask
        return again.decode(block, self.kind, threshold=threshold, min_size=min_size, instances=self._objects, values=self._values)

    @property
    def _values(self) -> tuple[int, ...]:
        return self.spec.region_values if self.spec is not None and self.kind == "regions" else ()

    def limit(self, threshold: float) -> float | None:
        """Return from which score on a pixel is abnormal at a threshold; None where they are no scores of what is abnormal."""
        return limit_of(self.spec.decoder_parameters, threshold) if self.spec is not None and self.kind == "anomaly" else None

    @property
    def least(self) -> float:
        """Pixels below which the model leaves out what is abnormal, whatever else is asked for."""
        return self.spec.decoder_parameters.get("min_size", 0.0) if self.spec is not None and self.kind == "anomaly" else 0.0

    def redecoded(self, canvas: Canvas, threshold: float, min_size: float, cancel: Callable[[], bool]) -> Edit:
        """Return the step that puts labels decoded anew in place of all there are.

        Parameters
        ----------
        canvas : Canvas
            Of the labels.
        threshold : float
        min_size : float
            Fewest pixels of an object, or of a connected part of a class.
        cancel : callable
            Asked between parts; True stops it, and nothing is changed.
        """
        every = tuple(slice(0, size) for size in canvas.shape)
        places = [canvas.place(at).full(tuple(every[axis] for axis in canvas.space)) for at in np.ndindex(*_outer(canvas))]
        if self.kind == "instances":
            found, highest = np.zeros(canvas.shape, np.int32), 0
            for box in places:
                if cancel():
                    return Edit("threshold")
                labels = self.decode(_squeezed(self.block(box), canvas), threshold, min_size)
                found[box] = np.where(labels > 0, labels + highest, 0).reshape(found[box].shape)
                highest = max(highest, int(found[box].max(initial=0)))
            return Edit("threshold", blend(canvas, every, found).deltas, f"{_objects(highest)} at {_told(threshold, min_size)}.")
        deltas: list[Change] = []
        pixels = 0
        for box in (part for place in places for part in self._parts(canvas, place, min_size)):
            if cancel():
                return Edit("threshold")
            edit = again.redecoded(
                canvas,
                box,
                _squeezed(self.block(box), canvas),
                self.kind,
                threshold=threshold,
                min_size=min_size,
                instances=self._objects,
                values=self._values,
                number=self.number,
            )
            deltas += edit.deltas
            pixels += edit.pixels
        return Edit("threshold", tuple(deltas), f"Changed {pixels:,} pixels at {_told(threshold, min_size)}.")

    def _parts(self, canvas: Canvas, box: Box, min_size: float) -> list[Box]:
        """Cut a volume into slabs, where no object must be seen as a whole."""
        axis = canvas.space[0]
        row = max(self.scores.shape[0] * int(np.prod([part.stop - part.start for part in box])) // canvas.shape[axis], 1)
        together = min_size > 1 or self.kind == "anomaly"  # medians look at pixels nearby
        step = canvas.shape[axis] if together else max(_SLAB // row, 1)
        starts = range(0, canvas.shape[axis], step)
        return [(*box[:axis], slice(start, min(start + step, canvas.shape[axis])), *box[axis + 1 :]) for start in starts]

    def _objects(self, block: NDArray[Any], threshold: float, min_size: float) -> NDArray[Any]:
        assert self.spec is not None  # scores of a model that is not here are not decoded
        if self.kind == "anomaly":
            return whole(block, self.spec.decoder_parameters, threshold=threshold, min_size=min_size)
        decoder, parameters = find_decoder(self.spec.decoder), self.spec.decoder_parameters
        return objects_of(decoder, np.ascontiguousarray(block, np.float32), parameters, threshold=threshold, min_size=min_size)

    @property
    def flat(self) -> bool:
        """Whether a slice of a volume can be decoded by itself, for a look; shapes and flows of volumes make no sense in one."""
        return self.kind != "instances" or (self.spec is not None and self.spec.decoder == "watershed")

    @property
    def sureness(self) -> Any:
        """How likely the model holds it that something is there, 0 to 1, an array of the labels' shape; None where scores do not tell."""
        told = self.kind in ("softmax", "sigmoid") or (
            self.kind == "instances" and self.spec is not None and self.spec.decoder == "watershed"
        )
        if self.spec is None or self.trouble or not told:
            return None
        return _Sureness(self)


class _Sureness:
    """The probability of the likeliest class that is no background, computed where it is read."""

    def __init__(self, kept: Kept) -> None:
        self._kept = kept
        self.shape = tuple(int(size) for size in kept.scores.shape[1:])
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        key = key if isinstance(key, tuple) else (key,)
        kept = self._kept
        if kept.kind == "softmax":
            block = np.asarray(kept.scores[(slice(None), *key)], np.float32)
            block = np.exp(block - block.max(axis=0))
            return np.asarray(block[1:].max(axis=0) / block.sum(axis=0))
        assert kept.spec is not None
        logit = np.asarray(kept.scores[(kept.number, *key)], np.float32)
        bias = kept.spec.decoder_parameters.get("foreground_bias", 0.0) if kept.kind == "instances" else 0.0
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-(logit + np.float32(bias)))), np.float32)


def kept_scores(labels: Labels, layers: Sequence[Layer]) -> Kept | None:
    """Return the scores that belong to labels; None where none were kept.

    They are those of the run that made the labels, as both layers tell; of layers that do not tell, those whose name is the labels'
    with ``_scores`` behind it.
    """
    told = labels.metadata.get("tileseg") or {}
    shape = tuple(labels.data[0].shape if labels.multiscale else labels.data.shape)
    spec, trouble = _spec(told) if told.get("model") else (None, "")
    if spec is not None and spec.output == "labels":
        return Kept(None, spec, trouble=trouble)
    alone = spec is not None and spec.output == "anomaly"  # one score for each pixel, without an axis of classes
    found = [
        layer
        for layer in layers
        if isinstance(layer, Image) and not layer.multiscale and not layer.rgb and tuple(layer.data.shape[0 if alone else 1 :]) == shape
    ]
    found = [layer for layer in found if not alone or "classes" in layer.metadata]  # the image and maps of uncertainty have that shape too
    own = _run(told)
    of_run = [layer for layer in found if own and _run(layer.metadata.get("tileseg") or {}) == own]
    named = [layer for layer in found if layer.name in (f"{labels.name}_scores", f"{labels.name}_anomaly map")]
    layer = next(iter([*of_run, *named]), None)
    if layer is None:
        return None
    told = told if "model" in told else layer.metadata.get("tileseg") or {}
    options = told.get("options") or {}
    spec, trouble = _spec(told)
    number = class_number(labels, spec)
    threshold, min_size = float(options.get("threshold", 0.5)), float(options.get("min_size", 0))
    return Kept(_Alone(layer.data) if alone else layer.data, spec, number, threshold, min_size, trouble)


class _Alone:
    """One score for each pixel, as an array (1, ...)."""

    def __init__(self, scores: Any) -> None:
        self._scores = scores
        self.shape = (1, *(int(size) for size in scores.shape))
        self.dtype = np.dtype(scores.dtype)

    def __getitem__(self, key: tuple[Any, ...]) -> NDArray[Any]:
        return np.asarray(self._scores[key[1:]])[None]


def _run(told: dict[str, Any]) -> dict[str, Any]:
    """Return what is the same in the provenance of all layers of one run, and different in others."""
    if "run" not in told:
        return {}
    return {name: told.get(name) for name in ("run", "model", "input", "options", "region")}


def _spec(told: dict[str, Any]) -> tuple[ModelSpec | None, str]:
    """Return the model that scores come from, and why they cannot be decoded."""
    try:
        spec = find_spec(recall(told).job.model)
    except (TileSegError, KeyError) as error:
        return None, str(error) if isinstance(error, TileSegError) else "It is not known which model these scores are of."
    if spec.output == "labels":
        return spec, f"{spec.label} gives labels and no scores: there is no threshold to move. Let it look again, at Here again."
    return spec, ""


def class_number(labels: Labels, spec: ModelSpec | None) -> int:
    """Return the number of the class whose mask labels are; 0 where they are no mask of one."""
    if spec is None or spec.output != "sigmoid":
        return 0
    try:
        name = str(labels.features["class"].iloc[1])
    except (KeyError, IndexError, TypeError):
        name = labels.name
    return next((number for number, known in enumerate(spec.classes) if name == known or name.endswith(f"_{known}")), 0)


def _outer(canvas: Canvas) -> list[int]:
    return [canvas.shape[axis] for axis in canvas.outer]


def _squeezed(block: NDArray[Any], canvas: Canvas) -> NDArray[Any]:
    """Leave out the axes over which no object extends; the block is one step thick along them."""
    gone = tuple(axis + 1 for axis in canvas.outer)
    if any(block.shape[axis] != 1 for axis in gone):
        raise InputError("Scores of several time points are decoded one by one.")
    return block.squeeze(gone) if gone else block


def _told(threshold: float, min_size: float) -> str:
    return f"threshold {threshold:g}" + (f", from {min_size:,.0f} pixels on" if min_size > 0 else "")


def _objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count:,} objects"
