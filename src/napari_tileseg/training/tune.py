"""``tune_decoder``: choose the few numbers of a decoder on labelled images, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.training.metrics import average_precision

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from napari_tileseg.engine.decoders import ObjectDecoder

__all__ = ["tune_decoder"]


def tune_decoder(
    decoder: ObjectDecoder,
    samples: Sequence[tuple[NDArray[np.float32], NDArray[Any]]],
    start: Mapping[str, float],
    choices: Mapping[str, Sequence[float]],
    *,
    rounds: int = 2,
) -> tuple[dict[str, float], float]:
    """Search along one parameter at a time for the best mean AP at an overlap of 0.5.

    Parameters
    ----------
    decoder : ObjectDecoder
        Its `decode` is called with the scores and the parameters.
    samples : sequence of (scores, labels)
        Raw scores (K, *spatial) and reference objects (*spatial).
    start : mapping of str to float
        Where to begin.
    choices : mapping of str to sequence of float
        Values to try, parameter by parameter, in this order.
    rounds : int
        How often to go through all parameters.

    Returns
    -------
    parameters : dict
    score : float
        Mean AP over the samples with these parameters.
    """

    def score(parameters: Mapping[str, float]) -> float:
        return float(np.mean([average_precision(decoder.decode(scores, parameters), labels)[0] for scores, labels in samples]))

    best, highest = dict(start), score(start)
    for _ in range(rounds):
        before = dict(best)
        for name, values in choices.items():
            for value in values:
                if value == best.get(name):
                    continue
                found = score({**best, name: value})
                if found > highest:
                    best, highest = {**best, name: value}, found
        if best == before:
            break
    return best, highest
