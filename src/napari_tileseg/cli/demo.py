"""``tileseg demo``: the first thing to try."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_tileseg.cli.arguments import Lines
from napari_tileseg.cli.console import emit, guarded
from napari_tileseg.cli.program import app

__all__ = ["demo"]


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the results.")] = Path("tileseg-demo"),
    view: Annotated[
        bool | None, typer.Option("--view/--no-view", help="Open napari at the end; by default where there is a screen.")
    ] = None,
    json_lines: Lines = False,
) -> None:
    """Segment three real images with the bundled models, and show the results."""
    from napari_tileseg.demo import gallery_command, may_show, run_demo

    with guarded(json_lines):
        outcomes = run_demo(output, say=None if json_lines else typer.echo)
        if json_lines:
            for outcome in outcomes:
                emit({"event": "sample", **outcome.to_dict()})
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)
    reason = may_show(view)
    if json_lines or reason:
        if reason and not json_lines:
            typer.echo(reason)
        return
    import subprocess

    typer.echo("Opening napari with the first one. Close its window to end; File > Open Sample > TileSeg has the others.")
    raise typer.Exit(subprocess.run(gallery_command(output), check=False).returncode)
