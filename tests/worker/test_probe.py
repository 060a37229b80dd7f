"""One tile is timed in the model's process, and the model is there for the run after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from napari_tileseg.engine.timings import expected_seconds
from napari_tileseg.errors import RunError
from napari_tileseg.job import Job
from napari_tileseg.models.registry import find_spec
from napari_tileseg.worker import Supervisor
from napari_tileseg.worker.messages import Done, Failed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_tileseg.volume import Volume

PATIENCE = 300


def test_the_time_of_a_tile_is_known_afterwards_and_the_model_stays(
    stand_in: Callable[..., Any], job: Job, volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))
    loads, bench = tmp_path / "loads", stand_in(loads=tmp_path / "loads")
    recorder = bench.recorder()
    spec = find_spec(job.model)
    assert expected_seconds(spec, spec.window, "auto") is None
    run = bench.supervisor.start_probe(job, on_message=recorder)
    assert run.wait(PATIENCE)
    assert recorder.kinds == ["Loading", "Loaded", "Done"]
    done = recorder.messages[-1]
    assert isinstance(done, Done)
    assert done.seconds > 0
    assert expected_seconds(spec, spec.window, "auto") == pytest.approx(done.seconds), "it is kept for the estimates of other programs"
    assert bench.supervisor.loaded is not None
    segmented, _ = bench.run(job, volume)
    assert segmented.state == "done"
    assert len(loads.read_text().splitlines()) == 1, "the run has found the model loaded"


def test_a_probe_of_no_model_says_so_and_one_that_waits_can_be_stopped(bench: Any, job: Job, volume: Volume, tmp_path: Path) -> None:
    recorder, other = bench.recorder(), bench.recorder()
    broken = bench.supervisor.start_probe(Job(model=str(tmp_path / "nothing")), on_message=recorder)
    waiting = bench.supervisor.start_probe(job, on_message=other)
    waiting.cancel()
    assert broken.wait(PATIENCE)
    assert waiting.wait(PATIENCE)
    assert isinstance(recorder.messages[-1], Failed)
    assert "nothing" in recorder.messages[-1].message
    assert (waiting.state, other.kinds[-1]) == ("cancelled", "CancelledRun")


def test_no_probe_begins_where_the_program_ends(job: Job, tmp_path: Path) -> None:
    supervisor = Supervisor(scratch=tmp_path)
    supervisor.close()
    with pytest.raises(RunError, match="closed"):
        supervisor.start_probe(job, on_message=print)
