"""How an image comes to the pixel size a model was trained at, and how its scores or labels come back, as data."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Interpolation", "Resampling"]

Order = Literal[0, 1, 3]


class Interpolation(BaseModel):
    """How values between pixels are found. Pixels are little boxes; beyond the border the last one goes on.

    ``order`` 0: the nearest pixel. 1: linear. 3: a cubic spline through all pixels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    order: Order = 1
    antialias: bool = Field(True, description="Linear only: average over as many pixels as one of the result covers.")
    slices: Literal["never", "auto", "always"] = Field(
        "never", description="Slice by slice across the axis with the largest pixel size; auto: where that is more than `anisotropy`."
    )
    slice_order: Order = Field(0, description="Order along that axis.")
    anisotropy: float = Field(3.0, gt=0, description="Largest pixel size as a multiple of the smallest, from which on slices count.")
    clip: bool = Field(False, description="Keep splines within the range of the image, or of the slice.")


class Resampling(BaseModel):
    """How the grids of image and model meet where their pixel sizes differ."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tolerance: float = Field(0.1, ge=0, description="Pixel sizes that differ by at most this share are taken for equal.")
    anchor: Literal["boxes", "points"] = Field(
        "boxes", description="boxes: both grids cover the same box. points: the centres of their first pixels coincide (MONAI)."
    )
    down: bool = Field(False, description="Sizes on the model's grid are rounded down (Cellpose), not to the nearest number.")
    before: bool = Field(False, description="The image is resampled before it is normalised, and measured on the model's grid.")
    image: Interpolation = Interpolation()
    scores: Interpolation | None = Field(
        None, description="Scores are brought to the image's grid before they are decoded; None: labels are, from the nearest pixel."
    )
    probabilities: bool = Field(False, description="Scores that are brought back become probabilities first.")
