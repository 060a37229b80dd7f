"""What a person reads of a batch stands on one line, whatever files are called, and has units."""

from __future__ import annotations

import pytest

from napari_tileseg.batch.events import TaskEnded
from napari_tileseg.batch.run import Report
from napari_tileseg.cli.sentences import brief, ending, left, outcome, printable


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (TaskEnded(0, "a.tif", "done", "", {"nucleus": 86}, True, 2.9), "a.tif: 86 objects, 2.9 s"),
        (TaskEnded(0, "a.tif", "done", "", {"nucleus": 1}, True, 48.2), "a.tif: 1 object, 48 s"),
        (TaskEnded(0, "a.tif", "done", "", {"left": 5, "right": 0}, False, 0.04), "a.tif: left 5, right 0, 0.0 s"),
        (
            TaskEnded(0, "a.tif", "done", "412 pixels are NaN. They count as 0.\nAnd more.", {"cell": 2}, True, 300),
            "a.tif: 2 objects, 5 min (412 pixels are NaN. They count as 0. And more.)",
        ),
        (TaskEnded(0, "a.tif", "failed", "It is empty."), "a.tif failed: It is empty."),
        (TaskEnded(0, "two\nlines\x1b[2J\udcff.tif", "failed", "No."), r"two\nlines\x1b[2J\udcff.tif failed: No."),
        (TaskEnded(0, "Ünïcode µ.tif", "skipped"), "Ünïcode µ.tif skipped"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_line_for_each_image(event: TaskEnded, line: str) -> None:
    assert outcome(event) == line
    line.encode("utf-8")


@pytest.mark.parametrize(
    ("report", "line"),
    [
        (Report(94, 1, 1, 0, 0, 300), "94 done, 1 skipped, 1 failed in 5 min."),
        (Report(96, 0, 0, 0, 37, 8000), "96 done (37 of them before) in 2.2 h."),
        (Report(3, 0, 0, 93, 0, 6.04), "3 done, 93 waiting in 6.0 s."),
    ],
    ids=["mixed", "before", "stopped"],
)
def test_one_line_at_the_end(report: Report, line: str) -> None:
    assert ending(report) == line


def test_times_and_names() -> None:
    assert [brief(seconds) for seconds in (0, 9.94, 99, 100, 5399, 5400)] == ["0.0 s", "9.9 s", "99 s", "2 min", "90 min", "1.5 h"]
    assert (left(None), left(12.3)) == ("", ", 12 s left")
    assert printable("plain name.tif") == "plain name.tif"
