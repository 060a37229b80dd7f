"""What a bug report needs: versions, devices, models, settings; nothing that tells who or where."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from napari_tileseg import __version__

__all__ = ["facts"]

_PACKAGES = ("napari", "torch", "monai", "numpy", "scipy", "scikit-image", "tifffile", "nibabel", "zarr", "dask", "pydantic", "qtpy")
_BINDINGS = ("PyQt6", "PySide6", "PyQt5", "PySide2")
_SETTINGS = ("TILESEG_MODELS", "TILESEG_CACHE", "TILESEG_SETTINGS", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "QT_API")


def facts(*, paths: bool = False) -> dict[str, dict[str, Any]]:
    """Collect versions, devices, models and settings.

    Parameters
    ----------
    paths : bool
        Whether to tell where things are on this computer; by default only whether they are set.

    Returns
    -------
    dict of dict
        By heading, then by name; fit for JSON.
    """
    found = {"versions": _versions(), "devices": _devices(), "models": _models(paths), "settings": _settings(paths)}
    return found


def _versions() -> dict[str, str]:
    versions = {"napari-tileseg": __version__, "python": platform.python_version(), "system": platform.platform(terse=True)}
    for name in (*_PACKAGES, *_BINDINGS):
        number = _installed(name)
        if number or name not in _BINDINGS:
            versions[name] = number or "not installed"
    return versions


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _devices() -> dict[str, str]:
    import torch

    devices = {"cpu": f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {_memory()}"}
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        devices[f"cuda:{index}"] = f"{torch.cuda.get_device_name(index)}, {free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if torch.backends.mps.is_available():
        devices["mps"] = "Apple GPU"
    return devices


def _memory() -> str:
    import psutil

    memory = psutil.virtual_memory()
    return f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"


def _models(paths: bool) -> dict[str, str]:
    from napari_tileseg.models.registry import BUNDLED, list_models, model_folder

    models = {spec.name: f"version {spec.version}, {spec.axes}, weights {spec.weights_sha256[:12] or 'unsigned'}" for spec in list_models()}
    if paths:
        models |= {"bundled models in": str(BUNDLED), "own models in": str(model_folder())}
    return models


def _settings(paths: bool) -> dict[str, str]:
    from napari_tileseg.models.settings import read_settings

    kept = read_settings().model_dump(exclude_defaults=True)
    said = {name: str(value) if isinstance(value, bool | int | float) else "set" for name, value in kept.items()}
    values = {name: os.environ[name] for name in _SETTINGS if name in os.environ}
    if not paths:
        values = {name: "set" if os.sep in value else value for name, value in values.items()}
    return {**said, **values}
