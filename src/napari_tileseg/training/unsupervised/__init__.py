"""Training without labels: what is normal is learnt from images alone, what is made up is drawn from it.

``UNSUPERVISED`` names the networks, ``train_unsupervised`` trains one of them by an ``UnsupervisedConfig``.
"""

from __future__ import annotations

from napari_tileseg.training.unsupervised.config import UNSUPERVISED, UnsupervisedConfig
from napari_tileseg.training.unsupervised.train import train_unsupervised

__all__ = ["UNSUPERVISED", "UnsupervisedConfig", "train_unsupervised"]
