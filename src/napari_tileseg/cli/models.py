"""``tileseg models``: which models are here."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from napari_tileseg.cli.arguments import Lines
from napari_tileseg.cli.console import complain, emit, guarded
from napari_tileseg.cli.program import models

__all__ = ["list_", "show"]


@models.command("list")
def list_(json_lines: Lines = False) -> None:
    """List the models that are here."""
    from napari_tileseg.models.registry import list_models

    with guarded(json_lines):
        specs = list_models()
        if json_lines:
            for spec in specs:
                emit({"event": "model", **spec.model_dump(mode="json", exclude={"training"})})
            return
        width = max((len(spec.name) for spec in specs), default=0)
        for spec in specs:
            typer.echo(f"{spec.name:<{width}}  {spec.axes}  {spec.description}")
        if not specs:
            complain("There are no models here.")


@models.command()
def show(ref: Annotated[str, typer.Argument(metavar="REF", help="Name of a model, or path of a model package.")]) -> None:
    """Print a model's card."""
    from napari_tileseg.models.registry import card

    with guarded():
        text = card(ref)
        if sys.stdout.isatty():
            from rich.console import Console
            from rich.markdown import Markdown

            Console().print(Markdown(text))
        else:
            typer.echo(text)
