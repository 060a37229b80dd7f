"""A batch from end to end: every image done once, resumed where it stopped, and refused where it would mix two things."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.batch.events import BatchFinished, BatchStarted, TaskStarted
from napari_tileseg.batch.run import run_batch
from napari_tileseg.io import read_volume
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.batch.job import BatchJob


def test_every_image_is_done_as_it_would_be_alone(job: BatchJob, images: list[Path], classes_model: str, tmp_path: Path, told: Any) -> None:
    report = run_batch(job, on_event=told)
    assert (report.done, report.failed, report.skipped, report.waiting, report.before) == (6, 0, 0, 0, 0)
    for path in images:
        alone = segment(path, classes_model)
        found = read_volume(tmp_path / "out" / f"{path.stem}.ome.tif")
        np.testing.assert_array_equal(np.asarray(found.data), alone.labels)
        assert told.ends[path.name].counts == {name: alone.counts[name] for name in ("left", "right")}
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".tileseg", *(f"{path.stem}.ome.tif" for path in images)}
    assert not list((tmp_path / "out" / ".tileseg" / "journals").iterdir())
    assert isinstance(told.events[0], BatchStarted)
    assert isinstance(told.events[-1], BatchFinished)


def test_a_second_start_does_nothing_again(job: BatchJob, told: Any) -> None:
    run_batch(job)
    report = run_batch(job, on_event=told)
    assert (report.done, report.before) == (6, 6)
    assert not told.of(TaskStarted)
    assert all(event.before for event in told.ends.values())
    assert [row.finishes for row in report.rows] == [1] * 6
