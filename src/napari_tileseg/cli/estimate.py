"""``tileseg estimate``: what a run would need."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_tileseg.cli.arguments import (
    Adaptive,
    Axes,
    Batch,
    Channels,
    Device,
    Input,
    Level,
    Lines,
    Models,
    Overlap,
    Precision,
    Region,
    Scores,
    Series,
    SkipBackground,
    Views,
    Window,
)
from napari_tileseg.cli.console import duration, emit, guarded
from napari_tileseg.cli.fetching import bring
from napari_tileseg.cli.program import app
from napari_tileseg.cli.series import which_series
from napari_tileseg.cli.single import open_image
from napari_tileseg.cli.values import chosen, numbers, one_reference, regions_from
from napari_tileseg.job import Job

__all__ = ["estimate"]


@app.command()
def estimate(
    image: Input,
    model: Models,
    axes: Axes = None,
    channels: Channels = None,
    series: Series = None,
    level: Level = 0,
    region: Region = None,
    window: Window = None,
    overlap: Overlap = None,
    adaptive: Adaptive = False,
    skip_background: SkipBackground = False,
    precision: Precision = None,
    device: Device = None,
    batch: Batch = None,
    tta: Views = None,
    scores: Scores = False,
    probe: Annotated[bool, typer.Option("--probe/--no-probe", help="Load the model and time one tile.")] = True,
    json_lines: Lines = False,
) -> None:
    """Say what a run would need: tiles, memory, disk, time."""
    from dataclasses import asdict

    from napari_tileseg.io.files import amount
    from napari_tileseg.models.registry import find_spec
    from napari_tileseg.pipeline import estimate as estimate_run

    with guarded(json_lines):
        options = chosen(
            window=numbers(window, "--window"),
            overlap=overlap,
            adaptive=adaptive,
            skip_background=skip_background,
            precision=precision,
            device=device,
            batch=batch,
            tta=tta,
            scores=scores,
        )
        job = Job(
            model=one_reference(model),
            input=str(image),
            axes=axes,
            channels=numbers(channels, "--channels"),
            series=which_series(image, series, json_lines=json_lines),
            level=level,
            region=regions_from(region),
        )
        bring(job.model)
        volume = open_image(job, find_spec(job.model))
        needs = estimate_run(volume, job.model, options=options, channels=job.channels, region=job.region, probe=probe)
        if json_lines:
            return emit({"event": "estimate", **asdict(needs)})
        size = " x ".join(str(side) for side in needs.window)
        typer.echo(needs.sentence)
        typer.echo(f"{needs.tiles} tile{'s' * (needs.tiles != 1)} of {size}.")
        typer.echo(f"{amount(needs.device_bytes)} on the device and {amount(needs.host_bytes)} of memory, beside the model itself.")
        typer.echo(f"{amount(needs.disk_bytes)} for the result, before compression.")
        typer.echo(
            f"About {duration(needs.seconds)}." if needs.seconds is not None else "How long it takes is not known; --probe measures it."
        )
        for note in needs.notes:
            typer.echo(note)
