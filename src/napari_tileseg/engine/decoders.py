"""Which module turns the scores of an instance model into objects; found by name, imported on use."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from napari_tileseg.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["DECODERS", "GROUP", "NOTHING", "ObjectDecoder", "find_decoder", "objects_of", "rim_of"]

DECODERS = {
    "cellpose": "napari_tileseg.engine.flows",
    "stardist": "napari_tileseg.engine.stars",
    "watershed": "napari_tileseg.engine.watershed",
}
"""Decoders of this package: name to module."""

NOTHING = np.float32(-100)
"""First score at the rim of an image that a decoder wants bare: less than any that counts."""

GROUP = "napari_tileseg.decoders"
"""Entry-point group under which other packages offer decoders."""


class ObjectDecoder(Protocol):
    """A module, or any object, with three functions.

    An object must lie in one connected component (corners count as connected) of `foreground`, and may depend on no score
    outside that component and the pixels at most `margin` away from it: so it can be decoded before the rest is known.

    A fourth function is optional: ``rim(parameters, axis, ndim, size)``, how many pixels before and after an image of that size, along
    one of its axes of space, lose the first score, because nothing there may begin an object; at most `margin` of them.

    An attribute ``placed`` that is true asks for the place of what is decoded: among the parameters are then ``size_0``, ``size_1``, ...,
    the size of the whole image, and ``origin_0`` (or that of another axis), where the scores begin in it.
    """

    def foreground(self, scores: NDArray[np.float32], parameters: Mapping[str, float], threshold: float = 0.5) -> NDArray[np.bool_]:
        """Return where objects can be: scores of shape (K, *spatial) to a mask of shape (*spatial)."""
        ...

    def decode(
        self, scores: NDArray[np.float32], parameters: Mapping[str, float], *, threshold: float = 0.5, min_size: float = 0
    ) -> NDArray[Any]:
        """Return objects as integers from 1, background 0, shape (*spatial)."""
        ...

    def margin(self, parameters: Mapping[str, float]) -> int:
        """Return how many pixels around a component may change its objects."""
        ...


def find_decoder(name: str) -> ObjectDecoder:
    """Return the decoder of that name.

    Raises
    ------
    ModelError
        If there is none, or if it cannot be imported or lacks a function.
    """
    offered = {entry.name: entry for entry in entry_points(group=GROUP)}
    try:
        if name in DECODERS:
            found: Any = import_module(DECODERS[name])
        elif name in offered:
            found = offered[name].load()
        else:
            known = ", ".join(sorted({*DECODERS, *offered}))
            raise ModelError(f'The model needs the decoder "{name}", which is not installed. Known decoders are {known}.')
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(f'The decoder "{name}" cannot be loaded ({error}). Reinstall the package that offers it.') from error
    missing = [part for part in ("foreground", "decode", "margin") if not callable(getattr(found, part, None))]
    if missing:
        raise ModelError(f'The decoder "{name}" lacks {", ".join(missing)}(). Update the package that offers it.')
    return cast("ObjectDecoder", found)


def rim_of(decoder: ObjectDecoder, parameters: Mapping[str, float], axis: int, ndim: int, size: int) -> tuple[int, int]:
    """Return how much of the first score does not count before and after an image of that size along an axis of space."""
    rim = getattr(decoder, "rim", None)
    before, after = rim(parameters, axis, ndim, size) if rim else (0, 0)
    return min(before, size), min(after, size)


def objects_of(
    decoder: ObjectDecoder, scores: NDArray[np.float32], parameters: Mapping[str, float], *, threshold: float = 0.5, min_size: float = 0
) -> NDArray[Any]:
    """Return the objects of a whole image from its scores (K, *spatial), as a run finds them slab by slab."""
    spatial = scores.shape[1:]
    rims = [rim_of(decoder, parameters, axis, len(spatial), size) for axis, size in enumerate(spatial)]
    if any(any(rim) for rim in rims):
        scores = scores.copy()
        for axis, (before, after) in enumerate(rims):
            sides = np.moveaxis(scores[0], axis, 0)
            sides[:before] = sides[len(sides) - after :] = NOTHING
    return decoder.decode(scores, parameters, threshold=threshold, min_size=min_size)
