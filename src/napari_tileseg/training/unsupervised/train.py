"""``train_unsupervised``: from images of what is normal to a model that marks what is not, or that makes more of them."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from napari_tileseg.engine.run import never
from napari_tileseg.errors import Cancelled, OptionsError, OutputError
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.nets.anomaly import AnomalyMap, FAnoGAN
from napari_tileseg.models.nets.tiling import tiling
from napari_tileseg.models.package import write_package
from napari_tileseg.models.predictor import from_module, pick_device
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.training.losses.adversarial import AdversarialLoss
from napari_tileseg.training.ranks import launched
from napari_tileseg.training.unsupervised.adversarial import Adversarial, Inversion
from napari_tileseg.training.unsupervised.config import ADVERSARIAL, UnsupervisedConfig
from napari_tileseg.training.unsupervised.events import CheckpointSaved, Finished, Learned, Started
from napari_tileseg.training.unsupervised.images import Images, gather, read_images, read_masks
from napari_tileseg.training.unsupervised.log import UnsupervisedLog
from napari_tileseg.training.unsupervised.loop import Checkpoint, learn
from napari_tileseg.training.unsupervised.reconstruction import Reconstruction
from napari_tileseg.training.unsupervised.threshold import residuals
from napari_tileseg.training.unsupervised.tiles import Tiles, split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import nn

    from napari_tileseg.training.unsupervised.events import UnsupervisedEvent
    from napari_tileseg.training.unsupervised.loop import Stage
    from napari_tileseg.training.unsupervised.tiles import Part
    from napari_tileseg.volume import Volume

__all__ = ["stages_of", "train_unsupervised", "unfinished_file"]

_NO_MATTER = {"name", "output", "images", "labels", "device", "log", "report_every", "checkpoint_every", "kind"}
"""What a training may be resumed with another value of; the images themselves are compared besides."""


def train_unsupervised(
    config: UnsupervisedConfig,
    *,
    volumes: Sequence[Volume] | None = None,
    masks: Sequence[Volume] | None = None,
    resume: bool = True,
    overwrite: bool = False,
    keep: bool = False,
    on_event: Callable[[UnsupervisedEvent], None] | None = None,
    cancel: Callable[[], bool] | None = None,
) -> ModelSpec:
    """Train a model without labels, and put it among the other models.

    An autoencoder, a VAE or a GAN (with the encoder of f-AnoGAN) that has seen normal images becomes a model of output
    ``"anomaly"``; its threshold comes from images that were held out. A GAN that has seen images with masks makes pairs.

    Parameters
    ----------
    config : UnsupervisedConfig
    volumes : sequence of Volume, optional
        Images instead of ``config.images``.
    masks : sequence of Volume, optional
        Their masks instead of ``config.labels``.
    resume : bool
        Go on where a training of the same images and options was interrupted; its state lies beside the model.
    overwrite : bool
        Whether a model that is already there may be replaced.
    keep : bool
        Whether a training that is stopped leaves a model of what was learnt until then; the same call goes on all the same.
    on_event : callable, optional
        Receives every event.
    cancel : callable, optional
        Asked after every step.

    Returns
    -------
    ModelSpec
        As written.

    Raises
    ------
    InputError
        If there are no images, or they do not suit each other, the tile or their masks.
    OptionsError
        If masks are given for a network that does not learn them.
    OutputError
        If there is a model already, or it cannot be written.
    Cancelled
        Stopped, without `keep`; the same call goes on.
    RunError
        If the loss is no number any more.
    """
    tell, stop = on_event or (lambda event: None), cancel or (lambda: False)
    began = time.monotonic()
    place = config.place
    unfinished = unfinished_file(place)
    _check_may_begin(place, overwrite=overwrite or (resume and unfinished.is_file()))
    images = _images(config, volumes, masks)
    paired = images.parts[0].masks is not None
    if paired and not config.adversarial:
        raise OptionsError(f"Masks are learnt by {', '.join(ADVERSARIAL)} only. Choose one of these, or give no masks.")
    train, held = (images.parts, []) if paired else split(images.parts, config.held_out, config.tile, config.seed)
    spec = _spec(config, images, paired=paired)
    device = pick_device(config.device)
    network = _network(spec, config.seed).to(device)
    stages = stages_of(config)
    tell(Started(len(images.names), tuple(dict.fromkeys(part.name for part in held)), images.left_out, stages))
    classes = len(config.classes) if paired else 0
    tiles = Tiles(train, config.tile, batch=config.batch, classes=classes, flips=config.flips, seed=config.seed)
    checkpoint = Checkpoint(unfinished, _identity(config, images))
    if not resume:
        checkpoint.remove()
    losses: dict[str, dict[str, float]] = {}
    reached: CheckpointSaved | None = None
    stopped = False
    try:
        with UnsupervisedLog(config.log, config.name, stages) as log:
            for event in _train(network, tiles, config, stages, checkpoint, device, stop):
                if isinstance(event, Learned):
                    losses[event.stage] = {name: round(value, 6) for name, value in event.losses.items()}
                if isinstance(event, CheckpointSaved):
                    reached = event
                log.tell(event)
                tell(event)
    except Cancelled:
        if not keep:
            raise
        stopped = True
    network.eval().requires_grad_(False)
    facts = _facts(config, images, losses, reached if stopped else None)
    if not paired:
        spec, told = _with_threshold(spec, network, held, config, device, never if stopped else stop)
        facts |= told
    spec = write_package(place, spec.model_copy(update={"training": facts}), network.state_dict(), card=_card(spec, config, facts))
    if not stopped:
        checkpoint.remove()
    tell(Finished(spec, place, time.monotonic() - began, stopped))
    return spec


def unfinished_file(place: Path) -> Path:
    """Return the file beside a model from which its training goes on."""
    return place.with_name(f".{place.name}.training.pt")


def _check_may_begin(place: Path, *, overwrite: bool) -> None:
    if launched() > 1:
        raise OptionsError("Without labels, one process learns. Start it without torchrun.")
    if place.exists() and not overwrite:
        raise OutputError(f'There is a model at "{place}" already. Choose another name, or replace it.')


def _network(spec: ModelSpec, seed: int) -> nn.Module:
    """Build the network; its first weights follow from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: nn.Module = build_network(spec.architecture, **spec.arguments)
    return network


