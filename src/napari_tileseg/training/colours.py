"""``colours_last``: images whose channels are called red, green and blue, with colours as the last axis, as other images have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.io.order import ordered

if TYPE_CHECKING:
    from napari_tileseg.volume import Volume

__all__ = ["RGB", "colours_last"]

RGB = ("red", "green", "blue")


def colours_last(volume: Volume) -> Volume:
    """Return an image with its colours last; other channels stay where they are, since they may be stains of which one is to be chosen."""
    if "C" not in volume.axes[:-1] or tuple(name.lower() for name in volume.channel_names) != RGB:
        return volume
    return ordered(volume, volume.axes.replace("C", "") + "C")
