"""What is said of a dead process is what its exit status tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from napari_tileseg.worker.obituary import cause_of_death, obituary


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (-9, "The model's process ended, most likely for lack of memory."),
        (-11, "The model's process crashed (SIGSEGV)."),
        (-6, "The model's process crashed (SIGABRT)."),
        (-15, "The model's process was ended by another program (SIGTERM)."),
        (-63, "The model's process crashed (signal 63)."),
        (0, "The model's process ended by itself (exit status 0)."),
        (3, "The model's process ended by itself (exit status 3)."),
        (0xC0000005, "The model's process crashed (access violation)."),
        (0xC0000017, "The model's process ended, most likely for lack of memory."),
    ],
)
def test_the_cause_follows_from_the_status(code: int, sentence: str) -> None:
    assert cause_of_death(code) == sentence


def test_a_full_scratch_disk_is_named() -> None:
    place = Path("scratch")
    assert cause_of_death(-7, place, 0) == "The model's process ended because a file in scratch could not be written (0 B are free there)."
    assert cause_of_death(-7) == "The model's process crashed (SIGBUS)."


def test_what_is_left_is_said_after_the_cause() -> None:
    assert obituary("It ended.", "5 of 12 files are safe.", 5, 12, "").message == "It ended. 5 of 12 files are safe."
