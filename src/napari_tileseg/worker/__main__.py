"""The model's process: ``python -m napari_tileseg.worker``; it speaks JSON lines on stdin and stdout and ends with its parent."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

__all__ = ["PATH_VARIABLE", "extend_path", "main"]

PATH_VARIABLE = "NAPARI_TILESEG_PATH"
"""Environment variable that holds the parent's ``sys.path`` as JSON, the folder of this package first."""


def main() -> None:
    """Serve one parent until it closes the pipe."""
    extend_path()
    from napari_tileseg.worker.child import serve
    from napari_tileseg.worker.streams import take_streams

    serve(*take_streams())


def extend_path() -> None:
    """Make sure that what the parent can import can be imported here, and that this package is the parent's.

    Entries that are not known here go to the end, so that nothing in a parent's odd folder can hide a module.
    """
    given = json.loads(os.environ.pop(PATH_VARIABLE, "[]"))
    if not given:
        return
    root, *others = given
    if not _has_package(root):
        sys.path.insert(0, root)
    sys.path.extend(path for path in others if path and path not in sys.path)


def _has_package(root: str) -> bool:
    from importlib.util import find_spec

    found = find_spec("napari_tileseg")
    return found is not None and found.origin is not None and Path(found.origin).parent.parent.samefile(root)


if __name__ == "__main__":
    main()
