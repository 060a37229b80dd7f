"""Types of the commands' arguments; an option's help is the description of its field in ``SegmentOptions``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_tileseg.job import SegmentOptions

__all__ = [
    "Adaptive",
    "Axes",
    "Batch",
    "Blending",
    "Channels",
    "Device",
    "Input",
    "Level",
    "Lines",
    "MemoryLimit",
    "MinSize",
    "Models",
    "Output",
    "Overlap",
    "Overwrite",
    "Padding",
    "Precision",
    "Rescale",
    "Resume",
    "Scores",
    "Series",
    "Sigma",
    "SkipBackground",
    "Threshold",
    "Uncertainty",
    "Unreadable",
    "Views",
    "Window",
]


def _described(field: str, *names: str) -> Any:
    """Make an option whose help is the field's own description."""
    return typer.Option(*names, help=SegmentOptions.model_fields[field].description)


Input = Annotated[Path, typer.Argument(metavar="IN", help="The image: OME-TIFF, TIFF, NIfTI, PNG, JPEG, BMP.")]
Output = Annotated[Path, typer.Option("-o", "--output", metavar="OUT", help="Where the labels go; the suffix decides the format.")]
Models = Annotated[
    list[str], typer.Option("--model", metavar="REF", help="Name of a model, or path of a package; again for the mean of several.")
]
Axes = Annotated[str | None, typer.Option("--axes", help="One letter per dimension of the image: T time, C channel, Z Y X space.")]
Channels = Annotated[str | None, typer.Option("--channels", help="Channel for each input of the model, counted from 0: 0,2.")]
Series = Annotated[int, typer.Option("--series", min=0, help="Which image of the file.")]
Level = Annotated[int, typer.Option("--level", min=0, help="Which resolution of the file; 0 is the finest.")]
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
