"""``CallPredictor``: a function from tiles to scores behind the engine's protocol."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from napari_tileseg.errors import ModelError, TileSegError
from napari_tileseg.models.nets.outputs import full_scores

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["CallPredictor", "check_scores"]

_MOST_VALUES = 2**28


class CallPredictor:
    """A model that is called as a function.

    Parameters
    ----------
    function : callable
        Maps a float32 tensor (N, C, *window) on `device` to scores (N, K, *out), or to several results of which one is that.
    spec : ModelSpec
        What it takes and returns.
    device : str
        Where it computes.
    size : int
        Bytes of its weights.
    batch : int, optional
        The only number of tiles that it takes at once; any if None.
    """

    module = None
    """There is no module whose parts could be changed."""

    def __init__(self, function: Callable[[Any], Any], spec: ModelSpec, device: str, *, size: int = 0, batch: int | None = None) -> None:
        self.spec = spec
        self.device = device
        self.size = size
        self._function = function
        self._batch = batch

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return raw scores, shape (N, K, *out), for tiles of shape (N, C, *window)."""
        batch = batch.to(self.device)
        fixed = self._batch
        if fixed is None or fixed == len(batch):
            scores: torch.Tensor = full_scores(self._function(batch), batch)
            return scores
        parts = []
        for start in range(0, len(batch), fixed):
            part = batch[start : start + fixed]
            count = len(part)
            if count < fixed:
                part = torch.cat([part, part.new_zeros((fixed - count, *part.shape[1:]))])
            parts.append(full_scores(self._function(part), part)[:count])
        return torch.cat(parts)


def check_scores(predictor: Any, path: Any) -> None:
    """Try a model whose number of classes is assumed on one empty tile.

    Raises
    ------
    ModelError
        If it fails, or returns another number of scores; the sentence says how to say how many classes there are.
    """
    spec = predictor.spec
    if not {"axes", "channels", "classes"} & set(spec.unknown):
        return
    if math.prod(spec.window) * len(spec.channels) > _MOST_VALUES:
        raise ModelError(f"The card of {path.name} says tiles of {' x '.join(map(str, spec.window))}, which no computer holds. Correct it.")
    again = f'tileseg models import "{path}" --axes {spec.axes[1:]} --channels NAME,NAME --classes NAME,NAME'
    try:
        with torch.inference_mode():
            scores = predictor(torch.zeros(1, len(spec.channels), *spec.window, device=predictor.device))
    except TileSegError:
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[-1] if lines else type(error).__name__
        raise ModelError(
            f"{path.name} does not say what it takes, and fails on one tile of {'x'.join(map(str, spec.window))} with {len(spec.channels)} "
            f"channel{'s' * (len(spec.channels) != 1)} ({reason[:200].rstrip('.')}). Say it once: {again}"
        ) from None
    found = scores.shape[1] if isinstance(scores, torch.Tensor) and scores.ndim == spec.spatial_ndim + 2 else None
    if found != len(spec.score_names):
        told = f"returns {found} scores" if found is not None else "returns no scores"
        raise ModelError(f"{path.name} {told} for each place; {len(spec.score_names)} were assumed. Say its classes once: {again}")
