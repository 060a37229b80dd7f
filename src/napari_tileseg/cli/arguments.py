"""Types of the commands' arguments; an option's help is the description of its field in ``SegmentOptions``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_tileseg.batch.job import BatchJob
from napari_tileseg.job import SegmentOptions

__all__ = [
    "Adaptive",
    "Axes",
    "Batch",
    "Blending",
    "Channels",
    "Device",
    "DryRun",
    "EachModel",
    "EachSeries",
    "Exclude",
    "Folder",
    "Format",
    "Input",
    "Inputs",
    "Level",
    "Lines",
    "MemoryLimit",
    "MinSize",
    "Models",
    "Objects",
    "Output",
    "Overlap",
    "Overlays",
    "Overwrite",
    "Padding",
    "Pattern",
    "Precision",
    "Recursive",
    "Region",
    "Report",
    "Rescale",
    "Resume",
    "RetryFailed",
    "Scheduler",
    "Scores",
    "Series",
    "Settle",
    "Sigma",
    "SkipBackground",
    "Split",
    "Template",
    "Threshold",
    "Uncertainty",
    "Unreadable",
    "UntilIdle",
    "Views",
    "Watch",
    "Window",
    "Workers",
]


def _described(field: str, *names: str) -> Any:
    """Make an option whose help is the field's own description."""
    return typer.Option(*names, help=SegmentOptions.model_fields[field].description)


def _of_batch(field: str, *names: str, **more: Any) -> Any:
    """Make an option whose help is the description of a field of ``BatchJob``."""
    return typer.Option(*names, help=BatchJob.model_fields[field].description, **more)


Input = Annotated[Path, typer.Argument(metavar="IN", help="The image: OME-TIFF, TIFF, NIfTI, PNG, JPEG, BMP.")]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Where the labels go; the suffix decides the format.")]
Models = Annotated[
    list[str], typer.Option("--model", metavar="REF", help="Name of a model, or path of a package; again for the mean of several.")
]
Axes = Annotated[str | None, typer.Option("--axes", help="One letter per dimension of the image: T time, C channel, Z Y X space.")]
Channels = Annotated[str | None, typer.Option("--channels", help="Channel for each input of the model, counted from 0: 0,2.")]
Series = Annotated[int | None, typer.Option("--series", min=0, help="Which image of the file, from 0; of a folder of DICOM which series.")]
Level = Annotated[int, typer.Option("--level", min=0, help="Which resolution of the file; 0 is the finest.")]
Region = Annotated[
    list[str] | None,
    typer.Option(
        "--region",
        metavar="START:STOP,...",
        help="Only this part, one pair for each axis of the image without C: 0:512,0:512; again for several parts.",
    ),
]
Window = Annotated[str | None, _described("window", "--window")]
Overlap = Annotated[float | None, _described("overlap", "--overlap")]
Adaptive = Annotated[bool, _described("adaptive", "--adaptive")]
SkipBackground = Annotated[bool, _described("skip_background", "--skip-background")]
Blending = Annotated[str | None, _described("blending", "--blending")]
Sigma = Annotated[float | None, _described("sigma", "--sigma")]
Padding = Annotated[str | None, _described("padding", "--padding")]
Precision = Annotated[str | None, _described("precision", "--precision")]
Device = Annotated[str | None, _described("device", "--device")]
Batch = Annotated[int | None, _described("batch", "--batch")]
Threshold = Annotated[float | None, _described("threshold", "--threshold")]
MinSize = Annotated[float | None, _described("min_size", "--min-size")]
Rescale = Annotated[bool, typer.Option("--rescale/--no-rescale", help=SegmentOptions.model_fields["rescale"].description)]
Views = Annotated[str | None, _described("tta", "--tta")]
Scores = Annotated[bool, typer.Option("--scores", help="Also save the scores, beside the labels, as *_scores.ome.tif.")]
Uncertainty = Annotated[str | None, _described("uncertainty", "--uncertainty")]
MemoryLimit = Annotated[int | None, _described("memory_limit", "--memory-limit")]
Unreadable = Annotated[str | None, _described("unreadable", "--unreadable")]
Resume = Annotated[bool, typer.Option("--resume/--restart", help="Go on with an interrupted run for the same result, or begin anew.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")]
Lines = Annotated[bool, typer.Option("--json", help="Print one JSON record per line on stdout, and nothing else.")]

Inputs = Annotated[list[Path], typer.Argument(metavar="IN...", help="Folders, images or OME-Zarr plates.")]
Folder = Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder of the results; mirrors the input.")]
EachModel = Annotated[
    list[str],
    typer.Option(
        "--model",
        metavar="REF",
        help="Name of a model, or path of a package; again for one more model in the same pass, with results of its own. "
        "The mean of several is one model: ensemble:REF,REF.",
    ),
]
Pattern = Annotated[list[str] | None, _of_batch("pattern", "--pattern", metavar="'*.tif'")]
Exclude = Annotated[list[str] | None, _of_batch("exclude", "--exclude", metavar="NAME")]
Recursive = Annotated[bool, _of_batch("recursive", "--recursive")]
Format = Annotated[str | None, _of_batch("format", "--format", metavar="SUFFIX")]
Template = Annotated[str | None, _of_batch("template", "--name", metavar="TEMPLATE")]
EachSeries = Annotated[str, _of_batch("series", "--series", metavar="N|all")]
Objects = Annotated[bool, _of_batch("objects", "--objects")]
Overlays = Annotated[bool, _of_batch("overlays", "--overlays")]
Report = Annotated[bool, _of_batch("report", "--report/--no-report")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, what is left out and why, and what it takes; do nothing.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try images again that an earlier run has failed at.")]
Workers = Annotated[int, typer.Option("--workers", min=1, metavar="N", help="Processes that work side by side.")]
Scheduler = Annotated[
    str,
    typer.Option("--scheduler", metavar="ADDRESS|FILE", help="A Dask scheduler whose workers do the work.", show_default=False),
]
Split = Annotated[
    bool, typer.Option("--split/--no-split", help="Spread a large image over the workers where that is quicker, or give each to one.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Go on with images that appear, once each has stopped growing; Ctrl-C ends it.")]
Settle = Annotated[
    float,
    typer.Option("--settle", min=0, metavar="SECONDS", help="With --watch: for how long an image must not have changed."),
]
UntilIdle = Annotated[
    float | None,
    typer.Option("--watch-until-idle", min=0, metavar="SECONDS", help="Watch, and end when nothing has happened for so long."),
]
