"""The Models dock with the real commands behind it: brought, trusted, used; napari itself loads no torch for that."""

from __future__ import annotations

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from qtpy.QtCore import Qt

from napari_tileseg.errors import ModelError, OutputError
from napari_tileseg.models.imports import import_model
from napari_tileseg.models.registry import find_spec
from napari_tileseg.models.trust import revoke
from napari_tileseg.widgets import bridge
from napari_tileseg.widgets.models import chore
from napari_tileseg.widgets.models.chore import Chore, Ended, command
from napari_tileseg.widgets.models.session import _TAKEN, _UNRECOGNISED
from napari_tileseg.widgets.states import Action, Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from models_desk import ModelsDesk

SOURCE = Path(__file__).parents[1] / "models" / "bioimageio" / "source-2d-v4.zip"

SCRIPT = dedent("""
    import sys

    import napari
    from napari.settings import get_settings
    from qtpy.QtTest import QTest

    get_settings().application.confirm_close_window = False
    viewer = napari.Viewer(show_welcome_screen=False)
    _, dock = viewer.window.add_plugin_dock_widget("napari-tileseg", "Models")


    def until(condition):
        for _ in range(24_000):
            if condition():
                return
            QTest.qWait(5)
        raise TimeoutError(f"{dock.session.work}, {dock.message.text.text()}")


    until(lambda: dock.models.shown)
    print("models:", *(row.name for row in dock.models.shown))
    dock.models.choose("nuclei-2d")
    dock.session.verify("nuclei-2d", "Nuclei 2D")
    until(lambda: not dock.session.work.active)
    print("said:", dock.message.text.text())
    print("heavy:", *({"torch", "monai"} & sys.modules.keys()))
    viewer.close()
""")


def wait(chore: Chore, ended: list[Ended]) -> Ended:
    chore.join(120)
    assert ended
    return ended[0]


def test_commands_run_as_they_are() -> None:
    ended: list[Ended] = []
    listed = wait(Chore(["models", "list", "--json"], ended.append), ended)
    assert listed.error is None
    assert {event["name"] for event in listed.events} >= {"nuclei-2d", "small-classes"}
    ended.clear()
    wrong = wait(Chore(["models", "show", "nothing", "--json"], ended.append), ended)
    assert wrong.error is not None
    assert 'There is no model "nothing".' in wrong.error["message"]
    assert wrong.status == 2


def test_a_program_that_cannot_be_started_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(chore.RunError, match="could not be started: "):
        Chore(["models"], lambda _: None, start=lambda words: ["/nowhere/python", *words])
    assert command(["models", "list"])[-2:] == ["models", "list"]


@pytest.mark.slow
def test_a_model_of_another_kind_is_brought_trusted_and_removed(
    models: Callable[..., ModelsDesk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qtpy.QtWidgets import QMessageBox

    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "own"))
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))
    here = models(show=True, real=True)
    here.until(lambda: here.titles == ["Hippocampus 3D", "Nuclei 2D"])
    here.session.bring([str(SOURCE)])
    here.until(lambda: here.session.question is not None)
    answers: Any = here.dock.asking.inputs
    assert list(answers) == ["classes"]
    answers["classes"].setText("cell")
    here.click()
    here.until(lambda: "is here now. It needs trust" in here.text and "source-2d-v4" in here.titles)
    assert here.card["Finds"] == "overlapping: cell"
    here.click()
    dialog = here.dialog()
    assert dialog.shown.line == 6
    assert dialog.view.textCursor().selectedText().startswith("class Two")
    here.click(dialog.yes)
    here.until(lambda: "Its test passed." in here.text)
    here.until(lambda: here.dock.row.trust == "trusted")
    monkeypatch.setattr(QMessageBox, "exec", lambda _: QMessageBox.StandardButton.Yes)
    here.follow(Action.DELETE)
    here.until(lambda: "is removed." in here.text)
    here.until(lambda: "source-2d-v4" not in here.titles)
    assert list((tmp_path / "own").iterdir()) == []
    revoke(next((tmp_path / "cache").rglob("two.py")))


def test_a_model_is_downloaded_from_an_address_and_told_what_was_measured(
    models: Callable[..., ModelsDesk], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_tileseg.models.facts import remember
    from napari_tileseg.models.settings import Settings, read_settings

    for name in ("models", "cache", "settings"):
        monkeypatch.setenv(f"TILESEG_{name.upper()}", str(tmp_path / name))
    content = SOURCE.parent / "onnx-2d-v5.zip"

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = content.read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = models(show=True, real=True)
        assert [here.dock.shown.itemText(place) for place in range(3)] == ["On this computer", "MONAI Model Zoo", "BioImage.IO"]
        here.session.bring([f"http://127.0.0.1:{server.server_port}/net.zip"])
        here.until(lambda: "is here now." in here.text or (here.text and not here.session.work.active))
        server.shutdown()
    assert "is here now." in here.text
    here.until(lambda: len(here.titles) == 3 and here.dock.row.removable)
    remember(here.dock.row.facts["weights_sha256"], "cpu", load_seconds=0.25, tile_seconds=1.5)
    here.session.shelf.listed.emit()
    here.until(lambda: here.card.get("Speed") == "cpu: loads in 0.2 s, first tile 1.5 s")
    here.until(lambda: here.dock.settings_scroller.isVisible())
    fold = here.dock.settings
    fold.open()
    fold.proxy.setText("nonsense")
    fold.proxy.textEdited.emit("nonsense")
    here.until(lambda: fold.problem.shown is not None)
    fold.proxy.setText("")
    fold.retries.setValue(7)
    here.until(lambda: read_settings() == Settings(retries=7) and fold.problem.shown is None)


def test_what_the_dock_answers_is_what_the_commands_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "own"))
    import_model("nuclei-2d", name="again")
    with pytest.raises(OutputError, match=_TAKEN):
        import_model("nuclei-2d", name="again")
    torch.save({"odd.weight": torch.zeros(3)}, tmp_path / "odd.pth")
    with pytest.raises(ModelError, match=_UNRECOGNISED):
        find_spec(str(tmp_path / "odd.pth"))


@pytest.mark.slow  # the model's process is started twice
def test_segment_offers_to_trust_the_model_that_it_may_not_open(
    desk: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from models_desk import ModelsDesk

    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "own"))
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))
    bridge.close_supervisor()  # the process of the tests before has other folders
    name = import_model(str(SOURCE), {"classes": ["cell"]}).name
    here = desk()
    here.viewer.add_image(np.random.default_rng(0).random((70, 80)).astype(np.float32), name="noise")
    assert here.dock.choose_model(name)
    here.run()
    assert here.text.startswith("two.py can run any program when it is opened, because it is Python source")
    assert "tileseg models trust" not in here.text
    here.follow(Action.TRUST)
    assert here.text.startswith("Finding out what")
    window = ModelsDesk.dialog(here)
    here.qtbot.mouseClick(window.yes, Qt.MouseButton.LeftButton)
    here.until(lambda: "works" in here.text)
    here.run()
    assert here.phase is Phase.DONE
    assert f"noise_{name}_cell" in [layer.name for layer in here.viewer.layers]
    revoke(next((tmp_path / "cache").rglob("two.py")))
    bridge.close_supervisor()


@pytest.mark.slow  # another napari, and the real network
def test_napari_loads_no_torch_to_check_a_model() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    lines = dict(line.split(":", 1) for line in done.stdout.splitlines() if ":" in line)
    assert "nuclei-2d" in lines["models"]
    assert "Nuclei 2D works: its files are whole" in lines["said"]
    assert lines["heavy"].strip() == ""
