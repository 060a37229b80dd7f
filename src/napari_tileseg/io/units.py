"""Units as files write them: lengths by the package's table, times by the one here."""

from __future__ import annotations

from napari_tileseg.units import canonical_unit, micrometers, unit_symbol

__all__ = ["TIMES", "is_length", "length_factor", "symbol", "unit_name"]

TIMES = {
    "second": ("s", ("sec", "secs", "seconds")),
    "millisecond": ("ms", ("msec", "milliseconds")),
    "microsecond": ("µs", ("us", "usec", "μs", "microseconds")),
    "minute": ("min", ("mins", "minutes")),
    "hour": ("h", ("hr", "hours")),
    "day": ("d", ("days",)),
}
"""Name of each unit of time: its symbol, and its other names."""

_TIME_NAMES = {alias: name for name, (sign, aliases) in TIMES.items() for alias in (name, sign, *aliases)}


def unit_name(text: str | None) -> str:
    """Return the full name of a unit of length or time, ``"pixel"`` where it is none that is known."""
    word = (text or "").strip().strip("\x00")
    name = canonical_unit(word)
    return name if is_length(name) else _TIME_NAMES.get(word) or _TIME_NAMES.get(word.lower(), "pixel")


def is_length(unit: str) -> bool:
    """Say whether a unit's full name is one of length."""
    return micrometers(unit) is not None


def length_factor(unit: str, target: str) -> float:
    """Return what a length in `unit` is multiplied by to be one in `target`; both are units of length."""
    source, aim = micrometers(unit), micrometers(target)
    if source is None or aim is None:
        raise ValueError(f"{unit} and {target} must be units of length")
    return source / aim


def symbol(unit: str) -> str:
    """Return the symbol of a unit's full name as OME-XML spells it."""
    return unit_symbol(unit) if is_length(unit) else TIMES[unit][0] if unit in TIMES else "pixel"
