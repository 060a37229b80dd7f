"""Images that a model has made up, written so that no program takes them for real ones unawares."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

from napari_tileseg.io.output import put_in_place

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["FORMATS", "SENTENCE", "write_synthetic"]

FORMATS = ("png", "tif")
"""What synthetic images can be saved as."""

SENTENCE = "Synthetic image made by a generative model (napari-tileseg); it shows nothing real."


def write_synthetic(image: NDArray[np.float32], path: Path, facts: Mapping[str, Any]) -> None:
    """Write an image that a model has made.

    Parameters
    ----------
    image : ndarray of float32, shape (C, Y, X)
        From 0 to 1.
    path : Path
        ``.png`` for 1 or 3 channels of 8 bits, ``.tif`` for any number of float32. Nothing is replaced.
    facts : mapping
        How it came to be, fit for JSON: stands with `SENTENCE` in the file's description.

    Raises
    ------
    OutputError
        One sentence: why it cannot be written there.
    """
    note = json.dumps({"description": SENTENCE, **facts}, sort_keys=True)
    with put_in_place(path, overwrite=False) as temporary:
        if path.suffix == ".png":
            pixels = np.round(image * 255).astype(np.uint8)
            text = PngImagePlugin.PngInfo()
            text.add_text("Description", note)
            text.add_text("Software", "napari-tileseg")
            Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)).save(temporary, format="PNG", pnginfo=text)
        else:
            # No OME-XML, and no channel axis where there is one channel: any program opens it.
            tifffile.imwrite(
                temporary,
                image if len(image) > 1 else image[0],
                photometric="minisblack",
                compression="zlib",
                metadata=None,
                description=note,
                software="napari-tileseg",
            )
