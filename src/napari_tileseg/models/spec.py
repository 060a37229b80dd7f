"""``ModelSpec``: everything that must be known about a model to run it right, as data."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from napari_tileseg.models.resampling import Interpolation, Resampling

__all__ = ["SCHEMA_VERSION", "ModelSpec", "Normalization", "NormalizationStep", "OutputKind", "PreviousStage"]

SCHEMA_VERSION = 1
"""Version of `model.json`; a reader refuses newer ones with a sentence."""

OutputKind = Literal["softmax", "sigmoid", "regions", "instances", "labels", "anomaly"]
"""``labels``: the model itself gives the objects of each tile, numbered from 1; those of neighbouring tiles are joined.

``anomaly``: one score, 0 or more, that grows with how strange a pixel is; ``decoder_parameters`` hold the `threshold` from which on it
is too strange, and may hold `median` (pixels, odd) and `min_size` (pixels). `classes` name what is normal and what is not."""


class NormalizationStep(BaseModel):
    """One step of a normalisation that takes several: simple arithmetic on each value.

    Its numbers are given, or measured on what the steps before it have made of the whole image. Tuples hold one number for each
    channel of the model, or one for all.

    ``linear``: ``(x - offset) / scale``. ``mean_std``: the same with the mean and the standard deviation plus `eps`.
    ``percentiles``: with the `lower` percentile and the distance of the `upper` one plus `eps`. ``clip``: between `low` and `high`,
    or percentiles. ``binarize``: 1 above `threshold`, else 0. ``sigmoid``: ``1 / (1 + exp(-x))``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["linear", "mean_std", "percentiles", "clip", "binarize", "sigmoid"]
    offset: tuple[float, ...] = Field((0.0,), min_length=1, description="What becomes 0 (linear).")
    scale: tuple[float, ...] = Field((1.0,), min_length=1, description="What becomes 1 more (linear).")
    lower: float | None = Field(None, ge=0, le=100, description="Lower percentile (percentiles, clip).")
    upper: float | None = Field(None, ge=0, le=100, description="Upper percentile (percentiles, clip).")
    method: Literal["linear", "inverted_cdf"] = Field("linear", description="How NumPy calls the kind of percentile.")
    low: float | None = Field(None, description="Least value (clip).")
    high: float | None = Field(None, description="Greatest value (clip).")
    threshold: tuple[float, ...] = Field((0.5,), min_length=1, description="Least value that becomes 1, itself excluded (binarize).")
    eps: float = Field(0.0, ge=0, description="Added to what is divided by, where that is measured.")
    joint: bool = Field(False, description="One measurement for all channels instead of one per channel.")
    nonzero: bool = Field(False, description="Zeros are neither measured nor changed.")
    original: bool = Field(False, description="Measured on the image as it is, not on what the steps before have made of it.")

    @model_validator(mode="after")
    def _complete(self) -> NormalizationStep:
        if self.kind == "percentiles" and (self.lower is None or self.upper is None or not self.lower < self.upper):
            raise ValueError(f"a lower percentile below the upper one is needed, not {self.lower} and {self.upper}")
        if self.kind == "clip":
            if (self.low is not None and self.lower is not None) or (self.high is not None and self.upper is not None):
                raise ValueError("a limit is either a value or a percentile")
            if all(limit is None for limit in (self.low, self.high, self.lower, self.upper)):
                raise ValueError("clip needs a limit")
        if not all(self.scale):
            raise ValueError("scale must not be 0")
        return self

    @property
    def measured(self) -> bool:
        """Whether its numbers depend on the image."""
        return self.kind in ("mean_std", "percentiles") or self.lower is not None or self.upper is not None


