"""From checkpoints of nnU-Net to a predictor: the network of the plans with the weights of each fold."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch

from napari_tileseg.errors import ModelError, WeightsError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.ensemble import Ensemble
from napari_tileseg.models.loaders.nnunet.architecture import OWN, PACKAGE, order, own_network
from napari_tileseg.models.loaders.nnunet.checkpoint import read_weights
from napari_tileseg.models.loaders.nnunet.plans import Plans
from napari_tileseg.models.loaders.nnunet.primus import NAMES, network_of
from napari_tileseg.models.loaders.nnunet.results import Choice, Results, choose, find_stage
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.nets.axis_order import reorder_axes
from napari_tileseg.models.predictor import from_module
from napari_tileseg.models.weights import compare

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import nn

    from napari_tileseg.models.predictor import Predictor
    from napari_tileseg.models.spec import ModelSpec

__all__ = ["Folds", "load"]


class Folds(Ensemble):
    """Networks of several folds under one card, whose scores are averaged.

    Parameters
    ----------
    members : sequence of Predictor
    spec : ModelSpec
        Of all of them together.
    """

    def __init__(self, members: list[Predictor], spec: ModelSpec) -> None:
        super().__init__(members)
        self.spec = spec


def load(path: Path, spec: ModelSpec, device: str, **options: str) -> Predictor | Folds:
    """Load the folds that a path and options mean.

    Parameters
    ----------
    path : Path
        A results folder at any level, or an export.
    spec : ModelSpec
        As `read_spec` returned it.
    device : str
        One that torch knows.
    **options
        See `choose`.

    Raises
    ------
    TrustError
        If a checkpoint names something that could run code.
    WeightsError, ModelError
        If one is damaged, or does not fit its plans; or the network is none that is known.
    """
    results = Results(path)
    choice = choose(results, **options)
    predictor = _load(results, choice, spec, device)
    if spec.previous is not None:
        predictor.previous = _load(*find_stage(results, choice, _plans(results, choice, spec).previous_stage), spec.previous.model, device)
    return predictor


def _plans(results: Results, choice: Choice, spec: ModelSpec) -> Plans:
    dataset = results.json(choice.trained.path("dataset.json"))
    return Plans(results.json(choice.trained.path("plans.json")), dataset, str(spec.training["configuration"]))


def _load(results: Results, choice: Choice, spec: ModelSpec, device: str) -> Predictor | Folds:
    """Load the folds of one stage."""
    plans = _plans(results, choice, spec)
    alone = spec.model_copy(update={"members": []})
    members = []
    for name in choice.checkpoints:
        weights = read_weights(results.file(name))
        network = _build(plans, spec, weights)
        _fill(network, weights, name)
        members.append(from_module(network, alone, device=device))
    return members[0] if len(members) == 1 else Folds(members, spec)


def _build(plans: Plans, spec: ModelSpec, weights: Mapping[str, Any]) -> nn.Module:
    """Build the network that the plans name."""
    trainer, inputs, outputs = str(spec.training["trainer"]), spec.inputs, len(spec.score_names)
    own = own_network(plans, trainer, weights, inputs, outputs)
    if own is not None:
        return build_network(own[0], **own[1])
    dotted, arguments = network_of(plans, trainer)
    kind = dotted.rpartition(".")[2]
    if dotted not in NAMES:
        known = ", ".join([*OWN, *(name.rpartition(".")[2] for name in sorted(NAMES))])
        raise ModelError(f'The plans name the network "{printable(dotted)}". Known are {known}; nothing else is imported.')
    module, _, attribute = dotted.rpartition(".")
    try:
        network_class = getattr(import_module(module), attribute)
    except ModuleNotFoundError:
        raise  # the loader says what to install
    except Exception as error:  # of packages that do not fit each other; torchvision, of another torch, raises RuntimeError
        raise ModelError(
            f"The network {kind} cannot be imported: {printable(str(error))}. The packages torch, torchvision, timm and {PACKAGE} "
            "do not fit each other, or are too old. Install torch and torchvision of the same release."
        ) from error
    try:
        network: nn.Module = network_class(input_channels=inputs, **{NAMES[dotted]: outputs}, **arguments)
    except (TypeError, ValueError, KeyError, AssertionError) as error:
        reason = printable(str(error)) or f"{arguments} are not accepted"
        raise ModelError(f"The network {kind} cannot be built from the plans: {reason}.") from error
    if order(plans):
        reorder_axes(network, order(plans))
    return network


def _fill(network: nn.Module, weights: Mapping[str, Any], name: str) -> None:
    """Put weights into a network; all must fit."""
    expected = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    fit = compare(expected, {key: tuple(value.shape) for key, value in weights.items() if isinstance(value, torch.Tensor)})
    if not fit.exact:
        raise WeightsError(f"The weights in {name} do not fit the network of the plans: {fit}.")
    network.load_state_dict(dict(weights), strict=False)  # counters of batches may be missing
