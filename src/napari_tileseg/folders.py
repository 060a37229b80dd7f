"""Where the program keeps models, settings, edits that are not saved yet, and what can be computed again."""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path

import platformdirs

__all__ = ["cache_folder", "edits_folder", "model_folder", "settings_file"]


def cache_folder() -> Path:
    """Return the folder for what can be computed or fetched again.

    ``TILESEG_CACHE`` counts most, then the setting ``cache``; else it is the system's. Not the system's folder for temporary files:
    that often lies in memory.
    """
    if chosen := os.environ.get("TILESEG_CACHE"):
        return Path(chosen)
    file = settings_file()
    try:
        state = file.stat()
    except OSError:
        state = None
    kept = _kept_cache(file, state.st_size, state.st_mtime_ns) if state else None
    return kept or platformdirs.user_cache_path("napari-tileseg", appauthor=False)


def settings_file() -> Path:
    """Return the file that holds the user's settings, see `napari_tileseg.models.settings`; ``TILESEG_SETTINGS`` overrides the default."""
    chosen = os.environ.get("TILESEG_SETTINGS")
    return Path(chosen) if chosen else platformdirs.user_config_path("napari-tileseg", appauthor=False) / "settings.json"


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


@lru_cache(maxsize=8)
def _kept_cache(file: Path, size: int, modified: int) -> Path | None:
    # Size and time are part of the key, so that settings that were written anew are read again.
    try:
        chosen = json.loads(file.read_bytes())["cache"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return Path(chosen) if chosen and isinstance(chosen, str) and Path(chosen).is_absolute() else None
