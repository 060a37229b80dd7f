"""``Facing``: how the axes of a volume lie in the body, and a model turned to them, so that the volume itself stays as it is.

A network that knows volumes from one side only (SAR, say: Z to superior, Y to anterior, X to right) gets each tile turned that way,
and its scores are turned back. Tiles are laid where they would lie on the turned volume: along turned axes from the end. ::

    volume (Z to inferior)    tiles from the end    tile turned    network    scores turned back    labels, as the volume is
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from numpy.typing import NDArray

    from napari_tileseg.engine.protocols import Predictor
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["Facing", "FacingPredictor", "facing", "turned", "turned_spec"]

_SPACE = "ZYX"

_WORLD = {"S": ("Z", 1), "I": ("Z", -1), "P": ("Y", 1), "A": ("Y", -1), "L": ("X", 1), "R": ("X", -1)}
"""Axis and direction of the world, whose X grows to the left and Y to the back, that each letter stands for."""


@dataclass(frozen=True)
class Facing:
    """Which axis of the volume each axis of the network is, and which of them are turned around.

    Parameters
    ----------
    network : str
        Axes of the network, as it knows them: ``"ZYX"``, or two of these where it sees planes.
    letters : str
        For each of them that of the volume.
    flips : tuple of bool
        For each of them whether it runs against that of the volume.
    """

    network: str
    letters: str
    flips: tuple[bool, ...]

    @property
    def plain(self) -> bool:
        """Whether nothing is turned."""
        return self.letters == self.network and not any(self.flips)

    @property
    def axes(self) -> str:
        """Axes of the volume that the network sees, in the volume's order."""
        return "".join(axis for axis in _SPACE if axis in self.letters)

    @property
    def order(self) -> tuple[int, ...]:
        """For each axis of the network its place among `axes`."""
        return tuple(self.axes.index(letter) for letter in self.letters)

    def spec(self, spec: ModelSpec) -> ModelSpec:
        """Return the card of the model as it is for this volume."""
        sizes = {name: getattr(spec, name) for name in ("window", "spacing", "output_offset")}
        turned: dict[str, Any] = {name: self._seen(value) for name, value in sizes.items() if value is not None}
        turned["multiple_of"] = self._seen(spec.multiples)
        letters = dict(zip(self.network, self.letters, strict=True))
        if spec.mirror_axes is not None:
            turned["mirror_axes"] = "".join(letters[axis] for axis in spec.mirror_axes)
        turned["from_end"] = "".join(
            letters[axis] for axis, flip in zip(self.network, self.flips, strict=True) if flip != (axis in spec.from_end)
        )
        return spec.model_copy(update={**turned, "axes": f"C{self.axes}", "orientation": ""})

    def options(self, options: SegmentOptions) -> SegmentOptions:
        """Return options whose window is in the order of the volume's axes."""
        if options.window is None or len(options.window) != len(self.order):
            return options
        return options.model_copy(update={"window": self._seen(options.window)})

    def turned(self, array: NDArray[Any]) -> NDArray[Any]:
        """Turn an array whose last axes are those of the volume as the network sees it; a view."""
        leading = array.ndim - len(self.order)
        moved = array.transpose(*range(leading), *(leading + axis for axis in self.order))
        found: NDArray[Any] = np.flip(moved, tuple(leading + axis for axis, flip in enumerate(self.flips) if flip))
        return found

    def _seen(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """Put what belongs to the network's axes into the order of the volume's."""
        return tuple(values[self.order.index(axis)] for axis in range(len(self.order)))


def facing(volume: Volume, spec: ModelSpec) -> Facing | None:
    """Return how a model is to be turned to a volume; None where it is right as it is, or where nobody knows.

    Images have a place in the body where their lengths have a unit, or their format is one of medicine.
    """
    if not spec.orientation or not set(_SPACE) <= set(volume.axes):
        return None
    if volume.metadata.get("format") != "nifti" and any(volume.unit[axis] == "pixel" for axis in _SPACE):
        return None
    places = [volume.axes.index(axis) for axis in _SPACE]
    worlds, signs = _directions(volume.affine[np.ix_(places, places)])
    letters, flips = "", []
    for own, letter in zip(_SPACE, spec.orientation, strict=True):
        if own not in spec.spatial_axes:
            continue  # planes lie across it, and are seen one by one
        axis, sign = _WORLD[letter]
        place = worlds.index(_SPACE.index(axis))
        letters += _SPACE[place]
        flips.append(signs[place] != sign)
    found = Facing(spec.spatial_axes, letters, tuple(flips))
    return None if found.plain else found


def turned_spec(volume: Volume, spec: ModelSpec) -> ModelSpec:
    """Return the card of a model as it is for a volume: its axes are those of the volume that the network sees."""
    found = facing(volume, spec)
    return spec if found is None else found.spec(spec)


def turned(volume: Volume, predictor: Predictor, options: SegmentOptions) -> tuple[Predictor, SegmentOptions]:
    """Return a model turned to a volume, and options in the order of the volume's axes; both as they are where nothing is turned."""
    found = facing(volume, predictor.spec)
    return (predictor, options) if found is None else (FacingPredictor(predictor, found), found.options(options))


def _directions(linear: NDArray[np.float64]) -> tuple[list[int], list[int]]:
    """Return for each axis of a grid the axis of the world that it follows best, each once, and whether along or against it.

    The nearest rotation decides, the clearest axis first, as in nibabel and so in MONAI.
    """
    lengths = np.linalg.norm(linear, axis=0)
    left, values, right = np.linalg.svd(linear / np.where(lengths == 0, 1, lengths))
    keep = values > values.max() * len(values) * np.finfo(float).eps
    rotation = left[:, keep] @ right[keep]
    worlds, signs = [0, 0, 0], [1, 1, 1]
    free = np.ones(3, bool)
    for axis in np.argsort(np.min(-(rotation**2), axis=0)):
        strength = np.where(free, np.abs(rotation[:, axis]), -1.0)
        worlds[axis] = int(np.argmax(strength))
        signs[axis] = -1 if rotation[worlds[axis], axis] < 0 else 1
        free[worlds[axis]] = False
    return worlds, signs


class FacingPredictor:
    """A model that takes tiles as they lie in a volume, and gives scores that lie so too.

    Parameters
    ----------
    inner : Predictor
        The model.
    facing : Facing
        How the volume lies.
    """

    def __init__(self, inner: Predictor, facing: Facing) -> None:
        self.inner, self._facing = inner, facing
        self.spec = facing.spec(inner.spec)
        self._axes = tuple(2 + axis for axis in facing.order)
        self._back = tuple(2 + facing.order.index(axis) for axis in range(len(facing.order)))
        self._flips = tuple(2 + axis for axis, flip in enumerate(facing.flips) if flip)
        if members := getattr(inner, "members", ()):  # of an ensemble: they are called one by one
            self.members = tuple(FacingPredictor(member, facing) for member in members)

    @property
    def device(self) -> str:
        return self.inner.device

    @property
    def module(self) -> Any:
        """The network."""
        return getattr(self.inner, "module", None)

    def __call__(self, batch: torch.Tensor, /) -> Any:
        return self.through(self.inner, batch)

    def through(self, network: Callable[[torch.Tensor], Any], batch: torch.Tensor) -> Any:
        """Call something else on tiles as `inner` would see them, and turn what it returns back."""
        scores = network(batch.permute(0, 1, *self._axes).flip(self._flips).contiguous())
        if not hasattr(scores, "permute") or scores.ndim != batch.ndim:
            return scores  # the loop says what is wrong with it
        return scores.flip(self._flips).permute(0, 1, *self._back)
