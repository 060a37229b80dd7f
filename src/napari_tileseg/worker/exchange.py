"""``BlockServer``: reads boxes of an image for the model's process, in a thread of its own."""

from __future__ import annotations

import contextlib
import queue
import threading
import traceback
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from napari_tileseg.worker.messages import Block, BlockError, Read

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from napari_tileseg.volume import Volume

__all__ = ["BlockServer"]


class BlockServer:
    """Answers reads of one run; a source that hangs holds up this run only.

    Parameters
    ----------
    volume : Volume
        The image; its data is indexed in the server's thread.
    path : Path
        The exchange file; each answer overwrites the one before.
    reply : callable
        Sends an answer to the model's process.
    """

    def __init__(self, volume: Volume, path: Path, reply: Callable[[Block | BlockError], None]) -> None:
        self._volume = volume
        self._path = path
        self._reply = reply
        self._requests: queue.SimpleQueue[Read | None] = queue.SimpleQueue()
        self._file: BinaryIO | None = None
        threading.Thread(target=self._serve, name="tileseg-blocks", daemon=True).start()

    def ask(self, request: Read) -> None:
        """Put a read into the queue."""
        self._requests.put(request)

    def close(self) -> None:
        """End after the read that is going on, and forget the image."""
        self._requests.put(None)

    def _serve(self) -> None:
        with contextlib.ExitStack() as stack:
            while (request := self._requests.get()) is not None:
                self._reply(self._answer(request, stack))
        del self._volume

    def _answer(self, request: Read, stack: contextlib.ExitStack) -> Block | BlockError:
        name = self._volume.name
        try:
            volume = self._volume.levels[request.level - 1] if request.level else self._volume
            block = _read(volume.data, request.box)
        except Exception as error:
            text = f'The image "{name}" could not be read: {_brief(error)} Check that its file is still there.'
            return BlockError(request.request, text, traceback.format_exc())
        try:
            # Plain writes: a full disk then is an error here, and not a signal that ends napari.
            if self._file is None:
                self._file = stack.enter_context(self._path.open("wb"))
            self._file.seek(0)
            self._file.write(block.reshape(-1).view(np.uint8).data)
            self._file.flush()
        except OSError as error:
            text = f"The scratch file {self._path} cannot be written: {error.strerror or error}. Free some space on that disk."
            return BlockError(request.request, text, traceback.format_exc())
        return Block(request.request, str(self._path), block.dtype.str, block.shape)


def _read(data: Any, box: tuple[tuple[int, int, int], ...]) -> NDArray[Any]:
    """Index the array and bring what comes (Dask, Zarr, tensors) into one contiguous NumPy array.

    Raises
    ------
    ValueError
        If the box that comes has another shape, or holds no numbers.
    """
    block = np.ascontiguousarray(data[tuple(slice(*span) for span in box)])
    expected = tuple(len(range(*span)) for span in box)
    if block.shape != expected:
        raise ValueError(f"a box of shape {expected} was asked for, one of shape {block.shape} came.")
    if block.dtype.kind not in "biufc":
        raise ValueError(f"the pixels are of type {block.dtype}, which is no number.")
    return block


def _brief(error: Exception) -> str:
    """Return the last words of an error as a sentence."""
    text = str(error).strip().splitlines()
    words = text[0] if text else type(error).__name__
    return words if words.endswith((".", "!", "?")) else f"{words}."
