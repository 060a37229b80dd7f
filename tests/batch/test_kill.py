"""``kill -9`` of a whole run, again and again: in the end there is what one run would have made, and nothing was done twice."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from napari_tileseg.batch.job import BatchJob
from napari_tileseg.batch.ledger import Ledger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 300

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks a process that holds torch, and looks into /proc")

# Imports what takes long once, and has a child of its own for each run. Nothing is computed before the fork.
NURSERY = """
import json, os, sys, traceback
import torch
import scipy.ndimage, skimage.segmentation, tifffile, safetensors.torch
import napari_tileseg.engine.run, napari_tileseg.models.nets, napari_tileseg.models.predictor, napari_tileseg.pipeline
from napari_tileseg.batch.job import BatchJob
from napari_tileseg.batch.run import run_batch

for line in sys.stdin:
    child = os.fork()
    if not child:
        try:
            report = run_batch(BatchJob(**json.loads(line)))
            os._exit(1 if report.failed or report.waiting else 0)
        except BaseException:
            traceback.print_exc()
            os._exit(3)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


@dataclass
class Nursery:
    """Starts runs of a batch."""

    process: subprocess.Popen[str]

    def start(self, job: BatchJob) -> int:
        """Begin a run; return the number of its process."""
        print(job.model_dump_json(), file=self.process.stdin, flush=True)
        return int(self._line())

    def ended(self) -> int:
        """Wait for the end of the run; return its exit status, or the negative number of the signal that ended it."""
        return os.waitstatus_to_exitcode(int(self._line()))

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        yield Nursery(process)
        process.stdin.close()  # type: ignore[union-attr]  # it ends then
        assert process.wait(PATIENCE) == 0


def moments(out: Path) -> int:
    """Return how often anything was begun or finished in an output folder."""
    return sum(row.attempts + row.finishes for row in Ledger.look(out).values())


def kill_after(nursery: Nursery, job: BatchJob, out: Path, changes: int, delay: float) -> int:
    """Start a run and kill it when the ledger has changed so often, and some seconds more; return how it ended."""
    process = nursery.start(job)
    before, until = moments(out), time.monotonic() + PATIENCE
    while moments(out) < before + changes and alive(process) and time.monotonic() < until:
        time.sleep(0.001)
    time.sleep(delay)
    if alive(process):
        os.kill(process, signal.SIGKILL)
    return nursery.ended()


def alive(process: int) -> bool:
    """Say whether a process goes on; one that has ended and waits to be asked for its status does not."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def results(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file() and ".tileseg" not in path.parts}


def check(out: Path, expected: dict[str, bytes]) -> None:
    """Compare with an uninterrupted run; nothing may be left, and nothing done twice."""
    assert results(out) == expected, "files are equal to the last byte"
    rows = Ledger.look(out).values()
    assert {row.state for row in rows} == {"done"}
    assert [row.finishes for row in rows] == [1] * len(rows), "what was finished was never done again"
    assert not list((out / ".tileseg" / "journals").iterdir())


def kill_and_go_on(nursery: Nursery, job: BatchJob, folder: Path, kills: int, seed: int) -> None:
    """Kill runs so many times; begin again in another folder whenever one is finished before that."""
    whole = job.model_copy(update={"output": str(folder / "whole")})
    nursery.start(whole)
    assert nursery.ended() == 0
    expected = results(folder / "whole")
    chance = random.Random(seed)
    killed = number = 0
    while killed < kills:
        number += 1
        out = folder / f"killed {number}"
        status = -signal.SIGKILL
        while status == -signal.SIGKILL:
            if killed == kills:
                nursery.start(job.model_copy(update={"output": str(out)}))
                status = nursery.ended()
                break
            delay = chance.choice([0, 0, chance.random() * 0.02, chance.random() * 0.2])
            status = kill_after(nursery, job.model_copy(update={"output": str(out)}), out, chance.choice([1, 2, 3, 3, 4, 4]), delay)
            killed += status == -signal.SIGKILL
        assert status == 0
        check(out, expected)


@pytest.fixture
def write_job(tmp_path: Path, objects_model: str, write_images: Callable[..., list[Path]]) -> Any:
    """Return what writes so many images, every fifth of them large enough for a journal, and returns a job for them."""

    def write(count: int) -> BatchJob:
        for number, path in enumerate(write_images(tmp_path / "raw", count)):
            if number % 5 == 2:
                tifffile.imwrite(path, np.random.default_rng(number).integers(0, 4000, (170, 170)).astype(np.uint16))
        return BatchJob(models=(objects_model,), inputs=(str(tmp_path / "raw"),), output=str(tmp_path / "out"), report=False)

    return write


def test_a_killed_batch_goes_on(nursery: Nursery, write_job: Any, tmp_path: Path) -> None:
    kill_and_go_on(nursery, write_job(8), tmp_path, kills=5, seed=1)


def test_a_folder_is_free_again_when_its_run_was_killed(nursery: Nursery, write_job: Any, tmp_path: Path) -> None:
    job = write_job(6)
    kill_after(nursery, job, tmp_path / "out", 2, 0)
    nursery.start(job)
    assert nursery.ended() == 0


@pytest.mark.slow
def test_fifty_kills_over_thirty_files(nursery: Nursery, write_job: Any, tmp_path: Path) -> None:
    kill_and_go_on(nursery, write_job(30), tmp_path, kills=50, seed=2)
