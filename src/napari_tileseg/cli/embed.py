"""``tileseg embed``: tiles or objects of an image in the space of a model's codes, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_tileseg.cli.arguments import Axes, Device, Input, Lines, Overwrite
from napari_tileseg.cli.console import emit, guarded
from napari_tileseg.cli.program import app

__all__ = ["embed"]


@app.command()
def embed(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A trained autoencoder, vae, gan, lsgan or dcgan.")],
    image: Input,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.csv", help="Where the table goes.")],
    labels: Annotated[Path | None, typer.Option("--labels", metavar="FILE", help="Labels of the image: a row for each object.")] = None,
    by: Annotated[str, typer.Option("--by", help="auto, tiles or objects: what a row stands for.")] = "auto",
    axes: Axes = None,
    device: Device = None,
    overwrite: Overwrite = False,
    json_lines: Lines = False,
) -> None:
    """Give each tile or object of an image the numbers that a model has for it: what looks alike has alike ones."""
    with guarded(json_lines):
        from napari_tileseg.io import read_volume
        from napari_tileseg.io.output import check_place
        from napari_tileseg.training.unsupervised.embed import embed as find_codes
        from napari_tileseg.training.unsupervised.embedding import write_embedding

        check_place(output, overwrite=overwrite)
        truth = None if labels is None else read_volume(labels)
        found = find_codes(model, image, truth, by=by, axes=axes, device=device or "auto")
        write_embedding(found, output, overwrite=overwrite)
        if json_lines:
            emit({"event": "codes", "path": str(output), "rows": len(found.codes), "codes": found.codes.shape[1]})
        else:
            typer.echo(f'{len(found.codes)} rows with {found.codes.shape[1]} codes each are in "{output}".')
