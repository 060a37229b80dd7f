"""Training without labels: what is normal is learnt from images alone, what is made up is drawn from it.

``UNSUPERVISED`` names the networks, ``train_unsupervised`` trains one of them by an ``UnsupervisedConfig``; torch is imported with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_tileseg.training.unsupervised.config import UNSUPERVISED, UnsupervisedConfig

if TYPE_CHECKING:
    from napari_tileseg.training.unsupervised.train import train_unsupervised

__all__ = ["UNSUPERVISED", "UnsupervisedConfig", "train_unsupervised"]


def __getattr__(name: str) -> Any:
    if name != "train_unsupervised":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from napari_tileseg.training.unsupervised.train import train_unsupervised

    return train_unsupervised