def _facts(
    config: UnsupervisedConfig, images: Images, losses: dict[str, dict[str, float]], stopped: CheckpointSaved | None
) -> dict[str, Any]:
    """Return what the card says of the training; `stopped` is how far one came that was not finished."""
    stages = stages_of(config)
    facts: dict[str, Any] = {
        "images": len(images.names),
        "tiles": config.batch * sum(steps for _, steps in stages),
        "options": config.model_dump(mode="json", exclude={"output", "images", "labels", "device", "log"}),
        "losses": losses,
    }
    if stopped is not None:
        facts["stopped"] = f"after {stopped.step} of {dict(stages)[stopped.stage]} steps of the {stopped.stage}"
    return facts


def _with_threshold(
    spec: ModelSpec, network: nn.Module, held: Sequence[Part], config: UnsupervisedConfig, device: str, cancel: Callable[[], bool]
) -> tuple[ModelSpec, dict[str, int]]:
    """Return the card with the score that is too high, a percentile of those of normal images held out; and how many there were."""
    normal = residuals(held, from_module(network, spec, device=device), median=config.median, seed=config.seed, cancel=cancel)
    limit = max(float(np.percentile(normal, config.percentile)), 1e-6)
    card = spec.model_copy(update={"decoder_parameters": {**spec.decoder_parameters, "threshold": limit}})
    return card, {"held_out": len({part.name for part in held}), "held_out_pixels": len(normal)}


def _images(config: UnsupervisedConfig, volumes: Sequence[Volume] | None, masks: Sequence[Volume] | None) -> Images:
    if volumes is not None:
        return gather(volumes, config, masks=masks)
    paths, found, left_out = read_images(config)
    return gather(found, config, masks=read_masks(config, paths) if config.labels else masks, left_out=left_out)


def stages_of(config: UnsupervisedConfig) -> tuple[tuple[str, int], ...]:
    """Return the names of what learns, and the steps of each."""
    if config.adversarial:
        return ((Adversarial.name, config.steps), (Inversion.name, config.encoder_steps or config.steps))
    return ((Reconstruction.name, config.steps),)


def _stage(name: str, network: nn.Module, config: UnsupervisedConfig) -> Stage:
    if isinstance(network, AnomalyMap):
        return Reconstruction(network, config.rate)
    assert isinstance(network, FAnoGAN)
    if name == Inversion.name:
        return Inversion(network, config.rate, config.kappa)
    return Adversarial(network, AdversarialLoss("least_squares" if config.network == "lsgan" else "bce"), config.rate)


