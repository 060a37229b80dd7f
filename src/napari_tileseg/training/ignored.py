"""``heed_ignored``: labels for which a model was told to ignore a number are not labelled where that number stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_tileseg.models.registry import find_spec

if TYPE_CHECKING:
    from napari_tileseg.training.config import TrainConfig

__all__ = ["heed_ignored"]


def heed_ignored(config: TrainConfig) -> TrainConfig:
    """Return a config with the number that the model it goes on from ignores in labels, where nobody has named one.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    if not config.start or config.unlabelled is not None or config.task == "instances":
        return config
    ignored = find_spec(config.start).training.get("ignored")
    return config.model_copy(update={"unlabelled": ignored}) if isinstance(ignored, int) and ignored not in config.values else config
