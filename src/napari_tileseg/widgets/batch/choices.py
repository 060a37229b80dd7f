"""What the Batch form holds, as data, and the job that follows from it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tileseg.batch.job import BatchJob
from napari_tileseg.errors import OptionsError, TileSegError
from napari_tileseg.io.registry import label_suffixes
from napari_tileseg.job import Job, SegmentOptions
from napari_tileseg.models.registry import find_spec
from napari_tileseg.widgets.details import list_words, option_words, shell_line

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.models.spec import ModelSpec

__all__ = [
    "ALL_LAYERS",
    "SELECTED_LAYERS",
    "Choices",
    "Recipe",
    "batch_command",
    "choices_of",
    "default_output",
    "format_choices",
    "job_from",
    "load_job",
    "paths_of",
    "recipe_of",
    "save_words",
    "setup_title",
    "text_of",
]

ALL_LAYERS = "All open layers"
SELECTED_LAYERS = "Selected layers"
"""What the field Images says where the images are layers."""

_TITLES = {
    "auto": "OME-TIFF, medical as given",
    ".ome.tif": "OME-TIFF",
    ".imagej.tif": "ImageJ TIFF",
    ".ome.zarr": "OME-Zarr",
    ".0.4.ome.zarr": "OME-Zarr 0.4",
    ".nii.gz": "NIfTI",
    ".tif": "TIFF",
    ".png": "PNG",
    ".nrrd": "NRRD",
    ".seg.nrrd": "3D Slicer segmentation",
    ".nhdr": "NRRD, header and voxels",
    ".mha": "MetaImage",
    ".mhd": "MetaImage, header and voxels",
    ".dcm": "DICOM segmentation",
    ".geojson": "GeoJSON (QuPath)",
    ".coco.json": "COCO",
    ".csv": "Table of objects",
    ".stl": "STL mesh",
    ".obj": "OBJ mesh",
    ".ply": "PLY mesh",
}
"""How the formats are called here, in this order."""


def format_choices(chosen: str = "auto") -> tuple[tuple[str, str], ...]:
    """Return text and value of each format: one suffix of each, and the one that is chosen."""
    known = label_suffixes()
    offered, titles = dict(_TITLES), {known[suffix] for suffix in _TITLES if suffix in known}
    for suffix, title in known.items():  # those of other packages
        if title not in titles or suffix == chosen:
            titles.add(title)
            offered.setdefault(suffix, f"{title[:1].upper()}{title[1:]} ({suffix})")
    return tuple((text, suffix) for suffix, text in offered.items())


@dataclass(frozen=True)
class Recipe:
    """A model and how it is used: what Segment holds now, or what a saved job says.

    Parameters
    ----------
    model : str
        What ``load_model`` takes; empty if there is none.
    options : SegmentOptions
    axes : str or None
        Of every image; what its file says if None.
    channels : tuple of int or None
    free : bool
        Nobody has chosen the model: it may become the one that fits the images.
    """

    model: str = ""
    options: SegmentOptions = field(default_factory=SegmentOptions)
    axes: str | None = None
    channels: tuple[int, ...] | None = None
    free: bool = False

    @property
    def words(self) -> str:
        """``"Nuclei 2D, axes Y X, window 256"``."""
        if not self.model:
            return "No model is installed. Install napari-tileseg again."
        words = [_label(self.model)]
        words += [f"axes {' '.join(self.axes)}"] if self.axes else []
        words += [f"channel{'s' * (len(self.channels) > 1)} {list_words(self.channels)}"] if self.channels else []
        return ", ".join([*words, *_told(self.options)])


@dataclass(frozen=True)
class Choices:
    """Everything the form holds, the recipe aside; texts as they were typed."""

    images: str = ""
    pattern: str = ""
    exclude: str = ""
    recursive: bool = False
    output: str = ""
    format: str = "auto"
    template: str = "{stem}"
    others: tuple[str, ...] = ()
    axes: str = ""
    channels: str = ""
    series: str = "0"
    level: int = 0
    scores: bool = False
    objects: bool = False
    overlays: bool = False
    report: bool = True
    workers: int = 1
    cluster: str = ""

    @property
    def layers(self) -> bool:
        """Whether the images are layers."""
        return self.images in (ALL_LAYERS, SELECTED_LAYERS)


def paths_of(text: str) -> tuple[str, ...]:
    """Return the paths in a text: one, or several with ``; `` in between.

    A folder whose own name holds a semicolon is one path, if it is there.
    """
    whole = text.strip().strip('"')
    if not whole or Path(whole).expanduser().exists():
        return (whole,) if whole else ()
    return tuple(part for part in (item.strip().strip('"') for item in whole.split(";")) if part)


def text_of(paths: Sequence[str]) -> str:
    """Return the text for paths; the opposite of `paths_of`."""
    return "; ".join(paths)


def default_output(inputs: Sequence[str]) -> str:
    """Return the folder that results go to unless another is chosen: beside the images, ``<name>_labels``."""
    if not inputs:
        return ""
    first = Path(inputs[0]).expanduser()
    folder = first if len(inputs) == 1 and (first.is_dir() or not first.suffix) else first.parent
    name = re.sub(r"(\.ome)?\.zarr$", "", folder.name, flags=re.IGNORECASE) or "images"
    return str(folder.parent / f"{name}_labels")


def job_from(choices: Choices, recipe: Recipe, inputs: Sequence[str]) -> BatchJob:
    """Make a job of what the fields hold.

    Raises
    ------
    OptionsError
        One sentence about the first field that cannot be used.
    """
    options = recipe.options.model_copy(update={"scores": choices.scores})
    return BatchJob.parse(
        models=(recipe.model, *(other for other in choices.others if other != recipe.model)),
        options=options,
        inputs=tuple(inputs),
        output=choices.output.strip(),
        pattern=_names(choices.pattern),
        exclude=_names(choices.exclude),
        recursive=choices.recursive,
        format=choices.format,
        template=choices.template.strip() or "{stem}",
        axes=choices.axes.replace(" ", "").upper() or recipe.axes,
        channels=_numbers(choices.channels) or recipe.channels,
        series=_series(choices.series),
        level=choices.level,
        objects=choices.objects,
        overlays=choices.overlays,
        report=choices.report,
    )


def recipe_of(job: Job | BatchJob) -> Recipe:
    """Return the model and options of a saved job."""
    return Recipe(job.model if isinstance(job, Job) else job.models[0], job.options, job.axes, job.channels)


def choices_of(job: BatchJob, before: Choices) -> Choices:
    """Return what the form holds after a saved batch was opened; where it runs stays as it is."""
    return replace(
        before,
        images=text_of(job.inputs),
        pattern="; ".join(job.pattern),
        exclude="; ".join(job.exclude),
        recursive=job.recursive,
        output=job.output,
        format=job.format,
        template=job.template,
        others=job.models[1:],
        axes="",
        channels="",
        series=str(job.series),
        level=job.level,
        scores=job.options.scores,
        objects=job.objects,
        overlays=job.overlays,
        report=job.report,
    )


def load_job(path: Path) -> Job | BatchJob:
    """Read a job file that Segment, Batch or the command line has written.

    Raises
    ------
    OptionsError
        If it is none.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return (BatchJob if data.get("kind") == "batch" else Job).model_validate(data)
    except OSError as error:
        raise OptionsError(f'"{path.name}" could not be read: {error.strerror or error}. Choose another job.') from error
    except (ValueError, AttributeError) as error:
        raise OptionsError(f'"{path.name}" is no job that Segment or Batch has exported. Choose another file.') from error