def _train(
    network: nn.Module,
    tiles: Tiles,
    config: UnsupervisedConfig,
    stages: tuple[tuple[str, int], ...],
    checkpoint: Checkpoint,
    device: str,
    cancel: Callable[[], bool],
) -> Iterator[UnsupervisedEvent]:
    """Go through the stages, from the beginning or from the checkpoint."""
    saved = checkpoint.load(device)
    if saved is not None:
        network.load_state_dict(saved["network"])
    before = saved["stage"] if saved else 0
    for number, (name, steps) in enumerate(stages):
        if number < before:
            continue
        stage = _stage(name, network, config)
        first = 0
        if saved is not None and number == before:
            stage.load(saved["of_stage"])
            first = saved["step"]
        offset = sum(count for _, count in stages[:number])
        yield from learn(
            network,
            stage,
            lambda step, offset=offset: tiles(offset + step),  # type: ignore[misc]
            config,
            steps=steps,
            number=number,
            first=first,
            checkpoint=checkpoint,
            cancel=cancel,
        )


def _spec(config: UnsupervisedConfig, images: Images, *, paired: bool) -> ModelSpec:
    arguments: dict[str, Any] = {"in_channels": len(images.channels), **config.arguments}
    if config.network != "conv_autoencoder":
        arguments["size"] = list(config.tile)
    if config.adversarial:
        architecture = "paired_generator" if paired else "f_anogan"
        arguments |= {"network": ADVERSARIAL[config.network]} | ({"classes": len(config.classes)} if paired else {})
    else:
        architecture = "anomaly_autoencoder"
        arguments |= {"network": config.network, "residual": config.residual}
    what = "Makes images with masks" if paired else "Marks what it has not seen in normal images"
    fields: dict[str, Any] = {
        **tiling(architecture, arguments),
        "name": config.name,
        "title": config.name,
        "description": f"{what}; learnt without labels by {config.network}." if not paired else f"{what}; learnt by {config.network}.",
        "architecture": architecture,
        "arguments": arguments,
        "axes": "CYX",
        "channels": list(images.channels),
        "normalization": images.normalization,
        "grey": "repeat" if images.grey else "refuse",
        "window": config.tile,
        "overlap": config.overlap,
    }
    if paired:
        return ModelSpec(**fields, output="softmax", classes=list(config.classes))
    parameters = {"threshold": 1.0, "median": config.median, "min_size": config.min_size}
    return ModelSpec(**fields, output="anomaly", classes=["normal", "anomaly"], colors=["#e41a1c"], decoder_parameters=parameters)


def _identity(config: UnsupervisedConfig, images: Images) -> str:
    """Return a digest of what decides the result."""
    options = config.model_dump(mode="json", exclude=_NO_MATTER)
    seen = [(part.name, part.shape, part.masks is not None) for part in images.parts]
    return hashlib.sha256(json.dumps([options, seen, images.channels]).encode()).hexdigest()


def _card(spec: ModelSpec, config: UnsupervisedConfig, facts: dict[str, Any]) -> str:
    """Return the text of the model's card."""
    lines = [
        f"# {spec.label}",
        "",
        spec.description,
        "",
        f"- Network: {config.network}, tiles of {config.tile[0]} x {config.tile[1]} pixels, {len(spec.channels)} channels",
        f"- Learnt from {facts['images']} images in {config.steps} steps of {config.batch} tiles, seed {config.seed}",
    ]
    if spec.output == "anomaly":
        lines += [
            f"- Threshold {spec.decoder_parameters['threshold']:.4g}: {config.percentile:g} % of the {facts['held_out_pixels']} pixels of "
            f"{facts['held_out']} held-out images lie below it, after a median of {config.median} pixels",
            f"- Places of fewer than {config.min_size} pixels are left out",
        ]
    if "stopped" in facts:
        lines.append(f"- Stopped {facts['stopped']}")
    for stage, losses in facts["losses"].items():
        lines.append(f"- Last losses of the {stage}: {', '.join(f'{name} {value:.4g}' for name, value in losses.items())}")
    if spec.architecture != "anomaly_autoencoder" or config.network == "vae":
        lines.append("- Makes new images: `tileseg generate`")
    lines += ["", "For research use; no medical device."]
    return "\n".join(lines) + "\n"
