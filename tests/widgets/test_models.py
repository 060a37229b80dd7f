"""The Models dock, worked by hand: what it lists, what it starts, and what it says when that ends well, badly or not at all."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from models_desk import ModelsDesk, folder_of, model
from qtpy.QtCore import QEvent, QMimeData, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QLineEdit, QMessageBox

from napari_tileseg.errors import ModelError
from napari_tileseg.widgets.dialogs import TextDialog
from napari_tileseg.widgets.segment import dock_of
from napari_tileseg.widgets.states import Action

if TYPE_CHECKING:
    from collections.abc import Callable

    from models_desk import Commands, Hubs

THREE = (
    model("nuclei-2d", title="Nuclei 2D", place="built in"),
    model("own-cells", classes=["background", "left", "right"], output="softmax", description="Two sides."),
    model("stranger", kind="TorchScript", trust="needed", unknown=["classes", "window"]),
)
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")


@pytest.fixture
def ready(models: Callable[..., ModelsDesk], commands: Commands) -> Callable[..., ModelsDesk]:
    """Return a function that shows a dock with three models in it."""

    def make(*listed: Any, **more: Any) -> ModelsDesk:
        commands.say("models list", *(listed or THREE))
        here = models(show=True, **more)
        here.until(lambda: here.titles)
        return here

    return make


# What there is


def test_models_are_listed_searched_and_sorted(ready: Callable[..., ModelsDesk]) -> None:
    here = ready()
    assert here.titles == ["Nuclei 2D", "own-cells", "stranger"]
    assert here.dock.button.text() == "Use in Segment"
    assert here.card["Finds"] == "objects: cell"
    here.qtbot.keyClicks(here.dock.search, "TWO sides")
    assert here.titles == ["own-cells"]
    assert here.card["Finds"] == "classes: left, right"
    here.dock.search.setText("nothing like it")
    assert (here.titles, here.text) == ([], "No model has all these words.")
    assert not here.dock.button.isEnabled()
    here.dock.search.clear()
    assert len(here.titles) == 3
    head = here.dock.models.horizontalHeader()
    for expected in (
        ["Nuclei 2D", "own-cells", "stranger"],
        ["stranger", "own-cells", "Nuclei 2D"],
        ["Nuclei 2D", "own-cells", "stranger"],
    ):
        here.qtbot.mouseClick(head.viewport(), Qt.MouseButton.LeftButton, pos=head.rect().center() / 4)
        assert here.titles == expected


def test_what_is_not_said_is_marked_and_what_was_measured_is_told(ready: Callable[..., ModelsDesk]) -> None:
    fact = SimpleNamespace(device="cuda:0", load_seconds=0.31, memory=4e8, tile_seconds=0.2)
    here = ready(facts=lambda sha256: [fact] if sha256.startswith("stranger") else [])
    here.choose("stranger")
    assert here.card["Finds"] == "objects: cell (not said, assumed)"
    assert here.card["Window"] == "64 x 64 (not said, assumed)"
    assert here.card["Trust"] == "needed: it can run any program"
    here.until(lambda: here.card.get("Speed") == "cuda:0: loads in 0.3 s, first tile 0.2 s, 0.4 GB")
    assert here.dock.button.text() == "Trust..."


def test_a_list_that_cannot_be_made_is_a_sentence(models: Callable[..., ModelsDesk], commands: Commands) -> None:
    commands.say("models list", {"event": "error", "error": "OutputError", "message": "The disk is gone."}, status=1)
    here = models()
    here.until(lambda: here.text == "The disk is gone.")
    commands.say("models list", *THREE)
    here.follow(Action.REFRESH)
    here.until(lambda: len(here.titles) == 3)


def test_a_hub_is_listed_without_waiting_for_it(ready: Callable[..., ModelsDesk], hubs: Hubs) -> None:
    here = ready()
    hubs.wait.clear()
    here.dock.shown.choose("monai")
    assert (here.titles, here.text) == ([], "Looking for models")
    here.dock.shown.choose("")
    here.until(lambda: len(here.titles) == 3)
    hubs.wait.set()
    here.dock.shown.choose("monai")
    here.until(lambda: here.titles == ["Spleen CT", "Cells"])
    assert here.dock.button.text() == "Download (96 MB)"
    assert here.card["Licence"] == "Apache-2.0"
    here.dock.search.setText("haematology")
    assert here.titles == ["Cells"]
    assert here.dock.button.text() == "Use in Segment", "it was downloaded before"
    here.follow(Action.REFRESH)
    here.until(lambda: hubs.asked[-1] == ("monai", True))


def test_a_hub_that_does_not_answer_is_a_sentence(ready: Callable[..., ModelsDesk], hubs: Hubs) -> None:
    here = ready()
    hubs.error = ModelError("The hub cannot be reached.")
    here.dock.shown.choose("bioimageio")
    here.until(lambda: here.text == "The hub cannot be reached.")
    assert here.dock.message.shown.links == (Action.REFRESH,)


# Bringing models


def test_what_a_model_does_not_say_is_asked_once(ready: Callable[..., ModelsDesk], commands: Commands, tmp_path: Path) -> None:
    here = ready()
    path = folder_of(tmp_path) / "net.onnx"
    card = model("net", unknown=["classes", "normalization", "spacing", "window", "axes"], normalization={"kind": "none"})
    commands.say("models show", {**card, "event": "card", "card": "# net"})
    commands.say("models import", {"event": "error", "error": "ModelError", "message": "It returns 3 scores."}, status=1)
    here.session.bring([str(path)])
    here.until(lambda: here.session.question is not None)
    assert here.dock.asking.isVisible()
    assert not here.dock.card.isVisible()
    assert here.dock.button.text() == "Import"
    assert here.dock.asking.answers() == {
        "axes": "YX",
        "classes": "background, cell",
        "window": "64, 64",
        "normalization": "none",
        "spacing": "",
    }
    inputs: Any = here.dock.asking.inputs
    inputs["spacing"].setText("0.5, 0.5 µm")
    inputs["normalization"].choose("zscore")
    here.click()
    here.until(lambda: here.dock.asking.problem.shown is not None)
    assert here.dock.asking.problem.shown.text == "It returns 3 scores."
    assert inputs["spacing"].text() == "0.5, 0.5 µm", "what was typed stays"
    inputs["classes"].setText("background, a, b")
    commands.say("models import", {"event": "imported", "name": "net", "unknown": [], "tests": [], "not_tested": ""})
    commands.say("models list", *THREE, model("net"))
    here.click()
    here.until(lambda: here.text == "net is here now." and len(here.titles) == 4)
    words = commands.last("import")
    assert words[2] == str(path)
    assert words[3:-1] == [
        *("--axes", "YX", "--classes", "background,a,b", "--window", "64, 64"),
        *("--normalization", "zscore", "--spacing", "0.5,0.5µm"),
    ]
    assert here.dock.row.ref == "net", "it is selected"
    assert not here.dock.asking.isVisible()


def test_what_a_model_does_not_say_is_said_later(ready: Callable[..., ModelsDesk], commands: Commands) -> None:
    card = model("quiet", unknown=["classes", "normalization", "spacing"], normalization={"kind": "none"})
    here = ready(*THREE, card)
    here.choose("quiet")
    assert here.card["Finds"].endswith("(not said, assumed)")
    here.follow(Action.SAY)
    assert here.dock.button.text() == "Remember"
    assert here.dock.asking.isVisible()
    here.follow(Action.LATER)
    assert here.session.question is None
    assert here.dock.card.isVisible()
    here.follow(Action.SAY)
    inputs: Any = here.dock.asking.inputs
    inputs["classes"].setText("")
    inputs["normalization"].choose("zscore")
    commands.say("models answer", {"event": "error", "error": "ModelError", "message": "It returns 3 scores."}, status=1)
    here.click()
    here.until(lambda: here.dock.asking.problem.shown is not None)
    inputs["classes"].setText("background, a, b")
    commands.say("models answer", {"event": "answered", "name": "quiet", "unknown": ["spacing"]})
    commands.say("models list", *THREE, model("quiet", unknown=["spacing"]))
    here.click()
    here.until(lambda: here.text == "What was said of quiet is remembered. Still not said: spacing.")
    assert commands.last("answer")[2:-1] == ["quiet", "--classes", "background,a,b", "--normalization", "zscore"]
    here.until(lambda: "assumed" not in here.card["Finds"])
    assert here.dock.row.ref == "quiet"


def test_what_has_just_come_is_asked_about(ready: Callable[..., ModelsDesk], commands: Commands) -> None:
    here = ready()
    commands.say("models download", {"event": "downloaded", "name": "new", "unknown": ["classes"]})
    commands.say("models list", 3, *THREE, model("new", unknown=["classes"]))
    commands.say("models show new", model("new", unknown=["classes"]))
    here.session.bring(["https://example.org/new.onnx"])
    here.until(lambda: here.text == "new is here now. Assumed: classes.")
    here.click(here.dock.message.links.buttons[Action.SAY])  # before the list has come to it
    here.until(lambda: here.session.question is not None)
    assert (here.session.question.ref, here.session.question.here) == ("new", True)


def test_several_files_come_one_after_the_other_and_one_can_be_left(
    ready: Callable[..., ModelsDesk], commands: Commands, tmp_path: Path
) -> None:
    here = ready()
    commands.say("models show", model("net", unknown=["licence"]))
    commands.say(f"models show {tmp_path / 'b'}", model("b"))
    commands.say("models import", 0.2, {"event": "imported", "name": "b", "unknown": [], "tests": [], "not_tested": ""})
    here.session.bring([str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "b2")])
    assert "2 more to come" in here.dock.progress.format()
    here.until(lambda: here.session.question is not None)
    here.follow(Action.BACK)
    here.until(lambda: here.text == "b is here now." and not here.session.work.active)
    assert commands.count("models import") == 2
    assert commands.count(f"models import {tmp_path / 'a'}") == 0


def test_a_name_that_is_taken_is_asked_for(ready: Callable[..., ModelsDesk], commands: Commands, tmp_path: Path) -> None:
    here = ready()
    taken = 'A model "net" is there already. Give another name (--name), or remove it: tileseg models remove net.'
    commands.say("models show", model("net"))
    commands.say("models import", {"event": "error", "error": "OutputError", "message": taken}, status=1)
    here.session.bring([str(tmp_path / "net.onnx")])
    here.until(lambda: here.session.question is not None)
    assert "already" in here.dock.asking.problem.shown.text
    commands.say("models import", {"event": "imported", "name": "other"})
    here.dock.asking.inputs["name"].setText("other")
    here.click()
    here.until(lambda: here.text == "other is here now.")
    assert commands.last("import")[-3:-1] == ["--name", "other"]


def test_files_folders_and_addresses_are_dropped_anywhere(ready: Callable[..., ModelsDesk], commands: Commands, tmp_path: Path) -> None:
    here = ready()
    assert not [field for field in here.dock.findChildren(QLineEdit) if field.acceptDrops()]
    commands.say("models show", model("net"))
    commands.say("models import", {"event": "imported", "name": "net"})
    commands.say("models download", {"event": "downloaded", "name": "web"})
    data = QMimeData()
    data.setUrls([QUrl.fromLocalFile(str(folder_of(tmp_path))), QUrl("https://example.org/web.zip")])
    enter = QDragEnterEvent(
        here.dock.rect().center(), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    QApplication.sendEvent(here.dock, enter)
    assert enter.isAccepted()
    drop = QDropEvent(
        QPointF(9, 9), Qt.DropAction.CopyAction, data, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, QEvent.Type.Drop
    )
    QApplication.sendEvent(here.dock, drop)
    here.until(lambda: here.text == "web is here now.")
    assert commands.count(f"models import {tmp_path}") == 1
    assert commands.count("models download https://example.org/web.zip --json") == 1
    text = QMimeData()
    text.setText("no file")
    refused = QDragEnterEvent(
        here.dock.rect().center(), Qt.DropAction.CopyAction, text, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    QApplication.sendEvent(here.dock, refused)
    assert not refused.isAccepted()


def test_an_address_is_asked_for(ready: Callable[..., ModelsDesk], commands: Commands) -> None:
    here = ready()
    commands.say("models download", {"event": "downloaded", "name": "web", "unknown": ["classes"]})
    here.session.ask_address()
    here.dock.asking.inputs["address"].setText("file:///etc/passwd")
    here.click()
    assert "no address" in here.dock.asking.problem.shown.text
    here.dock.asking.inputs["address"].setText("https://example.org/web.zip")
    here.click()
    here.until(lambda: here.text == "web is here now. Assumed: classes.")
    assert commands.count("models download https://example.org/web.zip --json") == 1


def test_a_download_says_how_far_it_is_is_stopped_and_gone_on_with(ready: Callable[..., ModelsDesk], commands: Commands) -> None:
    here = ready()
    here.dock.shown.choose("monai")
    here.until(lambda: here.titles)
    commands.say("models download", {"event": "progress", "bytes": 31_000_000, "of": 96_000_000}, 60)
    here.click()
    here.until(lambda: "Downloading 31 of 96 MB" in here.dock.progress.format())
    assert here.dock.progress.value() == pytest.approx(1000 * 31 / 96, abs=1)
    assert here.dock.button.text() == "Cancel"
    began = time.monotonic()
    here.click()
    here.until(lambda: "Download stopped at 31 of 96 MB." in here.text)
    assert time.monotonic() - began < 10
    commands.say("models download", {"event": "downloaded", "name": "spleen"})
    here.follow(Action.RESUME)
    here.until(lambda: here.text == "spleen is here now.")


# Checking, trusting, giving on, removing


def test_a_check_tells_times_and_tests(ready: Callable[..., ModelsDesk], commands: Commands) -> None:
    here = ready()
    tests = [{"name": "a", "passed": True, "share": 0.0}, {"name": "b", "passed": False, "share": 0.25}]
    commands.say("models verify", {"event": "verified", "seconds_to_load": 1.25, "seconds_for_tile": 0.01, "tests": tests})
    here.follow(Action.VERIFY)
    here.until(lambda: "works" in here.text)
    assert "loads in 1.2 s, and one tile takes less than 0.1 s. 1 of its 2 tests failed: in b, 25.00% of the values differ." in here.text
    assert here.dock.message.shown.kind == "warning"
    assert commands.asked[-1] == ["models", "verify", "nuclei-2d", "--json"]


@posix
@pytest.mark.parametrize("deaf", [False, True])
def test_what_goes_on_can_be_cancelled(
    ready: Callable[..., ModelsDesk], commands: Commands, monkeypatch: pytest.MonkeyPatch, deaf: bool
) -> None:
    monkeypatch.setattr("napari_tileseg.widgets.models.chore._GRACE", 0.5)
    here = ready()
    commands.say("models verify", 60, deaf=deaf)
    here.follow(Action.VERIFY)
    assert here.dock.button.text() == "Cancel"
    here.qtbot.wait(300)  # until the stand-in has begun to be deaf
    here.click()
    assert (here.dock.button.text(), here.dock.button.isEnabled()) == ("Cancelling...", False)
    here.until(lambda: here.text == "Cancelled. Nothing was changed.")
    assert here.dock.button.text() == "Use in Segment"


@posix
def test_a_process_that_dies_is_a_sentence(ready: Callable[..., ModelsDesk], commands: Commands) -> None:
    here = ready()
    commands.say("models verify", "no json", signal=int(signal.SIGKILL))
    here.follow(Action.VERIFY)
    here.until(lambda: "ended by itself (signal 9)" in here.text)
    commands.say("models verify", stderr="Traceback\nValueError: odd\n", status=1)
    here.follow(Action.VERIFY)
    here.until(lambda: here.text == "ValueError: odd")


def test_what_would_run_is_shown_before_it_is_trusted(ready: Callable[..., ModelsDesk], commands: Commands, tmp_path: Path) -> None:
    here = ready()
    program = tmp_path / "net.py"
    program.write_text("import os\n\nos.system('<b>rm</b> -rf /')\n")
    refusal = {"event": "error", "error": "TrustError", "message": "No.", "path": str(program), "what": "line 3 calls os.system"}
    commands.say("models verify", refusal, status=1)
    here.choose("stranger")
    here.click()
    dialog = here.dialog()
    words = " ".join(label.text() for label in dialog.findChildren(type(here.dock.message.text)))
    assert "This file can run any program. Trust only an author you know." in words
    assert str(program) in words
    assert "line 3 calls os.system" in words
    assert dialog.view.toPlainText() == program.read_text()
    assert dialog.view.textCursor().selectedText() == "os.system('<b>rm</b> -rf /')"
    assert dialog.no.isDefault()
    here.click(dialog.no)
    assert not (Path(os.environ["TILESEG_MODELS"]).parent / "own_models-trust.json").exists()
    here.click()
    dialog = here.dialog()
    commands.say("models verify", {"event": "verified", "seconds_to_load": 1, "seconds_for_tile": 1, "tests": []})
    commands.say("models list", *THREE[:2], model("stranger", kind="TorchScript", trust="trusted"))
    here.click(dialog.yes)
    here.until(lambda: "stranger works" in here.text)
    here.until(lambda: here.dock.row.trust == "trusted")
    assert Action.REVOKE in here.links
    commands.say("models revoke", {"event": "revoked", "names": ["net.py"]})
    here.follow(Action.REVOKE)
    here.until(lambda: here.text == "stranger is not trusted any more.")
    from napari_tileseg.models.trust import revoke

    assert [entry.name for entry in revoke(program)] == ["net.py"]


def test_a_file_that_changes_while_it_is_looked_at_is_not_trusted(
    ready: Callable[..., ModelsDesk], commands: Commands, tmp_path: Path
) -> None:
    from napari_tileseg.models.trust import is_trusted

    here = ready()
    program = tmp_path / "net.pt"
    program.write_bytes(b"one")
    refusal = {"event": "error", "error": "TrustError", "message": "No.", "path": str(program), "what": "it is a program"}
    commands.say("models verify", {**refusal, "findings": ["os.system (byte 4)"]}, status=1)
    here.choose("stranger")
    here.click()
    dialog = here.dialog()
    assert dialog.view.toPlainText() == "os.system (byte 4)"
    program.write_bytes(b"two")
    here.click(dialog.yes)
    here.until(lambda: "has changed since it was shown" in here.text)
    assert not is_trusted(program)


def test_an_import_that_is_refused_offers_trust(ready: Callable[..., ModelsDesk], commands: Commands, tmp_path: Path) -> None:
    here = ready()
    program = tmp_path / "weights.pt"
    program.write_bytes(b"pickle")
    refusal = {"event": "error", "error": "TrustError", "message": "No.", "path": str(program), "what": "it names os.system (byte 12)"}
    commands.say("models show", refusal, status=1)
    here.session.bring([str(program)])
    here.until(lambda: "os.system" in here.text)
    assert here.text == "weights.pt was not opened, because it can run any program: it names os.system (byte 12)."
    here.follow(Action.TRUST)
    dialog = here.dialog()
    commands.say("models show", model("net"))
    commands.say("models import", {"event": "imported", "name": "net"})
    here.click(dialog.yes)
    here.until(lambda: here.text == "net is here now.")


def test_a_model_is_written_and_removed(
    ready: Callable[..., ModelsDesk], commands: Commands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ready()
    here.choose("own-cells")
    target = tmp_path / "given.tileseg.zip"
    monkeypatch.setattr(QFileDialog, "getSaveFileName", lambda *_: (str(target), ""))
    commands.say("models export", {"event": "exported", "path": str(target)})
    here.follow(Action.GIVE_ON)
    here.until(lambda: here.text == "given.tileseg.zip is written.")
    assert commands.asked[-1] == ["models", "export", "own-cells", str(target), "--overwrite", "--json"]
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    monkeypatch.setattr(QMessageBox, "exec", lambda _: answers.pop(0))
    here.follow(Action.DELETE)
    assert commands.count("models remove") == 0
    commands.say("models remove", {"event": "removed", "name": "own-cells"})
    commands.say("models list", THREE[0])
    here.follow(Action.DELETE)
    here.until(lambda: here.text == "own-cells is removed." and here.titles == ["Nuclei 2D"])
    assert Action.DELETE not in here.links, "what is built in stays"


def test_the_whole_card_is_text(ready: Callable[..., ModelsDesk], commands: Commands) -> None:
    here = ready()
    commands.say("models show", model("nuclei-2d", event="card", card="# Nuclei\n\n<img src='file:///etc/passwd'>"))
    here.follow(Action.CARD)
    here.until(lambda: here.dock.findChildren(TextDialog))
    dialog = here.dock.findChild(TextDialog)
    assert "<img" in dialog.view.toPlainText()
    dialog.close()


# Using models


def test_a_model_is_used_in_segment(ready: Callable[..., ModelsDesk], commands: Commands, stand_in: Callable[..., None]) -> None:
    stand_in()
    commands.say("models list", model("small-classes"), model("small-objects"))
    here = ready(window=True)
    here.commands.say("models list", model("small-classes"), model("small-objects"))
    here.dock.segment.models_changed.emit()
    here.until(lambda: "small-objects" in here.titles)
    here.choose("small-objects")
    here.click()
    segment = dock_of(here.viewer)
    assert segment.form.model.value == "small-objects"
    assert segment.parent().isVisible()
    here.choose("small-classes")
    here.click()
    assert segment.form.model.value == "small-classes"
    assert dock_of(here.viewer) is segment, "there is one dock"
    here.follow(Action.TRY)
    assert "No image is active." in here.text
    here.viewer.add_image(np.random.default_rng(0).normal(size=(40, 48)).astype(np.float32), name="noise")
    here.follow(Action.TRY)
    assert segment.session.active
    assert (segment.session.order.image.name, segment.session.order.spec.name) == ("noise", "small-classes")
    here.until(lambda: not segment.session.active)


def test_closing_the_dock_stops_nothing(ready: Callable[..., ModelsDesk], commands: Commands, tmp_path: Path, capsys: Any) -> None:
    here = ready(window=True)
    done = tmp_path / "done"
    commands.say("models show", model("net"))
    commands.say("models import", 0.4, {"event": "imported", "name": "net"})
    session = here.session
    arrived: list[str] = []
    session.arrived.connect(arrived.append)
    session.bring([str(done)])
    here.until(lambda: session.work.kind == "importing")
    here.viewer.window.remove_dock_widget(here.dock)
    here.until(lambda: arrived == ["net"])
    assert not session.work.active


@pytest.mark.slow
def test_closing_the_viewer_ends_what_goes_on(ready: Callable[..., ModelsDesk], commands: Commands) -> None:
    here = ready(window=True)
    commands.say("models verify", 60)
    here.follow(Action.VERIFY)
    chore = here.session._chore
    here.viewer.close()
    end = time.monotonic() + 20
    while chore.running and time.monotonic() < end:
        time.sleep(0.02)
    assert not chore.running
