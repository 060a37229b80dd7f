"""``tileseg generate``: images, or images with masks, that a trained model makes up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_tileseg.cli.arguments import Device, Lines
from napari_tileseg.cli.console import emit, guarded
from napari_tileseg.cli.program import app

__all__ = ["generate"]


@app.command()
def generate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A trained vae, gan, lsgan, dcgan or generator of pairs.")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for the files; none in it is replaced.")],
    count: Annotated[int, typer.Option("-n", "--count", metavar="N", help="How many.")] = 16,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same images.")] = 0,
    format: Annotated[str, typer.Option("--format", help="png, or tif for more than 3 channels.")] = "png",
    device: Device = None,
    json_lines: Lines = False,
) -> None:
    """Make synthetic images with a trained generator; their names and metadata say that they are synthetic."""
    with guarded(json_lines):
        from napari_tileseg.training.unsupervised.generate import generate as draw
        from napari_tileseg.training.unsupervised.generate import save_samples

        samples = draw(model, count, seed=seed, device=device or "auto")
        paths = save_samples(samples, output, format=format)
        if json_lines:
            for path in paths:
                emit({"event": "sample", "path": str(path), "synthetic": True, "seed": seed})
        else:
            masks = " with their masks" if samples.labels is not None else ""
            typer.echo(f"{len(paths)} synthetic images{masks} are in {paths[0].parent}. Never test or validate a model with them.")
