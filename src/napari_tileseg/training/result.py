"""``write_result``: from the best weights to a model package; for objects, the decoder is fitted first."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.decoders import find_decoder
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import write_package
from napari_tileseg.training.card import write_card, write_curves
from napari_tileseg.training.object_targets import targets_of
from napari_tileseg.training.predict import whole_image_scores
from napari_tileseg.training.tune import tune_decoder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.training.config import TrainConfig
    from napari_tileseg.training.data import Example
    from napari_tileseg.training.plan import Plan
    from napari_tileseg.training.report import Report
    from napari_tileseg.training.training_log import TrainingLog

__all__ = ["FITTED", "fit_decoder", "write_result"]

FITTED = 12
"""Validation images that a decoder is fitted to at most."""

_PARTS = ("segmentation", "adversarial", "discriminator")

_ROOM = 1 << 30
"""Bytes of scores to which a decoder is fitted, at most; those of the first image are always there."""


def fit_decoder(spec: ModelSpec, state: Mapping[str, Tensor], examples: Sequence[Example]) -> dict[str, float]:
    """Choose the few numbers by which scores become objects.

    Parameters
    ----------
    spec : ModelSpec
        Of a model that finds objects.
    state : mapping of str to Tensor
        Its weights.
    examples : sequence of Example
        Images that were not learnt from.

    Returns
    -------
    dict of str to float
        Of the best mean AP on these images.
    """
    network = build_network(spec.architecture, **spec.arguments)
    network.load_state_dict(state)
    samples: list[tuple[NDArray[np.float32], NDArray[Any]]] = []
    used = 0
    for item in examples[:FITTED]:
        scores = whole_image_scores(network.eval(), spec, item.image)
        used += scores.nbytes
        if samples and used > _ROOM:
            break
        samples.append((scores, np.maximum(item.labels, 0)))
    return tune_decoder(find_decoder(spec.decoder), samples, spec.decoder_parameters, targets_of(spec).choices, rounds=1)[0]


def write_result(
    output: Path,
    config: TrainConfig,
    plan: Plan,
    report: Report,
    notes: Mapping[str, Any],
    state: Mapping[str, Tensor],
    *,
    ended: str,
    log: TrainingLog | None = None,
) -> ModelSpec:
    """Write the package: card and curves, data summary, scores, weights.

    Parameters
    ----------
    notes : mapping
        ``history``: one mapping for each epoch; ``best_epoch``, ``best``, ``scores`` and ``rows`` of the weights.
    ended : str
        Why the training is over.
    log : TrainingLog, optional
        Whose numbers are put beside the curves.

    Raises
    ------
    OutputError
        If it cannot be written there.
    """
    history = notes["history"]
    fields = {"epochs", "optimizer", "schedule", "warmup", "weight_decay", "clip", "average", "seed", "foreground", "freeze"}
    fields |= {"adversarial", "adversarial_kind"} if config.adversarial else set()
    facts: dict[str, Any] = {
        "data": list(report.lines),
        "notes": list(report.warnings),
        "settings": plan.settings(),
        "options": config.model_dump(mode="json", include=fields),
        "started_from": Path(config.start).name if config.start else "",  # a path would say too much of the user's folders
        "ended": ended,
        "epoch": notes["best_epoch"],
        "epochs": len(history),
        "score": notes["best"],
        "scores": dict(notes["scores"]),
        "curves": {
            name: [row.get(name) for row in history]
            for name in ("loss", "score", *_PARTS)
            if name in ("loss", "score") or any(name in row for row in history)
        },
        "images": [item.name for item in report.train],
        "validation_images": [item.name for item in report.val],
    }
    what = "objects" if plan.spec.output == "instances" else ", ".join(plan.spec.foreground_classes)
    described = f"Finds {what}; trained here, on the images that its card describes."
    spec = plan.spec.model_copy(update={"training": facts, "description": described})
    card = write_card(spec, plan, report, history, notes["rows"])
    extras = {"curves.csv": write_curves(history)} if history else {}
    extras |= log.numbers() if log is not None else {}
    return write_package(output, spec, state, card=card, extras=extras)
