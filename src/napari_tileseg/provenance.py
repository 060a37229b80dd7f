"""Provenance: what was run on what, enough to repeat it, and nothing that tells who, where or when."""

from __future__ import annotations

import datetime
import getpass
import hashlib
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from napari_tileseg import __version__
from napari_tileseg.models.settings import read_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from napari_tileseg.engine.axes import AxisMap
    from napari_tileseg.engine.normalize import Statistics
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.volume import Volume

__all__ = ["describe", "digest", "signature"]

SCHEMA = 1
"""Version of the dictionary that `describe` returns."""


def describe(
    image: Volume,
    spec: ModelSpec,
    axis_map: AxisMap,
    options: SegmentOptions,
    region: list[Any] | None,
    settings: Mapping[str, Any],
    statistics: Mapping[int | None, Statistics],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Return the provenance of a run as a JSON-able dictionary.

    Parameters
    ----------
    image, spec, axis_map, options, region
        What the run was asked to do; the region as `job.told` gives it.
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
        "model": _model(spec),
        "input": _input(image),
        "axes": axis_map.sentence,
        "channels": list(axis_map.channels) if "C" in axis_map.axes else None,
        "region": region,
        "options": options.model_dump(mode="json"),
        "settings": {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()},
        "statistics": [{"frame": frame, **measured.to_dict()} for frame, measured in statistics.items()],
        "warnings": list(warnings),
    }


def signature(seconds: float) -> dict[str, Any]:
    """Return the facts of a run that differ from one time to the next: when it ended, how long it took; who and where if allowed.

    Parameters
    ----------
    seconds : float
        Wall time of the run.
    """
    told: dict[str, Any] = {"finished": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), "seconds": round(seconds, 3)}
    if read_settings().identify:
        told |= {"user": _user(), "computer": platform.node()}
    return told


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # nobody is logged in, as in some containers
        return ""


def _model(spec: ModelSpec) -> dict[str, Any]:
    known = spec.model_dump(include={"name", "version", "weights_sha256", "licence", "citation"} | ({"members"} if spec.members else set()))
    # Of a linked model the source is a whole path, which may name a person.
    return known | {"source": {"kind": spec.loader or "tileseg", "file": PurePath(spec.source).name}}


def _input(image: Volume) -> dict[str, Any]:
    from napari_tileseg.engine.fingerprint import sampled

    values = {
        "name": image.name,
        "axes": image.axes,
        "shape": list(image.shape),
        "dtype": image.dtype.newbyteorder("=").str,
        "spacing": image.spacing,
        "units": list(image.units),
    }
    place = [*values.values(), image.affine.round(9).tolist(), list(image.channel_names)][1:]  # equal under another name
    part = {key: image.metadata[f"chosen_{key}"] for key in ("series", "level") if image.metadata.get(f"chosen_{key}")}
    return values | part | {"metadata_hash": digest(place), "content_hash": sampled(image)}


def digest(value: Any) -> str:
    """Return a short digest of something JSON-able."""
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=16).hexdigest()


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
