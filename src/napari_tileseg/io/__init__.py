"""Image files in, label files out: formats by suffix, each imported on first use."""

from __future__ import annotations

from napari_tileseg.io.registry import (
    Format,
    check_fits,
    check_writable,
    count_series,
    formats,
    read_volume,
    suffix_of,
    write_labels,
    write_scores,
    write_uncertainty,
)

__all__ = [
    "Format",
    "check_fits",
    "check_writable",
    "count_series",
    "formats",
    "read_volume",
    "suffix_of",
    "write_labels",
    "write_scores",
    "write_uncertainty",
]
