"""The command ``tileseg``: a thin shell over the functions that the widgets call too.

Each module adds the command of its name; the order of the imports is the order in the help.
"""

from __future__ import annotations

from napari_tileseg.cli.program import app, main  # isort: skip
from napari_tileseg.cli import demo, segment, batch, run, convert, estimate, train, evaluate  # noqa: F401  # isort: skip
from napari_tileseg.cli import generate, embed, models, hub, settings, info  # noqa: F401  # isort: skip
from napari_tileseg.cli.examples import attach

attach(app)

__all__ = ["app", "main"]
