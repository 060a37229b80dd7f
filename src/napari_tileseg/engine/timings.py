"""How long one tile of a model takes on this computer, remembered between runs."""

from __future__ import annotations

import contextlib
import json
import os
import platform
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING

from napari_tileseg import __version__
from napari_tileseg.folders import cache_folder
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["EXACT", "RUN", "expected_seconds", "recall", "remember", "timing_key"]

EXACT = "exact"
"""Name of exact arithmetic among the ways to compute."""

RUN = "run "
"""Put before the name of a way: seconds of a clock on the wall, from a run or a probe. Without it they only serve to compare ways."""

_MOST = 256
"""Entries kept; the oldest go first."""


def timing_key(spec: ModelSpec, window: tuple[int, ...], device: str, *, threads: int, tta: object = False) -> str:
    """Return what the time of a tile depends on, as one string; empty for a model without a checksum, which is not remembered."""
    if not spec.weights_sha256:
        return ""
    return "|".join([*_model_and_machine(spec, window, tta), device, f"{threads} threads"])


def expected_seconds(spec: ModelSpec, window: tuple[int, ...], device: str, *, tta: object = False, fast: bool = False) -> float | None:
    """Return how long one tile took when the model last ran on this computer; None where it never did.

    Parameters
    ----------
    spec : ModelSpec
        The model.
    window : tuple of int
        Size of the tile.
    device : str
        As torch names it; ``"auto"`` for whichever was used last.
    tta : object
        The option of that name.
    fast : bool
        Whether faster ways than exact arithmetic count.
    """
    wanted = _model_and_machine(spec, window, tta)
    for key in reversed(_load()) if spec.weights_sha256 else ():
        *start, place, _ = key.split("|")
        if start != wanted or (device != "auto" and place.partition(":")[0] != device.partition(":")[0]):
            continue
        runs = [value for name, value in recall(key).items() if name.startswith(RUN) and (fast or name == RUN + EXACT)]
        if runs:
            return min(runs)
    return None


def _model_and_machine(spec: ModelSpec, window: tuple[int, ...], tta: object) -> list[str]:
    size = "x".join(str(side) for side in window)
    return [
        spec.weights_sha256,
        size,
        f"tta {spec.tta if tta is None else tta}",
        f"torch {version('torch')}",
        f"napari-tileseg {__version__}",  # its ways change
        _processor().replace("|", " "),
    ]


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
        move(temporary, path)


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
