"""Edits as bytes: for a journal on the disk, and for steps that wait in a temporary file.

::

    head length (4 bytes)   head: JSON {"tool", "note", "about", "deltas": [{"start", "shape", "dtype", "pixels", "before", "after"}]}
    values of the first delta before, after; of the second; ...                   ("before", "after": their lengths in bytes)
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import numpy as np

from napari_tileseg.refine.delta import Edit, PackedDelta

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["edit_bytes", "edit_from"]


def edit_bytes(edit: Edit) -> bytes:
    """Return an edit as bytes."""
    deltas = [delta.packed() for delta in edit.deltas]
    head = {
        "tool": edit.tool,
        "note": edit.note,
        "about": dict(edit.about),
        "deltas": [
            {
                "start": [int(at) for at in delta.start],
                "shape": [int(size) for size in delta.shape],
                "dtype": delta.dtype.str,
                "pixels": delta.pixels,
                "before": len(delta.packed_before),
                "after": len(delta.packed_after),
            }
            for delta in deltas
        ],
    }
    text = json.dumps(head).encode()
    return b"".join([struct.pack("<I", len(text)), text, *(part for delta in deltas for part in (delta.packed_before, delta.packed_after))])


def edit_from(data: bytes) -> Edit:
    """Return the edit that was made bytes."""
    (length,) = struct.unpack_from("<I", data)
    head = json.loads(data[4 : 4 + length])

    def deltas() -> Iterator[PackedDelta]:
        at = 4 + length
        for delta in head["deltas"]:
            middle, end = at + delta["before"], at + delta["before"] + delta["after"]
            dtype = np.dtype(delta["dtype"])
            yield PackedDelta(tuple(delta["start"]), tuple(delta["shape"]), dtype, data[at:middle], data[middle:end], delta["pixels"])
            at = end

    return Edit(head["tool"], tuple(deltas()), head["note"], head.get("about", {}))