class Normalization(BaseModel):
    """How intensities become the numbers the network was trained on.

    ``percentile``: the `lower` percentile becomes 0, the `upper` one 1.
    ``zscore``: mean 0 and standard deviation 1. ``range``: `low` becomes 0, `high` becomes 1.
    ``minmax``: the least value becomes 0, the greatest 1. ``steps``: what `steps` say, one after another. ``channels``: each input
    channel has a rule of its own. With the last two, nothing else of this card counts.
    The statistics are those of the whole image (of each time point), never of a tile.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["none", "percentile", "zscore", "range", "minmax", "steps", "channels"] = "none"
    channels: tuple[Normalization, ...] = Field((), description="One rule for each input channel (channels only).")
    steps: tuple[NormalizationStep, ...] = Field((), description="In the order in which they are taken (steps only).")
    lower: float = Field(1.0, ge=0, le=100, description="Percentile that becomes 0.")
    upper: float = Field(99.8, ge=0, le=100, description="Percentile that becomes 1.")
    low: float = Field(0.0, description="Intensity that becomes 0 (range only).")
    high: float = Field(1.0, description="Intensity that becomes 1 (range only).")
    joint: bool = Field(False, description="One statistic for all channels (keeps colours) instead of one per channel.")
    masked: bool = Field(
        False, description="Only where the image is not 0 in all channels, holes included, are values measured and changed (in channels)."
    )
    clip: tuple[float, float] | None = Field(None, description="Limits of the normalised values.")
    invert: Literal["never", "auto"] = Field(
        "never", description="auto: x becomes 1 - x where the median brightness is above one half (dark objects on bright ground)."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Normalization:
        if not self.lower < self.upper:
            raise ValueError(f"lower percentile {self.lower} must be below the upper one {self.upper}")
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must be below high {self.high}")
        if any(rule.kind in ("steps", "channels") or rule.invert != "never" for rule in self.channels):
            raise ValueError("the rule of one channel takes one step and inverts nothing")
        return self

    @property
    def measured(self) -> bool:
        """Whether its numbers depend on the image."""
        if self.kind == "channels":
            return any(rule.measured for rule in self.channels)
        if self.kind == "steps":
            return any(step.measured for step in self.steps)
        return self.kind in ("percentile", "zscore", "minmax") or self.invert != "never"


class PreviousStage(BaseModel):
    """The first of two models of which the second one sees the labels that the first one finds (a cascade).

    It is run on the whole image first; of its labels, brought to the second model's grid, each class becomes one more input channel,
    1 where the class is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: ModelSpec = Field(description="Its card.")
    labels: tuple[int, ...] = Field(min_length=1, description="Which of its labels become channels, after those of the image.")
    resampling: Interpolation = Interpolation(antialias=False)

    @model_validator(mode="after")
    def _plain(self) -> PreviousStage:
        if self.model.output not in ("softmax", "regions"):
            raise ValueError(f"the first model of a cascade must give one class for each pixel, not {self.model.output!r}")
        if 3 in (self.resampling.order, self.resampling.slice_order):
            raise ValueError("labels cannot be interpolated with splines")
        return self


