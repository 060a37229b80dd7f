"""``generate``: new images, or images with masks, that a trained model makes up; and ``save_samples``, which says so in each file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_tileseg.errors import ModelError, OptionsError
from napari_tileseg.io.output import check_place
from napari_tileseg.io.registry import write_labels
from napari_tileseg.io.synthetic import FORMATS, write_synthetic
from napari_tileseg.models.predictor import Predictor, load_model
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["GeneratedSamples", "generate", "save_samples"]

_BATCH = 64
_MOST = 100_000


@dataclass(frozen=True, eq=False)
class GeneratedSamples:
    """What a model has made up.

    Parameters
    ----------
    images : ndarray of float32, shape (N, C, Y, X)
        From 0 to 1.
    labels : ndarray of uint8 or None, shape (N, Y, X)
        The class of each pixel, where the model makes masks too.
    model : str
        Name of the model.
    classes : tuple of str
        Of the labels, the background first.
    seed : int
    """

    images: NDArray[np.float32]
    labels: NDArray[np.uint8] | None
    model: str
    classes: tuple[str, ...]
    seed: int


@torch.inference_mode()
def generate(model: str | Path | Predictor, count: int, *, seed: int = 0, device: str = "auto") -> GeneratedSamples:
    """Draw new images from a trained generator or VAE.

    Parameters
    ----------
    model : str, path or Predictor
        A VAE, a GAN or a generator of pairs that was trained here.
    count : int
        How many. The first ones are the same whatever their number.
    seed : int
        The same seed gives the same images.
    device : str
        Where the model runs; as of `load_model`.

    Raises
    ------
    ModelError
        If the model makes no images.
    OptionsError
        If the number is not accepted.
    """
    if not 1 <= count <= _MOST:
        raise OptionsError(f"{count} samples cannot be made. Ask for 1 to {_MOST}.")
    if seed < 0:
        raise OptionsError(f"The seed {seed} is not accepted. Give 0 or more.")
    predictor = load_model(str(model), device=device) if isinstance(model, str | Path) else model
    network: Any = getattr(predictor, "module", None)
    numbers: int | None = getattr(network, "noise", None)
    if numbers is None or not hasattr(network, "spread"):
        raise ModelError(f"{predictor.spec.label} makes no images. Choose a trained vae, gan, lsgan or dcgan.")
    # Each sample has a generator of its own, so that asking for more changes none of the first.
    normal = np.stack([np.random.default_rng([seed, index]).standard_normal(numbers, np.float32) for index in range(count)])
    codes = network.spread(torch.from_numpy(normal))
    made = torch.cat([network.decode(part.to(predictor.device)).float().cpu() for part in codes.split(_BATCH)]).numpy()
    channels = len(predictor.spec.channels)
    labels = made[:, channels:].argmax(1).astype(np.uint8) if made.shape[1] > channels else None
    images = np.clip((made[:, :channels] + 1) / 2, 0, 1).astype(np.float32)
    classes = tuple(predictor.spec.classes) if labels is not None else ()
    return GeneratedSamples(images, labels, predictor.spec.name, classes, seed)


def save_samples(samples: GeneratedSamples, folder: str | Path, *, format: str = "png", first: int = 0) -> list[Path]:
    """Save samples as ``synthetic_MODEL_seedS_N.png`` (or ``.tif``); masks go beside the images, in folders ``images`` and ``labels``.

    Each file says of itself that it is synthetic. None is ever replaced.

    Parameters
    ----------
    folder : path
        Made if it is not there; its parent must be.
    format : {"png", "tif"}
        PNG holds 1 or 3 channels of 8 bits; TIFF any number, as floats from 0 to 1.
    first : int
        Number of the first one.

    Returns
    -------
    list of Path
        Of the images.

    Raises
    ------
    OptionsError
        If the format is not accepted, or does not hold the channels.
    OutputError
        If a file is there already, or cannot be written.
    """
    if format not in FORMATS:
        raise OptionsError(f'The format "{format}" is not accepted. Use {" or ".join(FORMATS)}.')
    channels = samples.images.shape[1]
    if format == "png" and channels not in (1, 3):
        raise OptionsError(f"PNG holds 1 or 3 channels, these images have {channels}. Use the format tif.")
    root = Path(folder)
    places = [root / "images", root / "labels"] if samples.labels is not None else [root]
    names = [f"synthetic_{samples.model}_seed{samples.seed}_{first + index:05d}" for index in range(len(samples.images))]
    _make(root)
    for place in places:
        _make(place)
    paths = [places[0] / f"{name}.{format}" for name in names]
    masks = [places[-1] / f"{name}.{'png' if format == 'png' else 'ome.tif'}" for name in names] if samples.labels is not None else []
    for path in paths + masks:
        check_place(path, overwrite=False)  # before the first one is written
    for index, path in enumerate(paths):
        facts = {"synthetic": True, "model": samples.model, "seed": samples.seed, "number": first + index}
        write_synthetic(samples.images[index], path, facts)
        if samples.labels is not None:
            write_labels(Volume(samples.labels[index], "YX", name=path.stem), masks[index], classes=samples.classes, provenance=facts)
    return paths


def _make(folder: Path) -> None:
    if not folder.is_dir():
        check_place(folder, overwrite=False)
        folder.mkdir()
