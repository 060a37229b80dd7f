"""Ensembles and uncertainty go through the worker as they go without it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.job import Job, SegmentOptions
from napari_tileseg.models.ensemble import join
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.volume import Volume


def test_an_ensemble_and_its_uncertainty_cross_over(
    bench: Any, classes_model: str, volume: Volume, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)  # the child stands elsewhere
    (tmp_path / "a,b").symlink_to(classes_model)
    job = Job(model=join(["a,b", classes_model]), options=SegmentOptions.parse(device="cpu", tta="flips", uncertainty="disagreement"))
    run, _ = bench.run(job, volume)
    assert run.state == "done"
    expected = segment(volume, job.model, options=job.options)
    np.testing.assert_array_equal(run.labels, expected.labels)
    np.testing.assert_allclose(run.uncertainty, expected.uncertainty, atol=1e-6)
    assert 0 < run.uncertainty.max() <= 1
