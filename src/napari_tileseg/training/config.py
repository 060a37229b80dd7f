"""``TrainConfig``: one training, frozen; a widget, a command line and a TOML file hold the same."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from napari_tileseg.models.spec import Normalization
from napari_tileseg.training.toml_config import TomlConfig

__all__ = ["Strengths", "TrainConfig"]


class Strengths(BaseModel):
    """How strongly crops are changed at random before they are learnt. 1 is usual, 0 is not at all."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    flips: bool = Field(True, title="Flips", description="Mirror images, along Y and X; along Z too where `flips_z` says so.")
    flips_z: bool = Field(False, title="Flips along Z", description="Off where up and down, or left and right, differ.")
    right_angles: bool = Field(True, title="Quarter turns", description="In planes.")
    rotation: float = Field(1.0, ge=0, le=3, title="Rotation", description="1: any angle in planes, 15 degrees in volumes.")
    scaling: float = Field(1.0, ge=0, le=3, title="Scaling", description="1: from 0.8 to 1.25.")
    elastic: float = Field(0.0, ge=0, le=3, title="Elastic", description="1: bent by about 1.5 pixels.")
    intensity: float = Field(1.0, ge=0, le=3, title="Contrast", description="And brightness; 1: contrast by a fifth.")
    gamma: float = Field(1.0, ge=0, le=3, title="Gamma", description="1: exponents from 0.74 to 1.35.")
    noise: float = Field(1.0, ge=0, le=3, title="Noise", description="1: up to a twentieth of the range.")
    blur: float = Field(1.0, ge=0, le=3, title="Blur", description="1: up to one pixel, for one crop in seven.")
    stain: float = Field(0.0, ge=0, le=3, title="Stain", description="Colours of stained tissue; 1: amounts of stain by a fifth.")


