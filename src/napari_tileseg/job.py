"""``SegmentOptions`` and ``Job``: what a widget, a command line and a saved provenance all hold."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from napari_tileseg.errors import OptionsError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Job", "Parsed", "Region", "Regions", "SegmentOptions", "regions_of", "sentence", "told"]

Region = tuple[tuple[int, int], ...]
"""Start and stop along each axis of the result."""

Regions = tuple[Region, ...]
"""Several of them; none where the whole image is meant."""


def regions_of(region: Region | Sequence[Region] | None) -> Regions:
    """Take what a person may give: one region, several or none.

    Raises
    ------
    OptionsError
        If it is none of these.
    """
    if region is None:
        return ()
    try:
        several = cast("Sequence[Any]", region if isinstance(region[0][0], tuple | list) else [region])
        return tuple(tuple((int(start), int(stop)) for start, stop in one) for one in several)
    except (IndexError, TypeError, ValueError):
        raise OptionsError(
            f"The region {region!r} is not accepted. Give start and stop for each axis of the image without C, or several such regions."
        ) from None


def told(regions: Regions) -> list[Any] | None:
    """Undo `regions_of` for JSON: nothing, one region, or several."""
    lists = [[list(span) for span in region] for region in regions]
    return lists[0] if len(lists) == 1 else lists or None


class Parsed(BaseModel):
    """Fields that a user gives; what is wrong with them is said in one sentence."""

    @classmethod
    def parse(cls, **values: Any) -> Self:
        """Build it from what a user gave.

        Raises
        ------
        OptionsError
            One sentence that names the field, the value and what is accepted.
        """
        try:
            return cls(**values)
        except ValidationError as error:
            raise OptionsError(sentence(error)) from None


class SegmentOptions(Parsed):
    """How to segment. Titles and descriptions become the labels and tooltips of every interface.

    ``None`` means: as the model says.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: tuple[int, ...] | None = Field(None, title="Window", description="Tile size in pixels, one number per axis of the model.")
    overlap: float | None = Field(None, ge=0, lt=1, title="Overlap", description="Share of a tile seen twice.")
    adaptive: bool = Field(
        False, title="Adaptive overlap", description="Little overlap (0.1 if none is given), and more only where tiles disagree."
    )
    blending: Literal["gaussian", "constant", "nnunet", "crop", "cellpose"] | None = Field(
        None, title="Blending", description="How overlaps are averaged."
    )
    sigma: float = Field(0.125, gt=0, title="Sigma", description="Width of the Gaussian weights as a share of the window.")
    padding: Literal["zeros", "reflect"] | None = Field(None, title="Padding", description="What the model sees beyond the image.")
    precision: Literal["exact", "auto"] = Field("exact", title="Precision", description="Fast is kept only if labels agree.")
    device: str = Field("auto", title="Device", description="Where the model runs.")
    batch: int | None = Field(None, ge=1, title="Batch", description="Tiles at once; fitted to the device if empty.")
    threshold: float = Field(0.5, ge=0, le=1, title="Threshold", description="Least score that counts.")
    min_size: float = Field(0, ge=0, title="Min. size", description="Smaller objects go (pixels or voxels).")
    rescale: bool = Field(True, title="Match pixel size", description="Resample to the pixel size the model was trained at.")
    skip_background: bool = Field(False, title="Skip background", description="Leave out tiles without tissue or cells.")
    tta: Literal[False, "flips", "rotations"] | None = Field(
        None, title="Average over", description="none, flips of every axis, or rotations: quarter turns too, 2D only. 4 to 8 times slower."
    )
    scores: bool = Field(False, title="Keep scores", description="To move the threshold later.")
    uncertainty: Literal[False, "entropy", "disagreement"] = Field(
        False, title="Uncertainty", description="One more map. entropy: of the scores. disagreement: of averaged views or models."
    )
    unreadable: Literal["stop", "skip"] = Field(
        "stop", title="Unreadable parts", description="stop the run there, or skip them: no labels."
    )
    memory_limit: int | None = Field(None, ge=1, title="Memory limit", description="Most bytes of host memory to use.")

    @field_validator("window")
    @classmethod
    def _positive(cls, window: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if window is not None and (not 2 <= len(window) <= 3 or min(window) < 1):
            raise ValueError("must be two or three positive numbers, such as 256, 256")
        return window

    @field_validator("device")
    @classmethod
    def _known(cls, device: str) -> str:
        if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
            raise ValueError("it must be auto, cpu, mps, cuda, or cuda:1 for the second GPU")
        return device

    @field_validator("tta", mode="before")
    @classmethod
    def _name_flips(cls, tta: Any) -> Any:
        return "flips" if tta is True else False if tta == "none" else tta

    @field_validator("uncertainty", mode="before")
    @classmethod
    def _name_entropy(cls, uncertainty: Any) -> Any:
        return "entropy" if uncertainty is True else uncertainty


class Job(BaseModel):
    """One segmentation, frozen: which image, which model, how. It can be saved, sent and replayed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(description="What `load_model` takes.")
    options: SegmentOptions = SegmentOptions()
    input: str | None = Field(None, description="Path of the image; empty when the image came from a layer.")
    output: str | None = Field(None, description="Path of the result; empty when it stays in memory.")
    axes: str | None = Field(None, description="Axes of the image; what its reader says if empty.")
    channels: tuple[int, ...] | None = Field(None, description="Index along C for each input channel of the model.")
    region: Region | Regions | None = Field(
        None,
        description="Start and stop along each axis of the result (the image without C), or several such regions; all of it if empty.",
    )
    series: int = Field(0, ge=0)
    level: int = Field(0, ge=0)

    @field_validator("region", mode="before")
    @classmethod
    def _one_or_several(cls, region: Any) -> Any:
        try:
            regions = regions_of(region)
        except OptionsError:
            raise ValueError("must be start and stop along each axis, or several such regions") from None
        return regions[0] if len(regions) == 1 else regions or None


def sentence(error: ValidationError) -> str:
    """Say in one sentence what pydantic found wrong first."""
    first = error.errors(include_url=False)[0]
    if not first["loc"]:  # two fields do not fit together
        told = str(first["msg"]).removeprefix("Value error, ")
        return f"{told[:1].upper()}{told[1:]}."
    where = ".".join(str(part) for part in first["loc"]) or "input"
    told = _RULES.get(first["type"], "").format(**first.get("ctx", {})) or str(first["msg"]).removeprefix("Value error, ")
    return f"{where} = {first.get('input')!r} is not accepted: {told}."


_RULES = {
    "less_than": "it must be below {lt:g}",
    "less_than_equal": "it must be {le:g} or less",
    "greater_than": "it must be above {gt:g}",
    "greater_than_equal": "it must be {ge:g} or more",
    "literal_error": "it must be {expected}",
    "extra_forbidden": "there is no such option",
}
"""What is said of the rules of numbers and words, instead of what pydantic says."""
