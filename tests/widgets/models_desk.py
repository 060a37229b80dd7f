"""``ModelsDesk``: a viewer with the Models dock in it, worked by mouse and keyboard; and a stand-in for the commands behind it."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QApplication

from napari_tileseg.widgets.models.sources import Sources
from napari_tileseg.widgets.models.trust import TrustDialog

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_tileseg.widgets.models import ModelsWidget
    from napari_tileseg.widgets.states import Action

PATIENCE = float(os.environ.get("MODELS_PATIENCE", "120"))
"""Seconds after which a test gives up waiting; a busy machine is no bug."""

SCRIPT = """
import json, signal, sys, time
plan = json.loads(sys.argv[1])
if plan.get("deaf"):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
try:
    for event in plan.get("events", []):
        if isinstance(event, (int, float)):
            time.sleep(event)
        else:
            print(event if isinstance(event, str) else json.dumps(event), flush=True)
except KeyboardInterrupt:
    sys.exit(130)
sys.stderr.write(plan.get("stderr", ""))
if plan.get("signal"):
    signal.raise_signal(plan["signal"])
sys.exit(plan.get("status", 0))
"""


@dataclass(frozen=True)
class Entry:
    """What a hub says of a model."""

    hub: str
    name: str
    title: str
    description: str = ""
    version: str = ""
    url: str = ""
    sha256: str = ""
    size: int | None = None
    licence: str = ""
    task: str = ""
    dimensions: str = ""
    tags: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        return f"hub:{self.hub}/{self.name}"


ENTRIES = [
    Entry(
        "monai",
        "spleen",
        "Spleen CT",
        "The spleen, in CT.",
        "0.5",
        "https://example.org/a.zip",
        "0" * 64,
        96_000_000,
        "Apache-2.0",
        "semantic",
        "3D",
    ),
    Entry("monai", "cells", "Cells", "Blood.", task="instances", dimensions="2D", tags=("haematology",)),
]


def model(name: str, **more: Any) -> dict[str, Any]:
    """Return what ``tileseg models list`` says of a model."""
    card = {
        "event": "model",
        "name": name,
        "title": "",
        "description": f"What {name} does.",
        "axes": "CYX",
        "channels": ["channel 1"],
        "classes": ["background", "cell"],
        "output": "instances",
        "window": [64, 64],
        "licence": "CC0-1.0",
        "weights_sha256": f"{name:0<64}",
        "unknown": [],
        "kind": "TileSeg",
        "trust": "not needed",
        "size": 5_000_000,
        "place": "own",
    }
    return {**card, **more}


@dataclass
class Commands:
    """Stands for ``tileseg``: what each command would print, by its first words."""

    plans: dict[str, dict[str, Any]] = field(default_factory=dict)
    asked: list[list[str]] = field(default_factory=list)

    def say(self, words: str, *events: Any, **more: Any) -> None:
        """Have a command print events; numbers are seconds in between."""
        self.plans[words] = {"events": events, **more}

    def start(self, words: Sequence[str]) -> list[str]:
        self.asked.append(list(words))
        text = " ".join(words)
        plan = next((plan for start, plan in reversed(self.plans.items()) if text.startswith(start)), {})
        return [sys.executable, "-S", "-E", "-c", SCRIPT, json.dumps(plan)]

    def last(self, which: str) -> list[str]:
        """Return the words of the last command of a kind."""
        return next(asked for asked in reversed(self.asked) if asked[1] == which)

    def count(self, words: str) -> int:
        return sum(" ".join(asked).startswith(words) for asked in self.asked)


class ModelsDesk:
    """A viewer with the dock in it."""

    def __init__(self, viewer: Any, qtbot: Any, dock: ModelsWidget, commands: Commands) -> None:
        self.viewer = viewer
        self.qtbot = qtbot
        self.dock = dock
        self.session = dock.session
        self.commands = commands

    @property
    def text(self) -> str:
        """What the message says."""
        return self.dock.message.text.text() if self.dock.message.shown is not None else ""

    @property
    def titles(self) -> list[str]:
        return [row.title for row in self.dock.models.shown]

    @property
    def card(self) -> dict[str, str]:
        return dict(self.dock.card.said)

    @property
    def links(self) -> set[Action]:
        """Everything that is offered as a link."""
        every = (self.dock.message.links, self.dock.card.links, self.dock.links)
        return {action for links in every for action in links.shown if not links.isHidden()}

    def until(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < end, f"waited in vain: {self.session.work}, {self.text!r}, {self.titles}, {self.session.question}"
            self.qtbot.wait(5)

    def settle(self) -> None:
        """Wait until nothing goes on and the models are listed."""
        self.until(lambda: not self.session.work.active and not self.session.shelf.listing)

    def click(self, button: Any = None) -> None:
        """Press a button with the mouse; the big one by default."""
        self.qtbot.mouseClick(button or self.dock.button, Qt.MouseButton.LeftButton)

    def follow(self, action: Action) -> None:
        """Click a link."""
        for links in (self.dock.message.links, self.dock.card.links, self.dock.links):
            if action in links.shown and not links.isHidden():
                self.click(links.buttons[action])
                return
        raise AssertionError(f"there is no link {action}, only {self.links}")

    def choose(self, ref: str) -> None:
        assert self.dock.models.choose(ref), f"{ref} is not shown, only {self.titles}"

    def dialog(self) -> TrustDialog:
        """Wait for the window that asks for trust."""
        found: list[TrustDialog] = []

        def look() -> bool:
            found[:] = [item for item in QApplication.topLevelWidgets() if isinstance(item, TrustDialog) and item.isVisible()]
            return bool(found)

        self.until(look)
        return found[0]


class Hubs:
    """Stands for the hubs."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []
        self.error: Exception | None = None
        self.wait = threading.Event()
        self.wait.set()

    def catalog(self, hub: str, *, refresh: bool = False, cancel: Any = None) -> list[Entry]:
        self.asked.append((hub, refresh))
        while not self.wait.wait(0.01):
            if cancel():
                raise RuntimeError("nobody listens")
        if self.error is not None:
            raise self.error
        return ENTRIES


def sources(commands: Commands, hubs: Hubs, **more: Any) -> Sources:
    """Return where a dock of a test gets everything from."""
    given: dict[str, Any] = {
        "start": commands.start,
        "hubs": lambda: {"monai": "MONAI Model Zoo", "bioimageio": "BioImage.IO"},
        "catalog": hubs.catalog,
        "records": lambda: {"hub:monai/cells": "own-cells"},
        "facts": lambda sha256: [],
        "read_settings": lambda: None,
        "write_settings": lambda settings: None,
    }
    return Sources(**{**given, **more})


def folder_of(path: Path) -> Path:
    """Return a folder with a file that a test may drop."""
    path.mkdir(parents=True, exist_ok=True)
    (path / "net.onnx").write_bytes(b"\x08")
    return path
