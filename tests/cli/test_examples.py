"""Every command shows how it is used, and what is shown is accepted; options say what holds without them."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import typer.main

from napari_tileseg.cli import app, main
from napari_tileseg.cli.examples import EXAMPLES

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
