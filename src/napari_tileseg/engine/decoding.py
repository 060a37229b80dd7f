"""``make_decoder``: what makes labels of what a model gives, chosen by its kind of output."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from napari_tileseg.engine.abnormal import Smooth, limit_of
from napari_tileseg.engine.anomaly import Above, Anomalies
from napari_tileseg.engine.decode import Classes, Masks, Regions
from napari_tileseg.engine.decoders import find_decoder
from napari_tileseg.engine.joined import MATCH, Joined
from napari_tileseg.engine.objects import Objects

if TYPE_CHECKING:
    from napari_tileseg.engine.decode import Decoder
    from napari_tileseg.engine.interpolate import Return
    from napari_tileseg.engine.scan import Turn
    from napari_tileseg.engine.tiles import TilePlan
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["make_decoder"]

_HELD_BYTES = 4 << 30
"""Most memory for scores that wait for their objects to end, and the work on them, where no limit is set."""


def make_decoder(spec: ModelSpec, options: SegmentOptions, first_id: int, plan: TilePlan, turn: Turn, back: Return | None) -> Decoder:
    """Return what makes labels of the scores of a whole sample, whose rows come in the order of the plan."""
    match spec.output:
        case "softmax":
            return Classes(spec.classes)
        case "sigmoid":
            return Masks(spec.classes, options.threshold)
        case "regions":
            return Regions(spec.classes, spec.region_values, options.threshold)
        case "instances":
            return Objects(
                turn.decoder(find_decoder(spec.decoder)),
                spec.decoder_parameters,
                shape=back.turned(turn).grid.image if back else plan.shape,
                classes=spec.classes,
                threshold=options.threshold,
                min_size=options.min_size,
                first_id=first_id,
                limit=_row_limit(plan, spec, options.memory_limit),
            )
        case "anomaly" if max(options.min_size, spec.decoder_parameters.get("min_size", 0)) or spec.decoder_parameters.get("median", 1) > 1:
            return Anomalies(
                turn.decoder(Smooth()),
                spec.decoder_parameters,
                classes=spec.classes,
                threshold=options.threshold,
                min_size=options.min_size,
                limit=_row_limit(plan, spec, options.memory_limit),
            )
        case "anomaly":
            return Above(spec.classes, limit_of(spec.decoder_parameters, options.threshold))
        case "labels":
            return Joined(
                plan.shape,
                classes=spec.classes,
                match=spec.decoder_parameters.get("match", MATCH),
                min_size=options.min_size,
                first_id=first_id,
                limit=_row_limit(plan, spec, options.memory_limit),
            )


def _row_limit(plan: TilePlan, spec: ModelSpec, memory_limit: int | None) -> int:
    """Return how many rows of scores may wait for a component to end; the same on every computer, for the same labels."""
    row = math.prod(plan.shape[1:]) * (4 * len(spec.score_names) + 5)
    return max(2 * plan.depth, (memory_limit or _HELD_BYTES) // 2 // row)
