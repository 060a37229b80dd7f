"""A napari that ends by force loses nothing that was corrected more than seconds before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from refine_desk import blobs

from napari_tileseg.io import write_labels
from napari_tileseg.volume import Volume
from napari_tileseg.widgets.refine.checks import checks
from napari_tileseg.widgets.states import Action

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROGRAM = """
import sys, time
sys.path.insert(0, {tests!r})
import napari
from qtpy.QtWidgets import QApplication
from refine_desk import blobs
from napari_tileseg.widgets.refine import RefineWidget
from napari_tileseg.refine.objects import remove

viewer = napari.Viewer(show=False)
dock = RefineWidget(viewer)
viewer.window.add_dock_widget(dock, name="Refine (TileSeg)")
layer = viewer.add_labels(blobs(), name="cells", scale=(0.5, 0.25), units=("um", "um"))

def wait(condition):
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)

wait(lambda: dock.session.work is not None and dock.session.work.canvas.looked)
dock.session.attempt(lambda: remove(dock.session.work.canvas, 2))
layer.paint((50, 20), 9)
layer.paint((50, 30), 9)
dock.session.undo()
made = time.monotonic()
wait(lambda: dock.session.state.kept is not None)
print("kept", time.monotonic() - made, flush=True)
wait(lambda: False)
"""


@pytest.mark.slow
def test_edits_outlive_a_killed_napari(refine: Callable[..., Any], tmp_path: Path) -> None:
    program = textwrap.dedent(PROGRAM).format(tests=os.path.dirname(__file__))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        word, seconds = process.stdout.readline().split()
        os.kill(process.pid, signal.SIGKILL)
    assert word == "kept"
    assert float(seconds) < 10
    expected = blobs()
    expected[expected == 2] = 0
    here = refine()
    here.until(lambda: here.session.state.recovered)
    assert here.text == "2 edits were recovered."
    here.follow(Action.KEEP)
    assert here.layer.name == "cells"
    assert (here.data == 9).any()
    np.testing.assert_array_equal(np.where(here.data == 9, 0, here.data), expected)
    here.press("Control-Z")
    np.testing.assert_array_equal(here.data, expected)
    here.press("Control-Z")
    np.testing.assert_array_equal(here.data, blobs())


BESIDE = """
import sys, time
sys.path.insert(0, {tests!r})
import napari
from qtpy.QtWidgets import QApplication
from napari_tileseg.widgets.refine import RefineWidget
from napari_tileseg.widgets.refine.checks import mark, say
from napari_tileseg.refine.objects import remove

viewer = napari.Viewer(show=False)
dock = RefineWidget(viewer)
viewer.window.add_dock_widget(dock, name="Refine (TileSeg)")

def wait(condition):
    end = time.monotonic() + 60
    while not condition() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)

viewer.open({path!r}, plugin="napari-tileseg")
session = dock.session
if session.labels.multiscale:
    session.regions.open()
wait(lambda: session.work is not None and session.work.canvas.looked)
session.attempt(lambda: remove(session.work.canvas, 2))
mark(session.labels, dict([(1, "accepted"), (3, "fix"), (4, "rejected")]))
say(session.labels, "class", dict([(1, "nucleus")]))
mark(session.labels, dict([(4, "")]))
made = time.monotonic()
wait(lambda: session.state.kept is not None)
print("kept", time.monotonic() - made, flush=True)
wait(lambda: False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("large", [False, True], ids=["file", "region of a store"])
def test_edits_marks_and_classes_of_a_file_outlive_a_killed_napari(refine: Callable[..., Any], tmp_path: Path, large: bool) -> None:
    labels = np.kron(blobs(), np.ones((20, 10), np.uint16)).astype(np.uint16) if large else blobs()
    path = tmp_path / ("cells.ome.zarr" if large else "cells.ome.tif")
    write_labels(Volume.from_scale(labels, "YX", (0.5, 0.25), units=("micrometer",) * 2), path)
    program = textwrap.dedent(BESIDE).format(tests=os.path.dirname(__file__), path=str(path))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        word, seconds = process.stdout.readline().split()
        other = refine()
        other.viewer.open(str(path), plugin="napari-tileseg")
        other.qtbot.wait(200)
        assert not other.session.state.recovered, "the other one is still there"
        other.viewer.layers.clear()
        os.kill(process.pid, signal.SIGKILL)
    assert word == "kept"
    assert float(seconds) < 10
    here = refine()
    here.viewer.open(str(path), plugin="napari-tileseg")
    here.until(lambda: here.session.state.recovered)
    assert here.text == "1 edit and 2 marks were recovered."
    here.follow(Action.KEEP)
    np.testing.assert_array_equal(here.data, np.where(labels == 2, 0, labels))
    assert checks(here.layer) == {1: "accepted", 3: "fix"}
    table = here.layer.features
    assert table["class"][table["index"] == 1].tolist() == ["nucleus"]
    if large:
        here.session.regions.put_back()
        np.testing.assert_array_equal(zarr.open_group(path, mode="r")["0"][...], np.where(labels == 2, 0, labels))
        assert not list(tmp_path.glob(".*.tileseg-edits"))
