"""``verify``: the tests that a model brings along, run here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.normalize import measure, normalize
from napari_tileseg.models.checks import Check, remember

if TYPE_CHECKING:
    from napari_tileseg.models.checks import Case
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["verify"]

_TOLERANCE = 1e-3
"""Most difference between two computers, absolute, and relative to the value."""

_STRAY = 1e-4
"""Share of values that may differ by more: a pixel on a threshold falls to either side."""


def verify(ref: str, *, device: str = "cpu") -> list[Check]:
    """Run the tests that came with a model, normalisation included, and remember how they came out.

    Parameters
    ----------
    ref : str
        What `load_model` takes.
    device : str
        Where the network runs.

    Returns
    -------
    list of Check
        Empty where the model brings no tests.

    Raises
    ------
    ModelError, PredictorError
        If the model cannot be loaded, or its network fails.
    """
    from napari_tileseg.models.loaders.registry import OWN, find_loader
    from napari_tileseg.models.packaged import source
    from napari_tileseg.models.registry import locate, spec_of

    place = locate(ref)
    spec = spec_of(place)
    loader, files = place.loader, place.path
    if loader is OWN and spec.loader:  # imported: the tests lie with its own files
        loader, files = find_loader(spec.loader), source(files, spec)
    if not loader.cases:
        return []
    cases: list[Case] = loader.call("cases", files)
    predictor = place.loader.call("load", place.path, spec, device, **place.options) if cases else None
    checks = [_check(case, predictor, spec) for case in cases]
    remember(spec.weights_sha256, checks)
    return checks


def _check(case: Case, predictor: Any, spec: ModelSpec) -> Check:
    import torch

    from napari_tileseg.engine.predict import exact_arithmetic

    image = np.asarray(case.image)
    statistics = measure([image], spec.normalization, len(image), image.dtype)
    batch = torch.from_numpy(normalize(image, statistics, spec.normalization))[None].to(predictor.device)
    with torch.inference_mode(), exact_arithmetic():
        found = predictor.module.answer(batch)[0].cpu().double().numpy()  # Apple GPUs have no float64
    expected = case.expected.astype(np.float64)
    if found.shape != expected.shape:
        return Check(case.name, float("inf"), 1.0, passed=False)
    difference = np.abs(found - expected)
    off = ~(difference <= _TOLERANCE + _TOLERANCE * np.abs(expected))  # NaN is off, too
    return Check(case.name, float(difference.max(initial=0.0)), float(off.mean()), passed=bool(off.mean() <= _STRAY))
