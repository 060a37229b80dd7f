"""``Facts``: how long a model took to load, the memory it took and when its first tile was there, on each device of this computer."""

from __future__ import annotations

import contextlib
import json
import secrets
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from napari_tileseg.folders import cache_folder
from napari_tileseg.moving import move

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Facts", "facts", "remember", "sentence"]


@dataclass(frozen=True)
class Facts:
    """What was measured of a model on one device; None where nothing was.

    Parameters
    ----------
    device : str
        As torch names it: ``"cpu"``, ``"cuda:0"``, ``"mps"``.
    load_seconds : float or None
        From the files to a model that is ready.
    memory : int or None
        Most bytes that were taken on the device until the first tile was there; None on the CPU, where nobody can tell them from
        the program's.
    tile_seconds : float or None
        Until the first tile (or the first few, where several are computed at once) was there: longer than for those that follow.
    """

    device: str
    load_seconds: float | None = None
    memory: int | None = None
    tile_seconds: float | None = None


def remember(
    sha256: str, device: str, *, load_seconds: float | None = None, memory: int | None = None, tile_seconds: float | None = None
) -> None:
    """Keep what was measured, in addition to what is known; what is None stays as it was.

    A model without a checksum is not remembered, and where the disk refuses, nothing happens.

    Parameters
    ----------
    sha256 : str
        Of the model's weights, as in its card.
    device : str
        As torch names it.
    load_seconds, memory, tile_seconds
        As in `Facts`.
    """
    fresh = {"load_seconds": load_seconds, "memory": memory, "tile_seconds": tile_seconds}
    measured = {name: value for name, value in fresh.items() if value is not None}
    if not sha256 or not measured:
        return
    known = {fact.device: fact for fact in facts(sha256)}
    known[device] = Facts(**{**asdict(known.get(device, Facts(device))), **measured})
    place = _place(sha256)
    temporary = place.with_name(f".{secrets.token_hex(6)}.json")
    with contextlib.suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(json.dumps([asdict(fact) for fact in known.values()]), encoding="utf-8")
            move(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)


def facts(sha256: str) -> list[Facts]:
    """Return what is known of a model, one entry for each device; empty where nothing is, or where it cannot be read."""
    try:
        found = json.loads(_place(sha256).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [_of(values) for values in found if _usable(values)] if isinstance(found, list) else []


def sentence(fact: Facts) -> str:
    """Say what is known: ``"cpu: loads in 0.4 s, first tile after 0.12 s"``."""
    parts = [
        f"loads in {fact.load_seconds:.2g} s" if fact.load_seconds is not None else "",
        f"first tile after {fact.tile_seconds:.2g} s" if fact.tile_seconds is not None else "",
        f"{fact.memory / 1e9:.2f} GB on the device" if fact.memory is not None else "",
    ]
    return f"{fact.device}: {', '.join(part for part in parts if part)}"


def _usable(values: Any) -> bool:
    return isinstance(values, dict) and isinstance(values.get("device"), str)


def _of(values: Mapping[str, Any]) -> Facts:
    """Return an entry of the file; what is no number is not known."""
    numbers = {name: values.get(name) for name in (field.name for field in fields(Facts)) if name != "device"}
    known = {name: value for name, value in numbers.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    return Facts(values["device"], **known)  # type: ignore[arg-type]  # an int is a float, and bytes are written as ints


def _place(sha256: str) -> Path:
    return cache_folder() / "facts" / f"{sha256[:32]}.json"
