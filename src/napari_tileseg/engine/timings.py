"""How long one tile of a model takes on this computer, remembered between runs."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

if TYPE_CHECKING:
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["EXACT", "cache_folder", "recall", "remember", "timing_key"]

EXACT = "exact"
"""Name of exact arithmetic among the ways to compute."""

_MOST = 256
"""Entries kept; the oldest go first."""


def cache_folder() -> Path:
    """Return the folder for what can be computed again; ``TILESEG_CACHE`` overrides the system's."""
    chosen = os.environ.get("TILESEG_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("napari-tileseg", appauthor=False)


def timing_key(spec: ModelSpec, window: tuple[int, ...], device: str, *, threads: int, passes: int = 1) -> str:
    """Return what the time of a tile depends on, as one string; empty for a model without a checksum, which is not remembered."""
    if not spec.weights_sha256:
        return ""
    size = "x".join(str(side) for side in window)
    place = _processor() if device == "cpu" else f"{device} {_processor()}"
    return f"{spec.weights_sha256}|torch {version('torch')}|{place}|{size}|{threads} threads|{passes} passes"


def recall(key: str) -> dict[str, float]:
    """Return seconds for one tile by the way to compute it; empty where nothing is known."""
    found = _load().get(key, {}) if key else {}
    return {name: float(seconds) for name, seconds in found.items() if isinstance(seconds, int | float) and seconds > 0}


def remember(key: str, seconds: dict[str, float]) -> None:
    """Keep seconds for one tile, in addition to what is known; a disk that refuses is no reason to stop."""
    if not key or not seconds:
        return
    known = _load()
    known[key] = {**known.pop(key, {}), **seconds}
    path = _path()
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(dict(list(known.items())[-_MOST:]), indent=1), encoding="utf-8")
        temporary.replace(path)


def _path() -> Path:
    return cache_folder() / "timings.json"


def _load() -> dict[str, dict[str, float]]:
    try:
        found = json.loads(_path().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {key: value for key, value in found.items() if isinstance(value, dict)} if isinstance(found, dict) else {}


@cache
def _processor() -> str:
    """Return the name of the processor; there is no one way to learn it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith(("model name", "Model")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
