"""The command ``tileseg`` itself, to which the modules of this room add theirs, and how it ends."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from napari_tileseg.cli.console import complain
from napari_tileseg.engine.fallback import FALLBACK

__all__ = ["app", "main", "models", "settings"]

app = typer.Typer(
    name="tileseg",
    help="Segment images of any size with any model. For research use; no medical device.",
    pretty_exceptions_enable=False,
    add_completion=False,
)
models = typer.Typer(help="The models on this computer.", no_args_is_help=True)
app.add_typer(models, name="models")
settings = typer.Typer(help="What is set once for all runs: the cache folder, proxy, mirror, offline mode.", no_args_is_help=True)
app.add_typer(settings, name="settings")


def main(args: list[str] | None = None) -> None:
    """Run the command and end the process: 0 done, 1 an input failed, 2 wrong arguments, 130 cancelled."""
    for name, value in FALLBACK.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # Windows gives pipes and files an encoding without arrows
            stream.reconfigure(errors="replace")
    try:
        status = app(args, prog_name="tileseg", standalone_mode=False)
    except KeyboardInterrupt:
        status = 130
    except Exception as error:
        # What Typer raises for wrong arguments has no public base class that all its versions share.
        if not hasattr(error, "format_message"):
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "tileseg"
        complain(f"{error.format_message().rstrip('.')}. See {command} --help.")
        status = 2
    sys.exit(status if isinstance(status, int) else 0)


def _version(asked: bool) -> None:
    if asked:
        from napari_tileseg import __version__

        typer.echo(f"tileseg {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)
