"""The child's ends of the pipes, put where no library can print into them, and its log, kept short."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import sys
from typing import BinaryIO

__all__ = ["LOG_BYTES", "shorten_log", "take_streams"]

LOG_BYTES = 1 << 20
"""The log is cut to its last quarter when it grows beyond this."""

_LOG = 2


def take_streams() -> tuple[BinaryIO, BinaryIO]:
    """Return the binary streams from and to the parent; stdin becomes empty, stdout and stderr go to the log."""
    incoming, outgoing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    os.dup2(_LOG, 1)
    # Python's own objects over 0, 1, 2 stay; a character that cannot be encoded must not stop a model that prints it.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="backslashreplace")
    faulthandler.enable()
    return os.fdopen(incoming, "rb"), os.fdopen(outgoing, "wb")


def shorten_log() -> None:
    """Cut the log to its end when it has grown too long; does nothing where stderr is no file."""
    with contextlib.suppress(OSError):
        size = os.fstat(_LOG).st_size
        if size <= LOG_BYTES:
            return
        os.lseek(_LOG, size - LOG_BYTES // 4, os.SEEK_SET)
        tail = os.read(_LOG, LOG_BYTES // 4)
        os.ftruncate(_LOG, 0)
        os.lseek(_LOG, 0, os.SEEK_SET)
        os.write(_LOG, tail)
