"""Decoders that pydicom has no free library for by itself: lossless JPEG, JPEG of 12 bits and JPEG-LS, with imagecodecs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DECODER_DEPENDENCIES", "decode_frame", "install", "is_available"]

_DECODERS: dict[str, Callable[[bytes], Any]] = {
    "1.2.840.10008.1.2.4.51": imagecodecs.jpeg_decode,
    "1.2.840.10008.1.2.4.57": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.70": imagecodecs.ljpeg_decode,
    "1.2.840.10008.1.2.4.80": imagecodecs.jpegls_decode,
    "1.2.840.10008.1.2.4.81": imagecodecs.jpegls_decode,
}
"""By transfer syntax."""

DECODER_DEPENDENCIES = dict.fromkeys(_DECODERS, ("numpy", "imagecodecs"))
"""What pydicom names where a decoder is not there."""


def is_available(uid: str) -> bool:
    """Say whether there is a decoder for a transfer syntax."""
    return uid in _DECODERS


def install() -> None:
    """Offer the decoders to pydicom; more than once does no harm."""
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.uid import UID

    for uid in _DECODERS:
        decoder = get_decoder(UID(uid))
        if "tileseg" not in decoder.available_plugins:
            decoder.add_plugin("tileseg", ("napari_tileseg.io.dicom_codecs", "decode_frame"))


def decode_frame(frame: bytes, runner: Any) -> bytearray:
    """Unpack one frame.

    Parameters
    ----------
    frame : bytes
    runner : pydicom.pixels.decoders.base.DecodeRunner
        Says how many bits the result has.
    """
    pixels = np.asarray(_DECODERS[str(runner.transfer_syntax)](frame))
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    if pixels.ndim == 3:
        runner.set_option("planar_configuration", 0)
    return bytearray(np.ascontiguousarray(pixels).tobytes())
