"""A message is one line, and comes back as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.engine.events import Finished, Planned, Progress, SlabDone, Warned
from napari_tileseg.worker.messages import (
    Begin,
    Block,
    BlockError,
    CancelledRun,
    Died,
    Done,
    Evented,
    Failed,
    Loaded,
    Loading,
    Queued,
    Read,
    Ready,
    Stop,
    from_line,
    to_line,
)

JOB = {"model": "m", "options": {"window": [3, 4]}}
BEGIN = Begin(JOB, "m", "YX", (3, 4), ">u2", ((1.0, 0.0),), ("µm", "µm"), "a", (), {}, "l", journal="j")

EXAMPLES = [
    Queued(2),
    Loading("Nuclei 2D"),
    Loaded("Nuclei 2D", "cuda:1", 1 << 40),
    Evented(Planned(12, (256, 256), (520, 696), "cpu", 4, 10**10)),
    Evented(SlabDone(((0, 3), (1, 2)))),
    Evented(Progress(3, 12, None)),
    Evented(Progress(3, 12, float("inf"))),
    Evented(Warned("line\nbreak   €")),
    Evented(Finished(None, 1.5, {"background": 3})),
    Done({"a": [1, {"b": None}]}, {"objects": 3}, 2.5, ("one", "two")),
    CancelledRun(3, 12),
    Failed("InputError", "It is so.", "Traceback\n"),
    Died("It ended.", 3, 12),
    Ready(12, "0.1.0", "/somewhere"),
    Read(3, ((0, 4, 2), (1, 2, 1))),
    BEGIN,
    Stop(),
    Block(3, "C:\\x\\y", "|b1", (2, 1)),
    BlockError(3, "no", "trace"),
]


@pytest.mark.parametrize("body", EXAMPLES, ids=lambda body: type(body).__name__)
def test_it_comes_back(body: Any) -> None:
    line = to_line(body, 7)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    envelope = from_line(line)
    assert (envelope.body, envelope.run) == (body, 7)
    assert type(envelope.body) is type(body)


@given(st.text(), st.text())
def test_any_text_comes_back(message: str, details: str) -> None:
    text = message.encode("utf-8", "replace").decode(), details.encode("utf-8", "replace").decode()
    assert from_line(to_line(Failed("X", *text))).body == Failed("X", *text)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"hello\n",
        b"{}\n",
        b'{"message": "Stop"}\n',
        b'{"message": "system", "run": 0, "content": {}}\n',
        b'{"message": "Queued", "run": 0, "content": {"x": 1}}\n',
    ],
)
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError, match="no message"):
        from_line(line)


def test_provenance_may_hold_what_numpy_makes_but_no_paths() -> None:
    done = Done({"a": np.float32(0.5), "b": np.arange(2), "c": Path("/home/me/x.tif"), "d": {2, 1}}, {"n": np.int64(3)}, 1.0)
    body = from_line(to_line(done)).body
    assert body.provenance == {"a": 0.5, "b": [0, 1], "c": "x.tif", "d": [1, 2]}
    assert body.counts == {"n": 3}