class TrainConfig(TomlConfig):
    """What to learn from, what to train, and how. Titles and descriptions become the labels and tooltips of every interface.

    ``None`` means: derived from the data; `tileseg train --dry-run` says what that is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    PATHS: ClassVar[tuple[str, ...]] = ("images", "labels", "val_images", "val_labels", "output", "log")

    kind: Literal["train"] = "train"
    images: str = Field("", title="Images", description="Folder of images, or one image.")
    labels: str = Field("", title="Labels", description="Folder of labels with the names of the images, or one file; COCO lists many.")
    val_images: str = Field("", title="Validation images", description="Their own folder; a part of the images if empty.")
    val_labels: str = Field("", title="Validation labels", description="Labels of these.")
    output: str = Field("", title="Save in", description="Folder of the model; one with its name among your models if empty.")
    name: str = Field("", title="Name", description="Name of the model, as in file names; that of its folder if empty.")

    task: Literal["auto", "classes", "overlapping", "instances"] = Field(
        "auto",
        title="Task",
        description="What labels stand for: classes, classes that may overlap (a mask for each), or objects one by one (instances).",
    )
    classes: tuple[str, ...] = Field((), title="Classes", description="Names, the background first; overlapping ones without it.")
    regions: dict[str, tuple[int, ...]] = Field(
        default_factory=dict, title="Regions", description="Overlapping classes as sets of the numbers in labels."
    )
    values: tuple[int, ...] = Field((), title="Values", description="The number in the labels for each class; those found if empty.")
    unlabelled: int | None = Field(
        None, title="Unlabelled", description="Value of pixels that nobody has labelled; nothing is learnt there."
    )
    axes: str | None = Field(None, title="Axes", description="Of every image; what its file says if empty.")
    dimensions: Literal["auto", "2", "3"] = Field("auto", title="Dimensions", description="Learn planes (2) or volumes (3).")

    split: Literal["auto", "file", "group", "region"] = Field(
        "auto",
        title="Split",
        description="What goes to validation: files, groups of files (names up to the last number), or a region of every image. "
        "auto: a region where there is one image, else files.",
    )
    val_share: float = Field(0.2, ge=0, lt=1, title="Validation", description="Share that is kept for validation; 0: none.")

    network: str = Field("residual_unet", min_length=1, title="Network", description="A name that `build_network` takes.")
    arguments: dict[str, Any] = Field(default_factory=dict, title="Arguments", description="Of the network, besides channels and classes.")
    start: str = Field("", title="Start from", description="A model to go on from; its network, channels and pixel size are taken.")
    freeze: Literal["none", "encoder", "backbone"] = Field(
        "none",
        title="Freeze",
        description="encoder: the way up and the head are trained; backbone: only the head, which scores the classes.",
    )
    loss: str = Field("auto", min_length=1, title="Loss", description="A name that `get_loss` takes; auto: ce_dice, or that of objects.")
    loss_arguments: dict[str, Any] = Field(default_factory=dict, title="Loss arguments", description="As of `get_loss`.")
    adversarial: float = Field(
        0.0, ge=0, title="Adversarial", description="Weight of what a discriminator says of the result, after the warm-up; 0: none."
    )
    adversarial_kind: Literal["bce", "least_squares"] = Field(
        "bce", title="Adversarial loss", description="What the discriminator learns by."
    )

    window: tuple[int, ...] | None = Field(None, title="Window", description="Size of a crop in pixels, and of the model's tile.")
    batch: int | None = Field(None, ge=1, title="Batch", description="Crops that are learnt at once.")
    accumulation: int = Field(1, ge=1, title="Accumulation", description="Batches whose gradients make one step.")
    foreground: float = Field(0.5, ge=0, le=1, title="Foreground", description="Share of the crops that are centred on an object.")
    normalization: Normalization | None = Field(None, title="Normalisation", description="How intensities are scaled.")
    spacing: tuple[float, ...] | None = Field(
        None, title="Pixel size", description="What images are resampled to, in `spacing_unit`; their median if empty and known."
    )
    spacing_unit: Literal["millimeter", "micrometer"] = Field("micrometer", title="Unit", description="Of the pixel size.")
    augmentation: Strengths = Field(Strengths(), title="Augmentation", description="Random changes of the crops.")

    epochs: int = Field(100, ge=1, title="Epochs", description="An epoch ends with a validation.")
    epoch_steps: int | None = Field(None, ge=1, title="Steps per epoch", description="As many as see about all images if empty.")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", title="Optimiser", description="sgd has Nesterov's momentum.")
    learning_rate: float | None = Field(None, gt=0, title="Learning rate", description="The highest one.")
    weight_decay: float = Field(0.02, ge=0, title="Weight decay", description="0.00003 is usual for sgd.")
    momentum: float = Field(0.99, ge=0, lt=1, title="Momentum", description="Of sgd.")
    schedule: Literal["cosine", "polynomial", "one_cycle", "constant"] = Field("cosine", title="Schedule", description="Of the rate.")
    warmup: float = Field(0.05, ge=0, lt=1, title="Warm-up", description="Share of the steps in which the rate rises.")
    clip: float = Field(3.0, gt=0, title="Clip", description="Largest norm of a gradient.")
    average: float = Field(0.99, ge=0, lt=1, title="Average", description="Decay of the moving average of the weights, the result.")
    patience: int = Field(30, ge=0, title="Patience", description="Epochs without a better score before it stops; 0: never.")
    precision: Literal["auto", "float32", "bfloat16"] = Field("auto", title="Precision", description="auto: bfloat16 on CUDA that has it.")
    device: str = Field("auto", title="Device", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="Where it is trained.")
    seed: int = Field(0, ge=0, title="Seed", description="The same one gives the same weights on the same CPU.")
    preview: str = Field("", title="Preview", description="Validation image whose labels are shown after each epoch; the first if empty.")
    log: str = Field("", title="Log", description="Folder in which TensorBoard files with pictures stay; else they go when it is done.")
    memory_limit: int | None = Field(
        None, ge=1, title="Memory limit", description="Most bytes of prepared images in memory; others lie on the disk."
    )

    @model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        if self.values and self.classes and len(self.values) != len(self.classes):
            raise ValueError(f"{len(self.values)} values were given for {len(self.classes)} classes; give one for each")
        if len(set(self.values)) != len(self.values):
            raise ValueError("a value stands twice in values")
        if self.unlabelled is not None and self.unlabelled in self.values:
            raise ValueError(f"the value {self.unlabelled} cannot be a class and unlabelled")
        if self.regions and self.task not in ("auto", "overlapping"):
            raise ValueError("regions are classes that may overlap: leave the task open")
        if not all(self.regions.values()):
            raise ValueError("a region has no number")
        if self.values and (self.regions or self.task == "overlapping"):
            raise ValueError("values are for classes that exclude each other; use regions for overlapping ones")
        if self.window is not None and (not 2 <= len(self.window) <= 3 or min(self.window) < 1):
            raise ValueError("window must be two or three positive numbers")
        if bool(self.val_images) != bool(self.val_labels):
            raise ValueError("val_images and val_labels belong together")
        return self