def setup_title(job: BatchJob, images: str = "") -> str:
    """Say in a few words what a batch is: ``"raw → labels, Nuclei 2D"``."""
    name = images or (Path(job.inputs[0]).name if len(job.inputs) == 1 else f"{len(job.inputs)} files")
    return f"{name} → {Path(job.output).name}, {', '.join(_label(model) for model in job.models)}"


def save_words(choices: Choices) -> str:
    """Say what is saved besides the labels: ``"scores, report"``."""
    kept = (("scores", choices.scores), ("objects", choices.objects), ("overlays", choices.overlays), ("report", choices.report))
    return ", ".join(word for word, wanted in kept if wanted) or "nothing"


def batch_command(job: BatchJob, spec: ModelSpec, *, workers: int = 1, cluster: str = "") -> str:
    """Return the command that runs a batch.

    Parameters
    ----------
    job : BatchJob
    spec : ModelSpec
        Of its first model.
    workers : int
    cluster : str
        Address of a Dask scheduler.
    """
    words = ["tileseg", "batch", *job.inputs, "-o", job.output]
    words += [word for model in job.models for word in ("--model", model)]
    words += [word for pattern in job.pattern for word in ("--pattern", pattern)]
    words += [word for pattern in job.exclude for word in ("--exclude", pattern)]
    words += ["--recursive"] if job.recursive else []
    words += ["--format", job.format] if job.format != "auto" else []
    words += ["--name", job.template] if job.template != "{stem}" else []
    words += ["--axes", job.axes] if job.axes else []
    words += ["--channels", list_words(job.channels, ",")] if job.channels else []
    words += ["--series", str(job.series)] if job.series else []
    words += ["--level", str(job.level)] if job.level else []
    words += option_words(job.options, spec)
    words += ["--objects"] if job.objects else []
    words += ["--overlays"] if job.overlays else []
    words += [] if job.report else ["--no-report"]
    words += ["--workers", str(workers)] if workers > 1 else []
    words += ["--scheduler", cluster] if cluster else []
    return shell_line(words)


def _told(options: SegmentOptions) -> list[str]:
    """Say which options differ from the model's own: ``"window 256, 256"``."""
    told = []
    for name, item in SegmentOptions.model_fields.items():
        value, title = getattr(options, name), str(item.title).lower()
        if value == item.default or name in ("device", "scores"):
            continue
        if isinstance(value, bool):
            told.append(title if value else f"no {title}")
        elif isinstance(value, tuple):
            told.append(f"{title} {list_words(value)}")
        else:
            told.append(f"{title} {value:g}" if isinstance(value, float) else f"{title} {value}")
    return told


def _label(model: str) -> str:
    try:
        return find_spec(model).label
    except TileSegError:
        return Path(model).name


def _names(text: str) -> tuple[str, ...]:
    return tuple(part for part in (item.strip() for item in re.split(r"[;,]", text)) if part)


def _numbers(text: str) -> tuple[int, ...] | None:
    parts = [part for part in re.split(r"[\s,;]+", text.strip()) if part]
    if not all(part.isdigit() for part in parts):
        raise OptionsError(f'Channels "{text}" is no list of whole numbers. Count from 0 and write for example 0, 2.')
    return tuple(int(part) for part in parts) or None


def _series(text: str) -> int | str:
    word = text.strip().lower() or "0"
    if word != "all" and not word.isdigit():
        raise OptionsError(f'Series "{text}" is neither a number from 0 nor "all".')
    return "all" if word == "all" else int(word)
