"""Room for few images, a gate for large ones, and a countdown that knows sizes."""

from __future__ import annotations

import threading

import pytest

from napari_tileseg.batch.countdown import Countdown
from napari_tileseg.batch.room import Gate, Room


def never() -> bool:
    return False


def test_room_for_so_many_images_and_bytes() -> None:
    room = Room(3, 1000)
    first, second = room.enter(400, never), room.enter(400, never)
    asked = iter([False, False, True])
    assert room.enter(400, lambda: next(asked)) is None, "too many bytes"
    assert first is not None
    assert second is not None
    room.weigh(first, 100)
    assert room.enter(400, never) is not None
    asked = iter([False, True])
    assert room.enter(0, lambda: next(asked)) is None, "too many images"
    assert room.most == 3


def test_a_single_image_may_be_larger_than_all_room() -> None:
    assert Room(3, 1000).enter(10**12, never) is not None


def test_who_leaves_lets_the_next_one_in() -> None:
    room = Room(1, 1000)
    ticket = room.enter(1, never)
    assert ticket is not None
    inside = threading.Event()
    waiting = threading.Thread(target=lambda: (room.enter(1, never), inside.set()))
    waiting.start()
    assert not inside.wait(0.05)
    room.leave(ticket)
    assert inside.wait(60)
    waiting.join()


def test_a_large_image_is_alone() -> None:
    gate, inside, most = Gate(), [0, 0], [0, 0]
    lock = threading.Lock()
    together = threading.Barrier(2)

    def work(large: bool) -> None:
        with gate.passed(large):
            with lock:
                inside[large] += 1
                most[large] = max(most[large], inside[large])
                assert not (inside[0] and inside[1])
            if not large:
                together.wait(60)  # two small ones are inside at once, else this would not end
            with lock:
                inside[large] -= 1

    threads = [threading.Thread(target=work, args=(number < 3,)) for number in range(7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most[True] == 1
    assert most[False] >= 2


def test_seconds_left_go_by_the_size_of_what_is_left() -> None:
    now = [0.0]
    mb = 10**6
    countdown = Countdown({0: mb, 1: mb, 2: 8 * mb, 3: 0}, timer=lambda: now[0])
    assert countdown.seconds_left is None
    countdown.start()
    now[0] = 12.0
    countdown.end(0, counted=True)
    assert countdown.seconds_left == pytest.approx(12 / 1.2 * (1.2 + 8.2 + 0.2))
    countdown.advance(2, 0.5)
    now[0] = 53.0
    assert countdown.seconds_left == pytest.approx(53 / (1.2 + 4.1) * (1.2 + 4.1 + 0.2))
    countdown.pause(True)
    now[0] = 1000.0
    assert countdown.seconds_left == pytest.approx(53 / (1.2 + 4.1) * (1.2 + 4.1 + 0.2)), "a pause costs nothing"
    countdown.pause(False)
    countdown.end(1, counted=False)  # it has failed: its size says nothing
    assert countdown.seconds_left == pytest.approx(53 / (1.2 + 4.1) * (4.1 + 0.2))
    countdown.end(2, counted=True)
    countdown.end(3, counted=True)
    assert countdown.seconds_left == 0
    assert countdown.over == 4
