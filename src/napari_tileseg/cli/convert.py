"""``tileseg convert``: labels from one format into another, or a part of them as a mesh."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_tileseg.cli.arguments import Lines, Output, Overwrite, Series
from napari_tileseg.cli.console import emit, guarded
from napari_tileseg.cli.program import app
from napari_tileseg.cli.series import which_series
from napari_tileseg.errors import OptionsError

__all__ = ["convert"]


@app.command()
def convert(
    labels: Annotated[Path, typer.Argument(metavar="LABELS", help="Labels in any format that is opened.")],
    output: Output,
    image: Annotated[
        Path | None, typer.Option("--image", metavar="IN", help="The image of the labels, whose intensities a table (.csv) tells.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="LABEL", help="Meshes: number or name of a label or class; again for several. By default all."),
    ] = None,
    smooth: Annotated[int, typer.Option("--smooth", min=0, max=1000, help="Meshes: how often surfaces are smoothed, as 10.")] = 0,
    series: Series = None,
    overwrite: Overwrite = False,
    json_lines: Lines = False,
) -> None:
    """Save labels in another format, with their names, colours and history."""
    from napari_tileseg.io import check_writable, read_volume, write_labels

    with guarded(json_lines):
        target = check_writable(output, overwrite=overwrite)
        if target.exists() and any(place is not None and target.resolve() == place.resolve() for place in (labels, image)):
            raise OptionsError(f'"{target.name}" is what is converted. Give another name with -o.')
        volume = read_volume(labels, series=which_series(labels, series, json_lines=json_lines))
        known = volume.metadata
        saved = write_labels(
            volume,
            target,
            classes=known.get("classes") or (),
            colors=known.get("colors") or (),
            provenance=known.get("provenance"),
            overwrite=overwrite,
            image=None if image is None else read_volume(image),
            only=only or (),
            smooth=smooth,
        )
        if json_lines:
            return emit({"event": "saved", "path": str(saved)})
        typer.echo(f"Saved in {saved}")
