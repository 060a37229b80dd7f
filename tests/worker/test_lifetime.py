"""The model's process never outlives its parent, keeps its log short, and yields to others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

import napari_tileseg
from napari_tileseg.worker import streams

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(napari_tileseg.__file__).parent.parent

# It starts a run whose third tile never ends, says so, and then sits there; a second run of the script would say so too.
PARENT = """
import sys, time
print("the script runs", flush=True)
import numpy as np
from napari_tileseg.engine.events import SlabDone
from napari_tileseg.job import Job
from napari_tileseg.volume import Volume
from napari_tileseg.worker import Supervisor

supervisor = Supervisor(backend="tileseg_stand_in")
seen = []
run = supervisor.start(Job(model=sys.argv[1]), Volume(np.zeros((112, 48), "f4"), "YX"), on_message=seen.append)
while not any(isinstance(getattr(message, "event", None), SlabDone) for message in seen):
    time.sleep(0.01)
print(supervisor.pid, flush=True)
{then}
"""


@pytest.fixture
def parent(tmp_path: Path, classes_model: str) -> Iterator[object]:
    """Return a function that starts a program with a run in the middle of a tile; it gives its process and its child's."""
    started = []

    def start(then: str) -> tuple[subprocess.Popen[str], psutil.Process]:
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(PARENT).format(then=then))
        variables = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent / "stand_ins")]),
            "TILESEG_STAND_IN": json.dumps({"at": 3, "do": "hang"}),
            "TMPDIR": str(tmp_path),
        }
        process = subprocess.Popen([sys.executable, str(script), classes_model], stdout=subprocess.PIPE, env=variables, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "the script runs\n"
        line = process.stdout.readline()
        return process, psutil.Process(int(line))

    yield start
    for process in started:
        process.kill()
        process.communicate()


def _ended_after(child: psutil.Process) -> float:
    began = time.monotonic()
    child.wait(60)
    return time.monotonic() - began


def test_a_killed_parent_takes_its_child_along_amid_a_tile(parent: object) -> None:
    process, child = parent("time.sleep(600)")  # type: ignore[operator]
    assert child.is_running()
    process.kill()
    assert _ended_after(child) < 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is POSIX's")
def test_a_copy_of_the_parent_does_not_keep_the_child_alive(parent: object) -> None:
    process, child = parent("import os\nif os.fork() == 0:\n    time.sleep(60)\n    os._exit(0)\ntime.sleep(600)")  # type: ignore[operator]
    me = psutil.Process(process.pid)
    while len(me.children()) < 2:
        time.sleep(0.01)
    copies = [other for other in me.children() if other.pid != child.pid]
    process.kill()
    try:
        assert _ended_after(child) < 5
        assert copies[0].is_running()
    finally:
        copies[0].kill()


def test_a_parent_that_just_ends_closes_everything(parent: object, tmp_path: Path) -> None:
    process, child = parent("sys.exit(0)")  # type: ignore[operator]
    assert process.wait(60) == 0
    assert _ended_after(child) < 5
    assert process.stdout.read() == "", "the script ran once"  # type: ignore[union-attr]
    if sys.platform != "win32":
        assert not list(tmp_path.glob("napari-tileseg-*/tileseg-*"))


def test_the_child_yields_to_its_parent(parent: object) -> None:
    process, child = parent("time.sleep(600)")  # type: ignore[operator]
    here = psutil.Process(process.pid).nice()
    if sys.platform == "win32":
        assert child.nice() == psutil.BELOW_NORMAL_PRIORITY_CLASS
    else:
        assert child.nice() == min(19, here + 10)
    if sys.platform == "linux":
        assert int(Path(f"/proc/{child.pid}/oom_score_adj").read_text(encoding="utf-8")) == 500


def test_a_talkative_model_does_not_fill_the_disk(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    code = """
        import os
        from napari_tileseg.worker.streams import LOG_BYTES, shorten_log
        for line in range(40):
            os.write(2, b"%06d" % line * (LOG_BYTES // 60))
            shorten_log()
            assert os.fstat(2).st_size <= LOG_BYTES
        os.write(2, b"the end")
    """
    with log.open("a+b") as file:
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], stderr=file, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    text = log.read_bytes()
    assert len(text) <= streams.LOG_BYTES
    assert text.endswith(b"000039the end")
    assert b"000038000038" in text
    assert b"\x00" not in text
