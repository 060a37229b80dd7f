"""Where the program keeps models, edits that are not saved yet, and what can be computed again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_folder", "edits_folder", "model_folder"]


def cache_folder() -> Path:
    """Return the folder for what can be computed again; ``TILESEG_CACHE`` overrides the system's.

    Not the system's folder for temporary files: that often lies in memory.
    """
    chosen = os.environ.get("TILESEG_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("napari-tileseg", appauthor=False)


def model_folder() -> Path:
    """Return the folder of the user's own models; ``TILESEG_MODELS`` overrides the default.

    The default is the platform's data folder: ``%LOCALAPPDATA%`` on Windows, ``~/Library/Application Support``
    on macOS, ``$XDG_DATA_HOME`` or ``~/.local/share`` elsewhere.
    """
    if chosen := os.environ.get("TILESEG_MODELS"):
        return Path(chosen)
    return _data_folder() / "models"


def edits_folder() -> Path:
    """Return the folder for edits of labels that lie in no file yet; ``TILESEG_EDITS`` overrides the default.

    The default lies beside that of the user's own models.
    """
    chosen = os.environ.get("TILESEG_EDITS")
    return Path(chosen) if chosen else _data_folder() / "edits"


def _data_folder() -> Path:
    home = Path.home()
    if os.name == "nt":
        base = Path(os.environ.get("LOCALAPPDATA", home / "AppData/Local"))
    elif os.uname().sysname == "Darwin":
        base = home / "Library/Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME", home / ".local/share"))
    return base / "napari-tileseg"
