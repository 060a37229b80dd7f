"""The model's process reads the resolution that fits the model, as a run without it does."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_tileseg.job import Job
from napari_tileseg.pipeline import segment
from napari_tileseg.volume import Volume


def test_a_coarser_resolution_crosses_over(bench: Any, coarse_model: str) -> None:
    generator = np.random.default_rng(3)
    finest, middle, coarsest = (generator.normal(size=(120 // by, 96 // by)).astype(np.float32) for by in (1, 2, 4))
    plain = Volume.from_scale(finest, "YX", (1.0, 1.0), units=("micrometer", "micrometer"), name="pyramid")
    volume = plain.with_levels([middle, coarsest])
    assert [level.spacing["Y"] for level in volume.levels] == [2, 4]
    run, _ = bench.run(Job(model=coarse_model), volume)
    assert run.state == "done"
    expected = segment(volume, coarse_model)
    assert expected.provenance["settings"]["level"] == 1
    np.testing.assert_array_equal(run.labels, expected.labels)
    assert np.any(run.labels != segment(plain, coarse_model).labels), "the finest resolution holds something else"
