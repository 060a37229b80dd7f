"""Provenance: what was run on what, enough to repeat it, and nothing that tells who, where or when."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from napari_tileseg import __version__

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.normalize import Statistics
    from napari_tileseg.engine.parts import Region
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["describe"]

SCHEMA = 1
"""Version of the dictionary that `describe` returns."""


def describe(
    image: Volume,
    spec: ModelSpec,
    axis_map: AxisMap,
    options: SegmentOptions,
    region: Region | None,
    settings: Mapping[str, Any],
    statistics: Mapping[int | None, Statistics],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Return the provenance of a run as a JSON-able dictionary.

    Parameters
    ----------
    image, spec, axis_map, options, region
        What the run was asked to do.
    settings : mapping
        What it decided: the resolved tiling, device, batch.
    statistics : mapping of frame to Statistics
        What the image was normalised with; the key is None where there is no time.
    warnings : sequence of str
        What was said meanwhile.
    """
    packages = ("torch", "numpy", "scikit-image")
    return {
        "schema": SCHEMA,
        "program": f"napari-tileseg {__version__}",
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "model": spec.model_dump(
            include={"name", "version", "weights_sha256", "licence", "citation"} | ({"members"} if spec.members else set())
        ),
        "input": {
            "name": image.name,
            "axes": image.axes,
            "shape": list(image.shape),
            "dtype": image.dtype.str,
            "spacing": image.spacing,
            "units": list(image.units),
        },
        "axes": axis_map.sentence,
        "channels": list(axis_map.channels) if "C" in axis_map.axes else None,
        "region": [list(span) for span in region] if region else None,
        "options": options.model_dump(mode="json"),
        "settings": {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
        "statistics": [{"frame": frame, **measured.to_dict()} for frame, measured in statistics.items()],
        "warnings": list(warnings),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
