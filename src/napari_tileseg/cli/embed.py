"""``tileseg embed``: tiles or objects of an image in the space of a model's codes, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_tileseg.cli.arguments import Axes, Device, Lines, Overwrite
from napari_tileseg.cli.console import emit, guarded
from napari_tileseg.cli.program import app
from napari_tileseg.errors import OptionsError

__all__ = ["embed"]


@app.command()
def embed(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A trained autoencoder, vae, gan, lsgan or dcgan.")],
    images: Annotated[list[Path], typer.Argument(metavar="IN...", help="The image, or several with equal axes.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.csv", help="Where the table goes.")],
    labels: Annotated[
        list[Path] | None, typer.Option("--labels", metavar="FILE", help="Labels of the image: a row for each object. Once for each image.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="auto, tiles or objects: what a row stands for.")] = "auto",
    axes: Axes = None,
    device: Device = None,
    overwrite: Overwrite = False,
    json_lines: Lines = False,
) -> None:
    """Give each tile or object of images the numbers that a model has for it: what looks alike has alike ones."""
    with guarded(json_lines):
        from napari_tileseg.io import read_volume
        from napari_tileseg.io.output import check_place
        from napari_tileseg.models.predictor import load_model
        from napari_tileseg.training.matching import stem
        from napari_tileseg.training.unsupervised.embed import embed as find_codes
        from napari_tileseg.training.unsupervised.embedding import join, write_embedding

        check_place(output, overwrite=overwrite)
        if labels and len(labels) != len(images):
            raise OptionsError(f"{len(labels)} labels were given for {len(images)} images. Give --labels once for each, or not at all.")
        predictor: Any = load_model(model, device=device or "auto")
        truths = [read_volume(file) for file in labels] if labels else [None] * len(images)
        each = [find_codes(predictor, image, truth, by=by, axes=axes) for image, truth in zip(images, truths, strict=True)]
        found = each[0] if len(each) == 1 else join(each, [stem(image) for image in images])
        write_embedding(found, output, overwrite=overwrite)
        if json_lines:
            emit({"event": "codes", "path": str(output), "rows": len(found.codes), "codes": found.codes.shape[1]})
        else:
            typer.echo(f'{len(found.codes)} rows with {found.codes.shape[1]} codes each are in "{output}".')
