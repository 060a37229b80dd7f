"""Units of length: what files and people call them, and how long they are; and bytes as people say them."""

from __future__ import annotations

__all__ = ["canonical_unit", "file_size", "micrometers", "unit_symbol"]

_LENGTHS = {
    "nanometer": (1e-3, "nm", ("nm", "nanometre", "nanometers", "nanometres")),
    "micrometer": (1.0, "µm", ("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometre", "micrometers", "micrometres")),
    "millimeter": (1e3, "mm", ("mm", "millimetre", "millimeters", "millimetres")),
    "centimeter": (1e4, "cm", ("cm", "centimetre", "centimeters", "centimetres")),
    "meter": (1e6, "m", ("m", "metre", "meters", "metres")),
    "angstrom": (1e-4, "Å", ("å", "Å", "ångström", "angstroms")),
    "inch": (25400.0, "in", ("in", "inches", '"')),
}
"""Name of each unit: its length in micrometres, its symbol, and its other names."""

_ALIASES = {alias: name for name, (_, _, aliases) in _LENGTHS.items() for alias in (name, *aliases)}


def canonical_unit(unit: str | None) -> str:
    """Return the full English name of a unit of length; ``"pixel"`` for none, other units as they are.

    Examples
    --------
    >>> canonical_unit("µm"), canonical_unit("mm"), canonical_unit(""), canonical_unit("second")
    ('micrometer', 'millimeter', 'pixel', 'second')
    """
    text = (unit or "").strip()
    if text.lower() in ("", "pixel", "pixels", "px", "voxel", "none", "dimensionless", "unknown"):
        return "pixel"
    return _ALIASES.get(text) or _ALIASES.get(text.lower()) or text


def micrometers(unit: str) -> float | None:
    """Return the length of a unit in micrometres; None if it is no unit of length (pixels, seconds)."""
    known = _LENGTHS.get(canonical_unit(unit))
    return known[0] if known else None


def unit_symbol(unit: str) -> str:
    """Return the symbol to show to people: ``"µm"`` for micrometer, ``"px"`` for pixels."""
    name = canonical_unit(unit)
    return _LENGTHS[name][1] if name in _LENGTHS else {"pixel": "px", "second": "s"}.get(name, name)


def file_size(count: int) -> str:
    """Return a number of bytes for people: ``"0 B"``, ``"3.4 GB"``."""
    size = float(count)
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if size < 999.5 or unit == "TB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