class ModelSpec(BaseModel):
    """A model's card: what it takes, how it is tiled, what it returns, and where it comes from.

    Sizes are in the order of the spatial letters of `axes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: int = SCHEMA_VERSION
    name: str = Field(description="Short identifier, as in file and layer names: nuclei-2d.")
    title: str = Field("", description="Name for people: Nuclei 2D.")
    description: str = Field("", description="One or two sentences.")
    version: str = "1"

    architecture: str = Field("", description="Name for `build_network`; empty for a module given by the user.")
    arguments: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the architecture.")

    axes: Literal["CYX", "CZYX", "CZX", "CZY"] = Field(description="Axes of one input of the network; planes may lie across Y or X.")
    channels: list[str] = Field(description="Names of the input channels, or their number.")
    grey: Literal["refuse", "repeat", "fewer"] = Field(
        "refuse",
        description="repeat: a one-channel image is repeated to all channels. fewer: an image may lack the last channels, which are 0.",
    )
    normalization: Normalization = Normalization()
    spacing: tuple[float, ...] | None = Field(None, description="Pixel size the network was trained at, in `spacing_unit`.")
    spacing_unit: Literal["millimeter", "micrometer"] = "micrometer"
    zoom: tuple[float, ...] | None = Field(
        None, description="How much larger the network sees the image, whatever its pixel size; counts more than `spacing`."
    )
    resampling: Resampling = Resampling()
    orientation: str = Field(
        "",
        pattern="^([LR][AP][IS]|[LR][IS][AP]|[AP][LR][IS]|[AP][IS][LR]|[IS][LR][AP]|[IS][AP][LR])?$",
        description="Where the axes of a volume lead in the body, as the network knows them: SAR for Z to superior, Y to anterior, "
        "X to right; of planes, the volume that they are cut from. Empty: as the image is stored.",
    )
    crop: Literal["none", "nonzero"] = Field("none", description="nonzero: no more of an image is seen than the box of what is not 0.")

    window: tuple[int, ...] = Field(description="Size of one tile.")
    multiple_of: int | tuple[int, ...] = Field(
        1, description="What the sides of a tile must be multiples of: one number for all, or one for each axis of space."
    )
    remainder: int = Field(0, ge=0, description="What is left of a side divided by `multiple_of`: 12 for sides of 16 k + 12.")
    fixed_window: bool = Field(False, description="The network takes tiles of this size only.")
    overlap: float = Field(0.5, ge=0, lt=1, description="Share of a window that its neighbour covers too.")
    steps: Literal["fixed", "even", "aligned", "inside", "cellpose3", "cellpose4"] = Field(
        "fixed",
        description="fixed: MONAI's grid. even: nnU-Net's. aligned: with blending crop, tiles a multiple of `multiple_of` apart, so that "
        "valid convolutions with pooling give the same in each. inside: no window reaches beyond the image (StarDist).",
    )
    from_end: str = Field("", description="Axes along which tiles are laid from the end of the image.")
    blending: Literal["gaussian", "constant", "nnunet", "crop", "cellpose"] = "gaussian"
    sigma: float = Field(0.125, gt=0, description="Width of the Gaussian weights as a share of the window.")
    padding: Literal["zeros", "reflect"] = Field("zeros", description="What a window sees beyond the image, after normalisation.")
    mirror_axes: str | None = Field(None, description="Axes along which the network was trained on mirror images; all if not known.")
    tta: Literal[False, "flips"] = Field(False, description="Views that are averaged where the user does not choose.")
    output_offset: tuple[int, ...] | None = Field(None, description="Pixels the output lacks at each side (valid convolutions).")

    output: OutputKind = "softmax"
    classes: list[str] = Field(description="Names; index 0 is the background, except for sigmoid.")
    colors: list[str] = Field(default_factory=list, description="#rrggbb of each class, background excluded.")
    region_values: tuple[int, ...] = Field(
        (), description="Regions only: the class that each score channel stands for where it is above one half; later ones win."
    )
    region_labels: tuple[tuple[int, ...], ...] = Field(
        (), description="Regions only: the numbers in labels that lie inside each of them; it cannot be trained further without."
    )
    heads: list[str] = Field(default_factory=list, description="Names of the raw score channels; the classes if empty.")
    decoder: str = Field("", description="Name of the decoder that turns scores into objects (instances).")
    decoder_parameters: dict[str, float] = Field(default_factory=dict)

    licence: str = Field("", description="SPDX expression for the weights.")
    attribution: str = ""
    citation: str = ""
    training: dict[str, Any] = Field(default_factory=dict, description="Data, recipe, scores: how the weights came to be.")
    weights_sha256: str = ""
    unknown: list[str] = Field(default_factory=list, description="Fields that the source does not say; their values are assumed.")
    loader: str = Field("", description="Scheme of the loader that reads the weights; empty for our own format.")
    source: str = Field("", description="Imported models: the file or folder inside the package, or its whole path if linked.")
    source_options: dict[str, str] = Field(default_factory=dict, description="What the loader was told besides, as in a reference.")
    previous: PreviousStage | None = Field(None, description="Cascades: the model whose labels this one sees beside the image.")
    members: list[dict[str, str]] = Field(default_factory=list, description="Ensembles: name, version, weights_sha256 of each model.")

    @field_validator("channels", mode="before")
    @classmethod
    def _name_channels(cls, value: Any) -> Any:
        return [f"channel {index + 1}" for index in range(value)] if isinstance(value, int) else value

    @field_validator("multiple_of")
    @classmethod
    def _one_number(cls, value: int | tuple[int, ...], known: ValidationInfo) -> int | tuple[int, ...]:
        numbers = value if isinstance(value, tuple) else (value,)
        if not numbers or min(numbers) < 1:
            raise ValueError(f"multiple_of must be 1 or more, not {value}")
        complete = len(numbers) == len(known.data.get("axes", "")) - 1
        return numbers[0] if complete and len(set(numbers)) == 1 else value

    @model_validator(mode="after")
    def _consistent(self) -> ModelSpec:
        if self.schema_version > SCHEMA_VERSION:
            raise ValueError(
                f"model.json has version {self.schema_version}; this program reads up to {SCHEMA_VERSION}. Update napari-tileseg"
            )
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.name):
            raise ValueError(f"model name {self.name!r} may hold letters, digits, '.', '_' and '-' only")
        if not self.channels or not self.classes:
            raise ValueError("a model needs at least one channel and one class")
        ndim = self.spatial_ndim
        for label in ("window", "spacing", "zoom", "output_offset"):
            sizes = getattr(self, label)
            if sizes is not None and len(sizes) != ndim:
                raise ValueError(f"{label} {sizes} must have one number for each of the axes {self.spatial_axes}")
        if any(not 0 < zoom < 100 for zoom in self.zoom or ()):
            raise ValueError(f"zoom {self.zoom} must be made of numbers above 0 and below 100")
        if len(self.multiples) != ndim:
            raise ValueError(f"multiple_of {self.multiple_of} must be one number, or one for each of the axes {self.spatial_axes}")
        if any(size < 1 or size % step != self.remainder for size, step in zip(self.window, self.multiples, strict=True)):
            plus = f" plus {self.remainder}" if self.remainder else ""
            raise ValueError(f"window {self.window} must be made of positive multiples of {self.multiple_of}{plus}")
        if not set(self.from_end) <= set(self.spatial_axes):
            raise ValueError(f"from_end {self.from_end!r} may hold the letters {self.spatial_axes} only")
        if self.mirror_axes is not None and not set(self.mirror_axes) <= set(self.spatial_axes):
            raise ValueError(f"mirror_axes {self.mirror_axes!r} may hold the letters {self.spatial_axes} only")
        if self.normalization.kind == "channels" and len(self.normalization.channels) != len(self.channels):
            raise ValueError(f"{len(self.normalization.channels)} rules were given to normalise {len(self.channels)} channels")
        values = self.region_values
        known = all(0 < value < len(self.classes) for value in values)
        if self.output == "regions" and (len(values) != len(self.score_names) or not known):
            raise ValueError(f"region_values {values} must name a class for each of the {len(self.score_names)} score channels")
        if self.region_labels and (self.output != "regions" or len(self.region_labels) != len(values)):
            raise ValueError(f"region_labels {self.region_labels} must hold the numbers of each of the {len(values)} regions")
        strange = next((name for name in self.unknown if name not in type(self).model_fields), None)
        if strange is not None:
            raise ValueError(f"unknown names {strange!r}, which is no field of a card")
        if self.output == "labels" and (len(self.score_names) > 1 or self.resampling.scores is not None or self.tta):
            raise ValueError("a model that gives labels gives one channel of them, which can neither be averaged nor interpolated")
        if self.output == "anomaly":
            limit, median = self.decoder_parameters.get("threshold", 0), self.decoder_parameters.get("median", 1)
            if len(self.classes) != 2 or len(self.score_names) != 1 or not limit > 0:
                raise ValueError("an anomaly model has two classes, one score, and a decoder parameter threshold above 0")
            if median < 1 or median % 2 != 1:
                raise ValueError(f"the decoder parameter median must be an odd number of pixels, not {median:g}")
        if self.colors and len(self.colors) != len(self.foreground_classes):
            raise ValueError(f"{len(self.colors)} colours were given for {len(self.foreground_classes)} classes")
        return self

    @property
    def spatial_axes(self) -> str:
        """``"YX"`` or ``"ZYX"``."""
        return self.axes[1:]

    @property
    def spatial_ndim(self) -> int:
        return len(self.spatial_axes)

    @property
    def multiples(self) -> tuple[int, ...]:
        """What the side of a tile along each axis of space must be a multiple of."""
        return self.multiple_of if isinstance(self.multiple_of, tuple) else (self.multiple_of,) * self.spatial_ndim

    @property
    def inputs(self) -> int:
        """Number of channels that the network gets: those of the image, and those of the first model of a cascade."""
        return len(self.channels) + (len(self.previous.labels) if self.previous else 0)

    @property
    def score_names(self) -> list[str]:
        """Names of the network's output channels."""
        return self.heads or {"labels": ["labels"], "anomaly": ["anomaly score"]}.get(self.output, self.classes)

    @property
    def has_masks(self) -> bool:
        """Whether each score channel stands for a mask of its own, which others may overlap."""
        return self.output in ("sigmoid", "regions")

    @property
    def finds_objects(self) -> bool:
        """Whether labels are the numbers of objects rather than of classes."""
        return self.output in ("instances", "labels")

    @property
    def foreground_classes(self) -> list[str]:
        """Class names without the background."""
        return self.classes if self.output == "sigmoid" else self.classes[1:]

    @property
    def label(self) -> str:
        """The name to show to people."""
        return self.title or self.name
