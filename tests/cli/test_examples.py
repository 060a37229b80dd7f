"""Every command shows how it is used, and what is shown is accepted; options say what holds without them."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import typer.main

from napari_tileseg.cli import app, main
from napari_tileseg.cli.examples import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def small_tiff(tmp_path: Path) -> Path:
    path = tmp_path / "small.tif"
    tifffile.imwrite(path, np.zeros((40, 48), np.uint8))
    return path


ROOT: Any = typer.main.get_command(app)


def commands(group: Any = ROOT, before: str = "") -> dict[str, Any]:
    """All commands by their full names."""
    found: dict[str, Any] = {}
    for name, command in group.commands.items():
        found |= commands(command, f"{before}{name} ") if hasattr(command, "commands") else {before + name: command}
    return found


def test_no_command_is_without_and_no_example_without_a_command() -> None:
    assert set(commands()) == set(EXAMPLES)
    for name, command in commands().items():
        assert command.epilog is not None
        assert all(line in command.epilog for line in EXAMPLES[name])


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_what_is_shown_is_accepted(line: str) -> None:
    program, *words = shlex.split(line)
    assert program == "tileseg"
    name = next(name for name in sorted(commands(), key=len, reverse=True) if words[: len(name.split())] == name.split())
    command = commands()[name]
    command.make_context(name, words[len(name.split()) :])  # raises where an option or argument is wrong


@pytest.mark.parametrize(
    ("option", "takes", "without"),
    [
        ("window", "N,N[,N]", "the model's"),
        ("precision", "exact|auto", "exact"),
        ("threshold", "0..1", "0.5"),
        ("device", "auto|cpu|mps|cuda[:N]", "auto"),
        ("tta", "none|flips|rotations", "the model's"),
        ("uncertainty", "entropy|disagreement", "off"),
    ],
)
def test_an_option_says_what_it_takes_and_what_holds_without_it(option: str, takes: str, without: str) -> None:
    found = next(item for item in commands()["segment"].params if item.name == option)
    assert (found.metavar, found.show_default) == (takes, without)


def test_many_words_stand_in_the_help() -> None:
    found = next(item for item in commands()["segment"].params if item.name == "blending")
    assert found.metavar == "NAME"
    assert "gaussian, constant, nnunet, crop" in found.help


def test_who_forgets_something_is_sent_to_the_help_of_that_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["segment", "cells.tif", "--model", "nuclei-2d"])
    said = capsys.readouterr().err
    assert "--output" in said
    assert said.endswith("See tileseg segment --help.\n")


def test_what_an_encoding_lacks_stops_no_command(small_tiff: Path) -> None:
    """Windows gives pipes and files an encoding without arrows."""
    words = [sys.executable, "-m", "napari_tileseg.cli", "estimate", str(small_tiff), "--model", "nuclei-2d", "--no-probe"]
    done = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "cp1252"}, timeout=120)
    assert done.returncode == 0, done.stderr
    assert b"Y 40, X 48 ? model Y X." in done.stdout
