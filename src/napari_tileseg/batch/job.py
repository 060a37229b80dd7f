"""``BatchJob``: one batch, frozen; a widget, a command line and a job file hold the same."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, field_validator

from napari_tileseg.io.registry import label_suffixes
from napari_tileseg.job import Parsed, SegmentOptions

__all__ = ["BatchJob"]


class BatchJob(Parsed):
    """Which images, which models, how, and where the results go. It can be saved, sent, repeated and resumed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["batch"] = "batch"
    models: tuple[str, ...] = Field(min_length=1, title="Model", description="What `load_model` takes; several run one after the other.")
    options: SegmentOptions = SegmentOptions()
    inputs: tuple[str, ...] = Field(min_length=1, title="Images", description="Folder, OME-Zarr plate or files.")
    output: str = Field(min_length=1, title="Save in", description="Mirrors the input.")
    pattern: tuple[str, ...] = Field((), title="Files", description="Which names; every image if empty.")
    exclude: tuple[str, ...] = Field((), title="Leave out", description="Names or folders that are left out.")
    recursive: bool = Field(False, title="Subfolders too", description="Look into folders in the folder.")
    format: str = Field(
        "auto",
        title="Format",
        description="Suffix of the results: that of the image in medicine (NIfTI for DICOM), .ome.tif for all else, unless chosen.",
    )
    template: str = Field(
        "{stem}",
        title="Names",
        description="Name of a result without suffix: {stem}, {model}, {series}. With several models {model} is added.",
    )
    axes: str | None = Field(None, title="Axes", description="Of every image; what its file says if empty.")
    channels: tuple[int, ...] | None = Field(None, title="Channels", description="Index along C for each input channel of the model.")
    series: int | Literal["all"] = Field(0, title="Series", description="Which image of a file that holds several, or all.")
    level: int = Field(0, ge=0, title="Level", description="Which resolution of a pyramid; 0 is the finest.")
    objects: bool = Field(False, title="Objects", description="A table of the objects of each image, and one of all.")
    overlays: bool = Field(False, title="Overlays", description="A picture of each result, and contact sheets.")
    report: bool = Field(True, title="Report", description="report.html and report.csv.")

    @field_validator("format")
    @classmethod
    def _can_be_written(cls, suffix: str) -> str:
        known = label_suffixes()
        if suffix != "auto" and suffix not in known:
            raise ValueError(f"must be auto or one of {', '.join(known)}")
        return suffix

    @field_validator("series")
    @classmethod
    def _counted_from_zero(cls, series: int | str) -> int | str:
        if isinstance(series, int) and series < 0:
            raise ValueError("must be a number from 0, or all")
        return series
