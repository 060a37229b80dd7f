"""Where the program keeps what can be computed again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """Return the folder for what can be computed again; ``TILESEG_CACHE`` overrides the system's.

    Not the system's folder for temporary files: that often lies in memory.
    """
    chosen = os.environ.get("TILESEG_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("napari-tileseg", appauthor=False)
