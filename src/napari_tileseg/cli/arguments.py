"""Types of the commands' arguments; an option's help is the description of its field in ``SegmentOptions``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

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


_WIDE = 24
"""Characters that fit into the column of what options take."""


def _described(field: str, *names: str, metavar: str | None = None, default: str = "") -> Any:
    """Make an option whose help is the field's own description, with what it takes and what holds without it.

    Parameters
    ----------
    field : str
        Of ``SegmentOptions``.
    *names : str
        Of the option.
    metavar : str, optional
        What it takes; the field's words by default, where it takes a few words only.
    default : str
        What holds without it; the field's own default unless that is the model's.
    """
    item = SegmentOptions.model_fields[field]
    kinds = [kind for kind in (item.annotation, *get_args(item.annotation)) if get_origin(kind) is Literal]
    words = "|".join(dict.fromkeys(word for kind in kinds for word in get_args(kind) if word))
    told = str(item.description)
    if len(words) > _WIDE:  # the column of what it takes would leave no room for the help
        told, words = f"{told} One of {words.replace('|', ', ')}.", "NAME"
    without = default or ("the model's" if item.default is None else str(item.default))
    return typer.Option(*names, help=told, metavar=metavar or words or None, show_default=without)


def _flag(field: str, *names: str) -> Any:
    """Make an option that is given or not, whose help is the description of a field of ``SegmentOptions``."""
    return typer.Option(*names, help=SegmentOptions.model_fields[field].description)


def _of_batch(field: str, *names: str, **more: Any) -> Any:
    """Make an option whose help is the description of a field of ``BatchJob``."""
    return typer.Option(*names, help=BatchJob.model_fields[field].description, **more)


Input = Annotated[
    Path,
    typer.Argument(metavar="IN", help="The image: TIFF, OME-Zarr, NIfTI, NRRD, DICOM, slides, PNG and others."),
]
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
Window = Annotated[str | None, _described("window", "--window", metavar="N,N[,N]")]
Overlap = Annotated[float | None, _described("overlap", "--overlap", metavar="0..1")]
Adaptive = Annotated[bool, _flag("adaptive", "--adaptive")]
SkipBackground = Annotated[bool, _flag("skip_background", "--skip-background")]
Blending = Annotated[str | None, _described("blending", "--blending")]
Sigma = Annotated[float | None, _described("sigma", "--sigma")]
Padding = Annotated[str | None, _described("padding", "--padding")]
Precision = Annotated[str | None, _described("precision", "--precision")]
Device = Annotated[str | None, _described("device", "--device", metavar="auto|cpu|mps|cuda[:N]")]
Batch = Annotated[int | None, _described("batch", "--batch", metavar="N", default="fitted")]
Threshold = Annotated[float | None, _described("threshold", "--threshold", metavar="0..1")]
MinSize = Annotated[float | None, _described("min_size", "--min-size")]
Rescale = Annotated[bool, _flag("rescale", "--rescale/--no-rescale")]
Views = Annotated[str | None, _described("tta", "--tta", metavar="none|flips|rotations")]
Scores = Annotated[bool, typer.Option("--scores", help="Also save the scores, beside the labels, as *_scores.ome.tif.")]
Uncertainty = Annotated[str | None, _described("uncertainty", "--uncertainty", default="off")]
MemoryLimit = Annotated[int | None, _described("memory_limit", "--memory-limit", metavar="BYTES", default="none")]
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
