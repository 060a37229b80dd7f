"""A watched image is taken when it has stopped growing and can be opened; one that never can be is taken in the end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from napari_tileseg.batch.growth import Growth
from napari_tileseg.errors import InputError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Opener:
    """Opens what ends with ``end``, as a reader does that knows how long a file must be."""

    def __init__(self) -> None:
        self.opened: list[str] = []

    def __call__(self, path: str) -> None:
        self.opened.append(path)
        if os.path.isfile(path) and not Path(path).read_bytes().endswith(b"end"):
            raise InputError("It ends too early.")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opener() -> Opener:
    return Opener()


@pytest.fixture
def growth(clock: Clock, opener: Opener) -> Growth:
    return Growth(10, 60, opener, clock)


def test_a_file_is_whole_when_it_has_been_left_alone(growth: Growth, clock: Clock, opener: Opener, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"begin")
    assert growth.whole([str(path)]) == set()
    clock.now += 9
    assert growth.whole([str(path)]) == set()
    path.write_bytes(b"begin, middle")
    clock.now += 9
    assert growth.whole([str(path)]) == set()
    path.write_bytes(b"begin, middle, end")
    clock.now += 1
    assert growth.whole([str(path)]) == set()
    assert not opener.opened, "a file that grows is not opened"
    clock.now += 10
    assert growth.whole([str(path)]) == {str(path)}
    clock.now += 10
    assert growth.whole([str(path)]) == {str(path)}
    assert opener.opened == [str(path)], "once is enough"


def test_the_same_size_at_another_time_is_a_change(growth: Growth, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"end")
    growth.whole([str(path)])
    os.utime(path, ns=(1, 1))  # backwards: clocks of network disks do that
    clock.now += 10
    assert growth.whole([str(path)]) == set()
    assert growth.quiet == 0
    clock.now += 10
    assert growth.whole([str(path)]) == {str(path)}
    assert growth.quiet == 10


def test_a_writer_that_pauses_is_waited_for(growth: Growth, clock: Clock, opener: Opener, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"half")
    growth.whole([str(path)])
    clock.now += 30
    assert growth.whole([str(path)]) == set()
    assert opener.opened
    path.write_bytes(b"half and end")
    growth.whole([str(path)])
    clock.now += 10
    assert growth.whole([str(path)]) == {str(path)}


def test_a_file_that_stays_broken_is_taken_as_it_is(growth: Growth, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"half")
    growth.whole([str(path)])
    clock.now += 59
    assert growth.whole([str(path)]) == set()
    clock.now += 1
    assert growth.whole([str(path)]) == {str(path)}


def test_a_whole_file_that_is_written_again_is_waited_for_again(growth: Growth, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"end")
    growth.whole([str(path)])
    clock.now += 10
    assert growth.whole([str(path)])
    path.write_bytes(b"another end")
    assert not growth.whole([str(path)])
    clock.now += 10
    assert growth.whole([str(path)])


def test_a_folder_is_whole_when_nothing_changes_inside(growth: Growth, clock: Clock, tmp_path: Path) -> None:
    store = tmp_path / "a.zarr"
    (store / "0" / "c").mkdir(parents=True)
    assert not growth.whole([str(store)])
    clock.now += 9
    (store / "0" / "c" / "1").write_bytes(b"chunk")
    clock.now += 9
    assert not growth.whole([str(store)])
    clock.now += 9
    (store / "0" / "c" / "1").write_bytes(b"chunk, longer")
    assert not growth.whole([str(store)])
    clock.now += 10
    assert growth.whole([str(store)]) == {str(store)}


def test_what_vanishes_is_forgotten(growth: Growth, clock: Clock, tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(b"end")
    growth.whole([str(path)])
    path.unlink()
    clock.now += 10
    assert not growth.whole([str(path)])
    assert not growth.whole([])
    path.write_bytes(b"end")
    assert not growth.whole([str(path)])
    clock.now += 10
    assert growth.whole([str(path)]) == {str(path)}
