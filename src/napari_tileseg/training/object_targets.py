"""``ObjectTargets``: what the scores of a decoder are learnt from, and what is fitted when they are learnt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_tileseg.engine.heat import flows_of
from napari_tileseg.errors import ModelError
from napari_tileseg.training.targets import object_maps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["TARGETS", "ObjectTargets", "targets_of"]


@dataclass(frozen=True)
class ObjectTargets:
    """What belongs to a decoder when its scores are learnt.

    Parameters
    ----------
    loss : str
        A key of `napari_tileseg.training.losses.OBJECT_LOSSES`.
    make_maps : callable
        Makes maps (M, *spatial) that go through augmentation along with the image, from labels (*spatial) and the model's card.
    choices : mapping of str to sequence of float
        Values of the decoder's parameters that are tried on validation images in the end.
    vectors : bool
        Whether the maps begin with a vector, one map for each axis of space, which turns with a crop.
    arguments : callable
        Returns the arguments of the loss that follow from the model's card.
    """

    loss: str
    make_maps: Callable[[NDArray[np.int32], ModelSpec], NDArray[Any]]
    choices: Mapping[str, Sequence[float]]
    vectors: bool = False
    arguments: Callable[[ModelSpec], dict[str, Any]] = field(default=lambda spec: {})


def targets_of(spec: ModelSpec) -> ObjectTargets:
    """Return what is learnt for a model that finds objects.

    Raises
    ------
    ModelError
        If its decoder's scores are not learnt here.
    """
    if spec.decoder not in TARGETS:
        raise ModelError(f'{spec.label} finds objects with the decoder "{spec.decoder}", which is not learnt here. Choose another model.')
    return TARGETS[spec.decoder]


def _of_stars(spec: ModelSpec) -> dict[str, Any]:
    parameters = spec.decoder_parameters
    return {"grid": spec.arguments["grid"], "anisotropy": [parameters.get(f"anisotropy_{axis}", 1.0) for axis in "zyx"]}


def _flows(labels: NDArray[np.int32], spec: ModelSpec) -> NDArray[np.float64]:
    return flows_of(labels, touching=spec.decoder_parameters.get("touching", 1.0) != 0)


TARGETS = {
    "watershed": ObjectTargets(
        "instances",
        lambda labels, spec: object_maps(labels),
        {
            "depth": (0.1, 0.2, 0.3, 0.4, 0.5),
            "foreground_bias": (-0.2, 0.0, 0.2, 0.4),
            "border_weight": (0.0, 0.25, 0.5, 1.0),
            "min_score": (0.5, 0.6, 0.7, 0.8),
            "min_size": (5.0, 10.0, 20.0),
            "min_height": (0.0, 0.3, 0.5),
        },
    ),
    "stardist": ObjectTargets(
        "stars",
        lambda labels, spec: object_maps(labels)[:1],
        {"prob_thresh": (0.3, 0.4, 0.5, 0.6, 0.7), "nms_thresh": (0.3, 0.4, 0.5)},
        arguments=_of_stars,
    ),
    "cellpose": ObjectTargets(
        "flows",
        _flows,
        {"cellprob_threshold": (-2.0, -1.0, 0.0, 1.0), "flow_threshold": (0.4, 0.6, 0.8)},
        vectors=True,
    ),
}
"""By the name of the decoder."""
