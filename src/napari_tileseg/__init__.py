"""napari-tileseg: any segmentation model, on any image, of any size, from one click in napari.

The public names are loaded on first use, so that importing the package is instant and pulls in neither torch nor MONAI.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_ORIGINS = {
    "BatchJob": "batch.job",
    "ModelSpec": "models.spec",
    "Segmentation": "segmentation",
    "SegmentOptions": "job",
    "TileSegError": "errors",
    "TrainConfig": "training.config",
    "Volume": "volume",
    "build_network": "models.nets",
    "embed": "training.unsupervised.embed",
    "estimate": "pipeline",
    "evaluate": "training.evaluate",
    "from_module": "models.predictor",
    "generate": "training.unsupervised.generate",
    "get_loss": "training.losses",
    "list_models": "models.registry",
    "load_model": "models.predictor",
    "read_volume": "io",
    "run_batch": "batch.run",
    "save_segmentation": "pipeline",
    "segment": "pipeline",
    "train": "training.train",
    "watch_batch": "batch.watch",
}
"""Module of each public name."""

__all__ = [
    "BatchJob",
    "ModelSpec",
    "SegmentOptions",
    "Segmentation",
    "TileSegError",
    "TrainConfig",
    "Volume",
    "__version__",
    "build_network",
    "embed",
    "estimate",
    "evaluate",
    "from_module",
    "generate",
    "get_loss",
    "list_models",
    "load_model",
    "read_volume",
    "run_batch",
    "save_segmentation",
    "segment",
    "train",
    "watch_batch",
]

if TYPE_CHECKING:
    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.batch.run import run_batch
    from napari_tileseg.batch.watch import watch_batch
    from napari_tileseg.errors import TileSegError
    from napari_tileseg.io import read_volume
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.nets import build_network
    from napari_tileseg.models.predictor import from_module, load_model
    from napari_tileseg.models.registry import list_models
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.pipeline import estimate, save_segmentation, segment
    from napari_tileseg.segmentation import Segmentation
    from napari_tileseg.training.config import TrainConfig
    from napari_tileseg.training.evaluate import evaluate
    from napari_tileseg.training.losses import get_loss
    from napari_tileseg.training.train import train
    from napari_tileseg.training.unsupervised.embed import embed
    from napari_tileseg.training.unsupervised.generate import generate
    from napari_tileseg.volume import Volume


def __getattr__(name: str) -> Any:
    if name not in _ORIGINS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ORIGINS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
