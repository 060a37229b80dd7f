"""``tileseg settings``: what is set once for all runs."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from napari_tileseg.cli.arguments import Lines
from napari_tileseg.cli.console import emit, guarded
from napari_tileseg.cli.program import settings

__all__ = ["set_", "show", "unset"]

Name = Annotated[str, typer.Argument(metavar="NAME", help="As tileseg settings show lists it.")]


@settings.command()
def show(json_lines: Lines = False) -> None:
    """Print all settings and what they are for."""
    from napari_tileseg.folders import settings_file
    from napari_tileseg.models.settings import Settings

    with guarded(json_lines):
        values = _current()
        if json_lines:
            return emit({"event": "settings", "file": str(settings_file()), **values, "proxy": _masked(values["proxy"])})
        for name, field in Settings.model_fields.items():
            typer.echo(f"{name:<8}  {_shown(values[name]) or '-':<24}  {field.description}")
        typer.echo(f"They are kept in {settings_file()}")


@settings.command("set")
def set_(name: Name, value: Annotated[str, typer.Argument(metavar="VALUE")]) -> None:
    """Set one."""
    with guarded():
        _change({name: value})
        typer.echo(f"{name} is {_shown(_current()[name]) or 'empty'} now.")


@settings.command()
def unset(name: Name) -> None:
    """Go back to what holds where nobody has set it."""
    with guarded():
        _change({name: None})
        typer.echo(f"{name} is {_shown(_current()[name]) or 'empty'} again.")


def _current() -> dict[str, Any]:
    from napari_tileseg.models.settings import read_settings

    return read_settings().model_dump(mode="json")


def _change(told: dict[str, Any]) -> None:
    """Write settings with new values; None takes one back."""
    from napari_tileseg.models.settings import Settings, write_settings

    known = set(Settings.model_fields)
    values = {name: value for name, value in {**_current(), **told}.items() if value is not None or name not in known}
    write_settings(Settings.parse(values))


def _shown(value: Any) -> str:
    if value is None or value == "":
        return "empty"
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else _masked(str(value))


def _masked(address: str) -> str:
    """Return an address without its password, which must not end up in a bug report."""
    return re.sub(r"(//[^:/@]*):[^/]*@", r"\1:***@", address)
