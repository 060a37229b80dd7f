"""Scratch folders are private, belong to one process, and go with it."""

from __future__ import annotations

import errno
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from napari_tileseg.errors import OutputError
from napari_tileseg.worker import scratch
from napari_tileseg.worker.scratch import Scratch, allocate, check_space, file_size, remove_stale

if TYPE_CHECKING:
    from pathlib import Path

OWNER = """
import sys
from pathlib import Path
from napari_tileseg.worker.scratch import Scratch
made = Scratch(Path(sys.argv[1]))
(made.folder("run") / "labels.npy").write_bytes(b"x" * 1000)
print(made.path, flush=True)
sys.stdin.read()
"""


def _owner(base: Path) -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen([sys.executable, "-c", OWNER, str(base)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    from pathlib import Path

    return process, Path(process.stdout.readline().strip())


def test_the_folder_of_a_dead_process_is_removed_and_that_of_a_living_one_stays(tmp_path: Path) -> None:
    living, kept = _owner(tmp_path)
    dead, left = _owner(tmp_path)
    stranger = tmp_path / "letters"
    stranger.mkdir()
    try:
        with dead:
            dead.kill()
        assert left.is_dir()
        remove_stale(tmp_path)
        assert not left.exists()
        assert (kept / next(kept.glob("run-*")).name / "labels.npy").is_file()
        assert stranger.is_dir()
    finally:
        with living:
            living.kill()


def test_a_new_scratch_folder_cleans_up_by_itself(tmp_path: Path) -> None:
    dead, left = _owner(tmp_path)
    with dead:
        dead.kill()
    made = Scratch(tmp_path)
    end = time.monotonic() + 60
    while left.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert not left.exists()
    made.close()
    assert not made.path.exists()
    made.close()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes")
def test_nobody_else_can_look_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    made = Scratch()
    assert made.base.name.startswith("napari-tileseg-")
    assert made.base.stat().st_mode & 0o777 == 0o700
    assert made.path.stat().st_mode & 0o777 == 0o700
    made.close()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX links")
def test_a_name_that_is_taken_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch.tempfile, "tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / f"napari-tileseg-{scratch._user()}").symlink_to(elsewhere)
    made = Scratch()
    assert not list(elsewhere.iterdir())
    made.close()


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"No scratch folder can be made in .*TMPDIR"):
        Scratch(tmp_path / "file")


def test_arrays_are_zeros_that_another_map_sees_change(tmp_path: Path) -> None:
    array = allocate(tmp_path / "labels.npy", (3, 4, 5), np.dtype(np.int32))
    assert (array.shape, array.dtype) == ((3, 4, 5), np.int32)
    assert not array.any()
    other = np.load(tmp_path / "labels.npy", mmap_mode="r+")
    other[1] = 7
    assert (array[1] == 7).all()


@pytest.mark.skipif(sys.platform != "linux", reason="room is reserved on Linux")
def test_a_disk_that_fills_up_is_an_error_before_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    array = allocate(tmp_path / "kept.npy", (1 << 20,), np.dtype("u1"))
    assert (tmp_path / "kept.npy").stat().st_blocks * 512 >= array.nbytes

    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(scratch.os, "posix_fallocate", refuse)
    with pytest.raises(OutputError, match="No space left"):
        allocate(tmp_path / "labels.npy", (3, 4, 5), np.dtype(np.int32))


def test_needed_and_free_space_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scratch, "free_bytes", lambda folder: 12_000_000_000)
    check_space(tmp_path, 12_000_000_000)
    with pytest.raises(OutputError, match=r"needs 31\.0 GB .* 12\.0 GB are free"):
        check_space(tmp_path, 31_000_000_000)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (99_400, "99.4 kB"), (123_456, "123 kB"), (999_600, "1.0 MB"), (4e15, "4000 TB")],
)
def test_sizes_are_for_people(count: float, text: str) -> None:
    assert file_size(int(count)) == text
