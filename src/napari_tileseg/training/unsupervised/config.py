"""``UnsupervisedConfig``: how a model is trained on images alone, or on images and masks that it is to make more of."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from napari_tileseg.folders import model_folder
from napari_tileseg.models.sides import next_side
from napari_tileseg.training.toml_config import TomlConfig

__all__ = ["ADVERSARIAL", "UNSUPERVISED", "UnsupervisedConfig"]

ADVERSARIAL = {"gan": "gan", "lsgan": "gan", "dcgan": "dcgan"}
"""Networks that learn against a discriminator: the layers of each."""

UNSUPERVISED = frozenset({"autoencoder", "conv_autoencoder", "vae", *ADVERSARIAL})
"""Names of the networks that train without labels."""

_LEAST = {"autoencoder": 8, "conv_autoencoder": 16, "vae": 8, "gan": 8, "lsgan": 8, "dcgan": 16}
_RATES = {"autoencoder": 1e-3, "conv_autoencoder": 1e-3, "vae": 1e-3, "gan": 3e-4, "lsgan": 3e-4, "dcgan": 3e-4}


class UnsupervisedConfig(TomlConfig):
    """How to train without labels. Titles and descriptions become labels and tooltips.

    ``None`` means: as is usual for the network.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    PATHS: ClassVar[tuple[str, ...]] = ("images", "labels", "output")

    kind: Literal["unsupervised"] = "unsupervised"
    name: str = Field("normal", title="Name", pattern="^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Of the model.")
    output: str = Field("", title="Save in", description="Folder of the model; among your own models if empty.")
    images: str = Field("", title="Images", description="Folder of images that show only what is normal, or one image.")
    labels: str = Field("", title="Masks", description="Folder of masks of the same names, for a model that makes images with masks.")
    classes: tuple[str, ...] = Field(("background", "object"), title="Classes", description="Of the masks, the background first.")
    axes: str | None = Field(None, title="Axes", description="One letter per dimension of the images; what their files say if empty.")
    network: Literal["autoencoder", "conv_autoencoder", "vae", "gan", "lsgan", "dcgan"] = Field("conv_autoencoder", title="Network")
    arguments: dict[str, Any] = Field(default_factory=dict, title="Arguments", description="Of the network: features, latent, noise.")
    residual: Literal["absolute", "ssim", "kl"] = Field(
        "absolute", title="Residual", description="Differences, structural similarity, or (vae) what makes the code improbable."
    )
    tile: tuple[int, int] = Field((28, 28), title="Tile", description="Height and width in pixels.")
    normalization: Literal["percentile", "range"] = Field(
        "percentile", title="Brightness", description="percentile: each image by its own. range: one range for all images."
    )
    flips: bool = Field(True, title="Flips", description="Mirror tiles, and turn square ones.")
    steps: int = Field(2000, ge=1, title="Steps", description="Batches to learn from.")
    encoder_steps: int | None = Field(None, ge=1, title="Encoder steps", description="Of the second stage of a GAN; as many if empty.")
    batch: int = Field(128, ge=2, title="Batch", description="Tiles at once.")
    learning_rate: float | None = Field(None, gt=0, title="Learning rate")
    kappa: float = Field(1.0, ge=0, title="Kappa", description="Weight of the discriminator's features for the encoder of a GAN.")
    held_out: float = Field(0.2, gt=0, lt=1, title="Held out", description="Share of the images that only sets the threshold.")
    percentile: float = Field(99.0, gt=0, lt=100, title="Percentile", description="Of the scores of held-out tiles: the threshold.")
    median: int = Field(5, ge=1, title="Median", description="Width in pixels of the filter that smooths the scores; odd.")
    min_size: int = Field(20, ge=0, title="Min. size", description="Smaller places are no anomalies (pixels).")
    overlap: float = Field(0.5, ge=0, lt=1, title="Overlap", description="Share of a tile that is seen twice by the model.")
    seed: int = Field(0, ge=0, title="Seed")
    device: str = Field("auto", title="Device", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")
    report_every: int = Field(50, ge=1, title="Report every", description="Steps.")
    checkpoint_every: int = Field(500, ge=1, title="Checkpoint every", description="Steps; what can be lost at most.")

    @field_validator("tile", mode="before")
    @classmethod
    def _square(cls, tile: Any) -> Any:
        if isinstance(tile, tuple | list) and len(tile) == 1:
            tile = tile[0]
        return tile if isinstance(tile, tuple | list) else (tile, tile)

    @model_validator(mode="after")
    def _fits(self) -> UnsupervisedConfig:
        least = _LEAST[self.network]
        if min(self.tile) < least:
            raise ValueError(f"tiles of {self.network} need sides of {least} pixels or more")
        multiple, remainder = {"conv_autoencoder": (12, 4), "dcgan": (4, 0)}.get(self.network, (1, 0))
        fitting = tuple(next_side(side, multiple, remainder) for side in self.tile)
        if fitting != self.tile:
            given, better = (f"{height} x {width}" for height, width in (self.tile, fitting))
            raise ValueError(f"the network {self.network} takes no tile of {given}; use {better}")
        if self.median % 2 != 1:
            raise ValueError("median must be an odd number of pixels")
        if self.residual == "kl" and self.network != "vae":
            raise ValueError("the residual kl is there for the network vae only")
        if self.residual != "absolute" and self.adversarial:
            raise ValueError(f"the residual {self.residual} is there for autoencoders only")
        if self.labels and not self.adversarial:
            raise ValueError(f"masks are learnt by {', '.join(ADVERSARIAL)} only; choose one of these, or give no masks")
        if len(self.classes) < 2:
            raise ValueError("classes must name the background and at least one more")
        taken = {"in_channels", "out_channels", "size", "network", "residual", "classes"} & set(self.arguments)
        if taken:
            raise ValueError(f"arguments may not hold {', '.join(sorted(taken))}, which the images and other options decide")
        return self

    @property
    def adversarial(self) -> bool:
        """Whether a generator and a discriminator are trained."""
        return self.network in ADVERSARIAL

    @property
    def rate(self) -> float:
        """The learning rate."""
        return self.learning_rate or _RATES[self.network]

    @property
    def place(self) -> Path:
        """Where the model goes."""
        return Path(self.output).expanduser() if self.output else model_folder() / self.name
