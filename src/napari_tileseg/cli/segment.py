"""``tileseg segment``: one image."""

from __future__ import annotations

from napari_tileseg.cli.arguments import (
    Adaptive,
    Axes,
    Batch,
    Blending,
    Channels,
    Device,
    Input,
    Level,
    Lines,
    MemoryLimit,
    MinSize,
    Models,
    Output,
    Overlap,
    Overwrite,
    Padding,
    Precision,
    Region,
    Rescale,
    Resume,
    Scores,
    Series,
    Sigma,
    SkipBackground,
    Threshold,
    Uncertainty,
    Unreadable,
    Views,
    Window,
)
from napari_tileseg.cli.console import guarded
from napari_tileseg.cli.program import app
from napari_tileseg.cli.series import which_series
from napari_tileseg.cli.single import perform
from napari_tileseg.cli.values import chosen, numbers, one_reference, regions_from
from napari_tileseg.job import Job

__all__ = ["segment"]


@app.command()
def segment(
    image: Input,
    output: Output,
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
    blending: Blending = None,
    sigma: Sigma = None,
    padding: Padding = None,
    precision: Precision = None,
    device: Device = None,
    batch: Batch = None,
    threshold: Threshold = None,
    min_size: MinSize = None,
    rescale: Rescale = True,
    tta: Views = None,
    scores: Scores = False,
    uncertainty: Uncertainty = None,
    memory_limit: MemoryLimit = None,
    unreadable: Unreadable = None,
    overwrite: Overwrite = False,
    resume: Resume = True,
    json_lines: Lines = False,
) -> None:
    """Segment one image. If it is interrupted, even by a power cut, the same command goes on where it stopped."""
    with guarded(json_lines):
        options = chosen(
            window=numbers(window, "--window"),
            overlap=overlap,
            adaptive=adaptive,
            skip_background=skip_background,
            blending=blending,
            sigma=sigma,
            padding=padding,
            precision=precision,
            device=device,
            batch=batch,
            threshold=threshold,
            min_size=min_size,
            rescale=rescale,
            tta=tta,
            scores=scores,
            uncertainty=uncertainty,
            memory_limit=memory_limit,
            unreadable=unreadable,
        )
        job = Job(
            model=one_reference(model),
            options=options,
            input=str(image),
            output=str(output),
            axes=axes,
            channels=numbers(channels, "--channels"),
            region=regions_from(region),
            series=which_series(image, series, json_lines=json_lines),
            level=level,
        )
        perform(job, overwrite=overwrite, resume=resume, json_lines=json_lines)
