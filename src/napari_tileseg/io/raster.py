"""PNG, JPEG and BMP, with Pillow (and imagecodecs for the 16-bit colour PNGs that Pillow would cut to 8 bits)."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from napari_tileseg.errors import InputError, OutputError, TileSegError
from napari_tileseg.io.files import amount, check_readable, damaged
from napari_tileseg.io.lazy import LazyArray
from napari_tileseg.io.looks import Looks
from napari_tileseg.io.notes import restored
from napari_tileseg.io.ome import annotation
from napari_tileseg.io.order import ordered
from napari_tileseg.io.output import smallest_dtype, survey
from napari_tileseg.io.units import is_length, length_factor
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["read_raster", "write_png"]

_KEY = "napari-tileseg"


def read_raster(path: Path, *, series: int = 0, level: int = 0, lazy: bool = False) -> Volume:
    """Read a picture: ``"YX"`` if it is grey, ``"YXC"`` if it has colours; palettes are resolved, transparency is left out.

    Rotation notes of cameras are not applied: rows and columns stay those of the file.

    Parameters
    ----------
    path : Path
        The file.
    series, level : int
        Must be 0.
    lazy : bool
        Unpack the picture when it is indexed, where its header says what it is.

    Raises
    ------
    InputError
        If the file is missing, empty, cut off or no such picture.
    """
    check_readable(path)
    kind = path.suffix.lstrip(".").upper().replace("JPG", "JPEG")
    if series or level:
        raise InputError(f'"{path.name}" holds one image. Choose series 0 and level 0.')
    try:
        pixels, text = (_later(path) if lazy else None) or _unpacked(path)
    except UnidentifiedImageError as error:
        raise damaged(path, kind) from error
    except (OSError, SyntaxError, ValueError, RuntimeError) as error:
        if "truncated" in str(error).lower() or (isinstance(error, OSError) and not error.errno):
            raise InputError(f'"{path.name}" ends too early, after {amount(path.stat().st_size)}. Copy it again.') from error
        raise damaged(path, kind) from error
    axes = "YX" if pixels.ndim == 2 else "YXC"
    channels = ("red", "green", "blue") if pixels.ndim == 3 else ()
    return _restored(Volume(pixels, axes, name=path.stem, channel_names=channels, metadata={"format": kind.lower()}), text)


def _unpacked(path: Path) -> tuple[Any, Mapping[Any, Any]]:
    return (_deep_png(path), {}) if _is_deep_colour(path) else _pixels(path)


def _later(path: Path) -> tuple[Any, Mapping[Any, Any]] | None:
    """Return an array that is unpacked when somebody looks at it; None where only the pixels tell what it is."""
    with warnings.catch_warnings(), Image.open(path) as image:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        grey = image.mode in ("1", "L", "LA") or image.mode.startswith("I;16")
        if not grey and image.mode not in ("RGB", "RGBA"):
            return None
        deep = image.mode.startswith("I;16") or _is_deep_colour(path)
        shape = (image.height, image.width) if grey else (image.height, image.width, 3)
        kind = np.dtype(bool) if image.mode == "1" else np.dtype(np.uint16 if deep else np.uint8)
        return LazyArray(shape, kind, lambda box: _unpacked(path)[0][box]), dict(image.info)


def _pixels(path: Path) -> tuple[NDArray[Any], Mapping[Any, Any]]:
    with warnings.catch_warnings(), Image.open(path) as image:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large pictures are our business
        image.load()
        text = dict(image.info)
        mode = image.mode
        if mode == "P" and _KEY in text:  # labels of ours, whose colours are for the eye
            return np.array(image), text
        if mode == "P":
            # A palette of greys is a grey picture: it must not look like one of three channels.
            colours = image.convert("RGB")
            pixels = np.asarray(colours)
            grey = bool((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
            return np.ascontiguousarray(pixels[..., 0]) if grey else pixels, text
        if mode in ("LA", "La"):
            return np.asarray(image)[..., 0].copy(), text
        if mode in ("RGBA", "RGBa", "RGBX"):
            return np.asarray(image)[..., :3].copy(), text
        if mode in ("1", "L", "RGB", "I", "F") or mode.startswith("I;16"):
            pixels = np.asarray(image)
            return pixels.astype(np.uint16) if mode.startswith("I;16") else _unsigned(pixels), text
        return np.asarray(image.convert("RGB")), text


def _unsigned(pixels: NDArray[Any]) -> NDArray[Any]:
    """Undo that Pillow opens some 16-bit pictures with 32 bits."""
    if pixels.dtype == np.int32 and pixels.min() >= 0 and pixels.max() <= 65535:
        return pixels.astype(np.uint16)
    return np.array(pixels)


def _is_deep_colour(path: Path) -> bool:
    """Say whether the file is a PNG with 16 bits a channel and more than one channel (PNG 1.2, section 4.1.1)."""
    with path.open("rb") as stream:
        head = stream.read(26)
    return head[:8] == b"\x89PNG\r\n\x1a\n" and len(head) == 26 and head[24] == 16 and head[25] in (2, 4, 6)


def _deep_png(path: Path) -> NDArray[Any]:
    from imagecodecs import png_decode

    pixels = np.asarray(png_decode(path.read_bytes()))
    colours = 1 if pixels.shape[-1] <= 2 else 3
    return pixels[..., 0].copy() if colours == 1 else pixels[..., :3].copy()


def _restored(volume: Volume, text: Mapping[Any, Any]) -> Volume:
    """Return labels with what `write_png` noted of them; pictures of other programs as they are."""
    try:
        note = {key: json.loads(value) for key, value in json.loads(text[_KEY]).items()}
        return restored(volume, note) if "axes" in note else volume
    except (KeyError, TypeError, ValueError, AttributeError, TileSegError):
        return volume


def write_png(
    labels: Volume, path: Path, *, classes: tuple[str, ...], colors: tuple[str, ...], provenance: Mapping[str, Any] | None
) -> None:
    """Write the labels of one plane as PNG: up to 255 in the colours of the classes (indexed), up to 65535 in 16-bit grey.

    The index of a pixel, or its grey value, is its label. Place, classes, colours and provenance go into a text chunk.

    Raises
    ------
    OutputError
        If there is more than one plane, or a label is negative or above 65535.
    """
    if sorted(labels.axes) != ["X", "Y"]:
        raise OutputError(f"PNG holds one plane; these labels have the axes {labels.axes}. Save them as .ome.tif.")
    canonical = ordered(labels, "YX")
    found = survey(canonical)
    dtype = smallest_dtype(found, ("uint8", "uint16"), "PNG")
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(_KEY, json.dumps(annotation(canonical, classes=classes, colors=colors, provenance=provenance)))
    picture = Image.fromarray(np.ascontiguousarray(np.asarray(canonical.data[...]).astype(dtype)))
    if dtype == np.uint8:
        looks = Looks(classes, colors, found.highest)
        shades = [part for label in range(1, found.highest + 1) for part in looks.of(label).own]
        picture.putpalette([0, 0, 0, *shades])
    # Pillow would drop the indices that no pixel has, and number the others anew.
    picture.save(path, format="PNG", pnginfo=chunks, optimize=False, bits=8, **_dots_per_metre(canonical))


def _dots_per_metre(labels: Volume) -> dict[str, Any]:
    """Return the resolution for the pHYs chunk, where the pixel size is known."""
    if not all(is_length(labels.unit[axis]) for axis in "XY"):
        return {}
    steps = [labels.spacing[axis] * length_factor(labels.unit[axis], "meter") for axis in "XY"]
    if not all(2**-31 < step < 1 for step in steps):
        return {}
    return {"dpi": tuple(0.0254 / step for step in steps)}
