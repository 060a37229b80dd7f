"""``tileseg info``: what a bug report needs."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_tileseg.cli.arguments import Lines
from napari_tileseg.cli.console import emit, guarded
from napari_tileseg.cli.program import app

__all__ = ["info"]


@app.command()
def info(
    paths: Annotated[bool, typer.Option("--paths", help="Also print where things are on this computer.")] = False,
    json_lines: Lines = False,
) -> None:
    """Print what a bug report needs: versions, devices, models, settings."""
    from napari_tileseg.about import facts

    with guarded(json_lines):
        found = facts(paths=paths)
        if json_lines:
            return emit({"event": "info", **found})
        for title, entries in found.items():
            typer.echo(f"{title}:")
            for key, value in entries.items():
                typer.echo(f"  {key}: {value}")
