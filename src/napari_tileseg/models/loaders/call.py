"""``CallPredictor``: a function from tiles to scores behind the engine's protocol, and which of several results are the scores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from napari_tileseg.errors import ModelError, TileSegError

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["CallPredictor", "check_scores", "full_scores"]


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


def full_scores(result: Any, batch: torch.Tensor) -> Any:
    """Return the scores at full size among what a network returns.

    Networks with deep supervision return several, as a list, a tuple, a dictionary, or with an axis of their own; those with a
    second task return its loss or a reconstruction besides. The scores are the first tensor with the spatial size of the input,
    or, where none has it, the first of the largest.

    Parameters
    ----------
    result : object
        What the network returned.
    batch : torch.Tensor, shape (N, C, *window)
        What it was given.
    """
    if isinstance(result, torch.Tensor):
        return result[:, 0] if result.ndim == batch.ndim + 1 and result.shape[3:] == batch.shape[2:] else result
    parts = result.values() if isinstance(result, dict) else result
    if not isinstance(result, dict | list | tuple):
        return result
    tensors = [full_scores(part, batch) for part in parts if isinstance(part, torch.Tensor | list | tuple | dict)]
    tensors = [part for part in tensors if isinstance(part, torch.Tensor) and part.ndim == batch.ndim]
    whole = next((part for part in tensors if part.shape[2:] == batch.shape[2:]), None)
    return whole if whole is not None else max(tensors, key=lambda part: part.shape[2:].numel(), default=result)


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
