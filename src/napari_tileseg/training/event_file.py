"""``EventFile``: numbers and pictures of a training, as TensorBoard reads them while it goes on."""

from __future__ import annotations

import contextlib
import io
import struct
import time
from typing import TYPE_CHECKING, Any, Self

from PIL import Image
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c

from napari_tileseg.io.output import refused

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["EVENT_FILES", "EventFile"]

EVENT_FILES = "events.out.tfevents.*"
"""Names of such files. Nothing follows the moment and the number: what else writes them puts the computer's name there."""


class EventFile:
    """A new file in a folder; earlier ones in it stay, and what they say of this step and later ones does not count any more.

    Parameters
    ----------
    folder : Path
        Made if it is not there.
    first : int
        The first step that is going to be told.

    Raises
    ------
    OutputError
        If it cannot be written there; from every other method too.
    """

    def __init__(self, folder: Path, first: int = 0) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            number = sum(1 for _ in folder.glob(EVENT_FILES))
            self.path = folder / EVENT_FILES.replace("*", f"{int(time.time()):010d}.{number:04d}")
            self._file = self.path.open("xb")
        except OSError as error:
            raise refused(folder, error) from error
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write(Event(wall_time=time.time(), step=first, session_log=SessionLog(status=SessionLog.START)))

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        """Tell numbers by name; ``"a/b"`` stands in the group a."""
        summary = Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()])
        self._write(Event(wall_time=time.time(), step=step, summary=summary))

    def picture(self, step: int, name: str, pixels: NDArray[np.uint8]) -> None:
        """Tell an RGB picture (Y, X, 3)."""
        content = io.BytesIO()
        Image.fromarray(pixels).save(content, format="PNG")
        height, width, channels = pixels.shape
        image = Summary.Image(height=height, width=width, colorspace=channels, encoded_image_string=content.getvalue())
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=[Summary.Value(tag=name, image=image)])))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, event: Any) -> None:
        body = event.SerializeToString()
        head = struct.pack("<Q", len(body))
        try:
            # A frame of TFRecord. The RecordWriter of tensorboardX waits for the disk after each one.
            self._file.write(head + struct.pack("<I", masked_crc32c(head)) + body + struct.pack("<I", masked_crc32c(body)))
            self._file.flush()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.close()
            raise refused(self.path, error) from error
