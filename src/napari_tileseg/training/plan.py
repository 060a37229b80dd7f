"""``Plan``: everything that a training needs to know, derived from the data where the config leaves it open."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_tileseg.engine.backends import computes_bfloat16
from napari_tileseg.errors import ModelError, OptionsError
from napari_tileseg.models.nets import accepted_arguments
from napari_tileseg.models.nets.tiling import tiling
from napari_tileseg.models.registry import find_spec
from napari_tileseg.models.sides import next_side, previous_side
from napari_tileseg.models.spec import ModelSpec, Normalization
from napari_tileseg.training.augment import Augmentation
from napari_tileseg.training.colours import RGB
from napari_tileseg.training.intensities import is_raw, limits, usual_range
from napari_tileseg.training.losses import LOSSES
from napari_tileseg.training.object_networks import NEW, new_card, seen_at
from napari_tileseg.training.object_targets import targets_of
from napari_tileseg.training.options import FitOptions
from napari_tileseg.training.refusal import OBJECTS, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from napari_tileseg.training.config import Strengths, TrainConfig
    from napari_tileseg.training.report import Report

__all__ = ["Plan", "make_plan"]

_SIDE = {2: 256, 3: 64}
_BATCH = {2: 8, 3: 2}
_STEPS = (10, 250)
_UNKNOWN_MULTIPLE = {2: 32, 3: 16}
_LEAST_DEPTH = 8
_WITHOUT_LABELS = ("autoencoder", "conv_autoencoder", "vae", "gan", "dcgan")
_DECODER = {"foreground_bias": 0.2, "border_weight": 0.25, "depth": 0.3, "min_size": 10.0, "min_score": 0.7, "min_height": 0.3}


@dataclass(frozen=True)
class Plan:
    """What is going to be trained and how.

    Parameters
    ----------
    spec : ModelSpec
        The model as it will be, without weights.
    size : tuple of int
        A crop.
    batch : int
    epoch_steps : int
    loss : str
    learning_rate : float
    augmentation : Augmentation
    """

    spec: ModelSpec
    size: tuple[int, ...]
    batch: int
    epoch_steps: int
    loss: str
    learning_rate: float
    augmentation: Augmentation

    def settings(self) -> dict[str, Any]:
        """Return what was chosen, ready for JSON."""
        spec = self.spec
        spacing = None if spec.spacing is None else " x ".join(f"{size:.4g}" for size in spec.spacing) + f" {spec.spacing_unit}"
        found = {
            "network": spec.architecture,
            "arguments": spec.arguments,
            "axes": spec.axes,
            "window": list(self.size),
            "batch": self.batch,
            "epoch_steps": self.epoch_steps,
            "loss": self.loss,
            "learning_rate": self.learning_rate,
            "normalization": spec.normalization.model_dump(mode="json", exclude_defaults=True) or {"kind": "none"},
            "spacing": spacing,
            "classes": spec.classes,
            "task": {"instances": "instances", "sigmoid": "overlapping", "regions": "overlapping"}.get(spec.output, "classes"),
            "augmentation": asdict(self.augmentation),
        }
        plain: dict[str, Any] = json.loads(json.dumps(found))
        return plain

    @property
    def channels(self) -> int | None:
        """Channels that a crop must have; None: those of the images, because the network takes fewer as they are."""
        return None if self.spec.grey == "fewer" else len(self.spec.channels)

    def loss_arguments(self, config: TrainConfig) -> dict[str, Any]:
        """Return the arguments of the loss: the config's, and what follows from the model's card."""
        own = targets_of(self.spec).arguments(self.spec) if self.spec.output == "instances" else {}
        return {**config.loss_arguments, **own}

    def fit_options(self, config: TrainConfig, device: str) -> FitOptions:
        """Return how the network is trained on a device."""
        precision = config.precision
        if precision == "auto":
            precision = "bfloat16" if device.startswith("cuda") and computes_bfloat16(device) else "float32"
        steps = config.epochs * self.epoch_steps
        return FitOptions(
            steps=steps,
            learning_rate=self.learning_rate,
            decay=config.weight_decay,
            warmup=config.warmup,
            clip=config.clip,
            average=config.average,
            checkpoint_every=steps + 1,
            precision=precision,
            seed=config.seed,
            optimizer=config.optimizer,
            momentum=config.momentum,
            schedule=config.schedule,
            accumulation=config.accumulation,
            epoch_steps=self.epoch_steps,
        )


def make_plan(config: TrainConfig, report: Report, name: str) -> Plan:
    """Settle what the config leaves open.

    Parameters
    ----------
    config : TrainConfig
    report : Report
        Of its data.
    name : str
        Of the model.

    Raises
    ------
    OptionsError, ModelError
        If what was asked for does not go together, or with the data.
    """
    start = find_spec(config.start) if config.start else None
    if start is not None:
        _check_start(start, config)
    elif config.freeze != "none":
        raise OptionsError("A new network has learnt nothing yet that could be frozen. Start from a model, or freeze nothing.")
    dims = _dimensions(config, report, start)
    try:
        spec = _spec(config, report, name, dims, start)
    except ValidationError as error:
        reason = str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
        raise OptionsError(f"The model cannot be made so: {reason}. Choose another window or network.") from None
    if config.loss != "auto" and spec.output != "instances" and config.loss not in LOSSES:
        raise OptionsError(f'There is no loss "{config.loss}". Use one of {", ".join(LOSSES)}.')
    own = targets_of(spec).loss if spec.output == "instances" else "ce_dice"
    if spec.output == "instances" and config.loss not in ("auto", own):
        raise OptionsError(f'The loss "{config.loss}" is for classes. Objects have their own: leave it at auto.')
    if config.adversarial and spec.output == "instances" and spec.decoder != OBJECTS:
        raise OptionsError(f"The adversarial term cannot judge what {spec.label} finds objects by. Leave it at 0.")
    if config.loss == "lovasz_hinge" and spec.output != "instances" and len(spec.score_names) > 2:
        raise OptionsError("The loss lovasz_hinge compares a mask with what lies around it. For three or more classes use lovasz_softmax.")
    size, lost = _crop(config, report, spec), spec.output_offset or (0,) * dims
    batch = config.batch or max(1, min(_BATCH[dims], round(_BATCH[dims] * _SIDE[dims] ** dims / math.prod(size))))
    given = math.prod(length - 2 * less for length, less in zip(size, lost, strict=True))
    pixels = sum(math.prod(_spatial(report, item, "ZYX")) for item in report.train)
    steps = math.ceil(pixels / (given * batch * config.accumulation))
    rate = config.learning_rate or {"adamw": 1e-3, "sgd": 1e-2}[config.optimizer] * _slower(start)
    return Plan(
        spec,
        size,
        batch,
        config.epoch_steps or min(max(steps, _STEPS[0]), _STEPS[1]),
        config.loss if config.loss != "auto" else own,
        rate,
        _augmentation(config.augmentation, size, spec, report),
    )


def _slower(start: ModelSpec | None) -> float:
    """Return by how much a network is trained more slowly than a new one; a transformer forgets what it knows at usual rates."""
    return 1.0 if start is None else 0.05 if start.architecture == "cellpose_sam" else 0.3


def _check_start(start: ModelSpec, config: TrainConfig) -> None:
    reason = refusal(start)
    if reason:
        raise ModelError(f"{start.label} cannot be trained further: {reason}. Start from another model.")
    if "network" in config.model_fields_set and config.network != start.architecture:
        raise OptionsError(f"{start.label} has the network {start.architecture}. Leave the network out, or start from nothing.")


def _dimensions(config: TrainConfig, report: Report, start: ModelSpec | None) -> int:
    facts = report.typical
    deep = "Z" in facts.axes
    if start is not None:
        dims = start.spatial_ndim
    elif config.dimensions != "auto":
        dims = int(config.dimensions)
    elif config.window is not None:
        dims = len(config.window)
    elif isinstance(config.arguments.get("spatial_dims"), int):
        dims = config.arguments["spatial_dims"]
    elif "spatial_dims" not in accepted_arguments(config.network) and not config.network.startswith("monai."):
        dims = 2
    else:
        depths = [fact.sizes.get("Z", 1) for fact in report.facts]
        dims = 3 if deep and all(fact.depth_known for fact in report.facts) and median(depths) >= _LEAST_DEPTH else 2
    if dims == 3 and not deep:
        raise OptionsError(
            f"The images have the axes {facts.axes}, so they cannot be learnt as volumes. Name the depth axis Z, or choose 2."
        )
    return dims


def _spec(config: TrainConfig, report: Report, name: str, dims: int, start: ModelSpec | None) -> ModelSpec:
    axes = start.axes if start is not None else "CYX" if dims == 2 else "CZYX"
    instances = report.task == "instances"
    heads = ["foreground", "border", "distance"] if instances else []
    outputs = len(heads) or len(report.classes)
    if start is not None and start.output == "instances" and start.decoder != OBJECTS:
        return _kept(config, start, report, name)
    told: dict[str, Any] = {
        "name": name,
        "title": "",
        "description": "",
        "version": "1",
        "classes": list(report.classes),
        "colors": [],
        "output": {"instances": "instances", "overlapping": "sigmoid"}.get(report.task, "softmax"),
        "heads": heads,
        "decoder": OBJECTS if instances else "",
        "decoder_parameters": dict(_DECODER) if instances else {},
        "mirror_axes": "".join(
            axis
            for axis in axes[1:]
            if (config.augmentation.flips if axis != "Z" else config.augmentation.flips_z) and config.augmentation.flips
        ),
        "overlap": 0.25 if dims == 2 else 0.5,
    }
    if start is not None:
        return _continued(config, start, told, outputs)
    network = config.network
    if network.startswith(_WITHOUT_LABELS):
        raise OptionsError(
            f'The network "{network}" learns from images alone. Choose one for segmentation, such as residual_unet or unet2015.'
        )
    facts = report.typical
    names = list(facts.channel_names) if len(facts.channel_names) == report.channels else report.channels
    if names == 3 and (facts.dtype == "uint8" or report.grey):
        names = list(RGB)
    grey = {"grey": "repeat"} if report.grey else {}
    spacing, unit = _spacing(config, report, axes[1:])
    if network in NEW:
        if not instances:
            raise OptionsError(f'The network "{network}" finds objects one by one. Say that labels are objects, or choose another network.')
        card = {"spacing": spacing, "spacing_unit": unit, **new_card(config, report, dims, spacing), "channels": names, **grey}
        return ModelSpec.model_validate(told | card | ({"normalization": config.normalization} if config.normalization else {}))
    arguments = _arguments(config, report, network, dims, outputs)
    rules = tiling(network, arguments) or {"multiple_of": _multiple(arguments, dims), "padding": "reflect"}
    lost = rules.get("output_offset", (0,) * dims)
    multiple, remainder = rules.get("multiple_of", 1), rules.get("remainder", 0)
    window = _window(config, report, axes[1:], multiple, remainder, lost)
    if "img_size" in accepted_arguments(network) and "img_size" not in arguments:
        arguments["img_size"] = list(window)
    return ModelSpec(
        **told
        | {key: value for key, value in rules.items() if key not in ("window", "multiple_of", "remainder", "overlap")}
        | {"overlap": rules.get("overlap", told["overlap"])}
        | grey,
        architecture=network,
        arguments=arguments,
        axes=axes,
        channels=names,
        normalization=config.normalization or _normalization(report),
        spacing=spacing,
        spacing_unit=unit,
        window=window,
        multiple_of=multiple,
        remainder=remainder,
    )


def _continued(config: TrainConfig, start: ModelSpec, told: dict[str, Any], outputs: int) -> ModelSpec:
    """Change the card of a model to what it is going to be."""
    if config.window is not None:
        told["window"] = config.window
    if config.normalization is not None:
        told["normalization"] = config.normalization
    del told["overlap"]
    chosen = {"flips", "flips_z"} & config.augmentation.model_fields_set
    if start.mirror_axes is not None and start.output != "instances" and not chosen:
        told["mirror_axes"] = start.mirror_axes  # along other axes it may have learnt that sides differ
    if start.output == "regions" and told["output"] == "sigmoid" and told["classes"] == start.heads:
        told |= {"output": "regions", "classes": start.classes, "heads": start.heads}
    else:
        told |= {"region_values": (), "region_labels": ()}
    same = start.output == told["output"] and len(start.score_names) == outputs
    if same and start.output == "instances":
        told["decoder_parameters"] = start.decoder_parameters
        told["heads"] = start.heads
    values = start.model_dump() | told
    results = "num_classes" if "num_classes" in start.arguments else "out_channels"
    values |= {"arguments": start.arguments | {results: outputs}, "training": {}, "weights_sha256": "", "unknown": [], "members": []}
    values |= {} if told["mirror_axes"] else {"tta": False}
    values |= {"licence": start.licence, "attribution": start.attribution, "loader": "", "source": "", "source_options": {}}
    return ModelSpec.model_validate(values)


def _kept(config: TrainConfig, start: ModelSpec, report: Report, name: str) -> ModelSpec:
    """Return the card of a model whose network gives what its own decoder wants, and nothing else: most of it stays."""
    if report.task != "instances":
        raise OptionsError(
            f"{start.label} finds objects one by one, and the labels are taken for classes. Say that they are objects (instances), or "
            "start from another model."
        )
    told: dict[str, Any] = {"name": name, "title": "", "description": "", "version": "1"}
    told |= {"classes": list(config.classes), "colors": []} if config.classes else {}
    fresh = {"training": {}, "weights_sha256": "", "unknown": [], "loader": "", "source": "", "source_options": {}}
    changed = {"normalization": config.normalization} if config.normalization is not None else {}
    return ModelSpec.model_validate(start.model_dump() | told | fresh | seen_at(start, config, report) | changed)


def _crop(config: TrainConfig, report: Report, spec: ModelSpec) -> tuple[int, ...]:
    """Return the size of a crop: a tile, but where tiles are large because neighbours overlap far."""
    if spec.decoder in ("", OBJECTS) or spec.fixed_window:
        return spec.window
    if config.window is None:
        size = _window(config, report, spec.spatial_axes, math.lcm(*spec.multiples), 0, (0,) * spec.spatial_ndim)
        return tuple(min(side, most) for side, most in zip(size, spec.window, strict=True))
    if len(config.window) != spec.spatial_ndim or any(side % step for side, step in zip(config.window, spec.multiples, strict=True)):
        steps = " x ".join(map(str, spec.multiples))
        raise OptionsError(f"The window {config.window} must be made of multiples of {steps}, one number for each axis of space.")
    return config.window


def _arguments(config: TrainConfig, report: Report, network: str, dims: int, outputs: int) -> dict[str, Any]:
    accepted = accepted_arguments(network)
    arguments = dict(config.arguments)
    if "spatial_dims" in accepted:
        arguments.setdefault("spatial_dims", dims)
    inputs, results = ("input_channels", "num_classes") if "input_channels" in accepted else ("in_channels", "out_channels")
    arguments |= {inputs: report.channels, results: outputs}
    if network == "residual_unet":
        arguments.setdefault("channels", [32, 64, 96, 128] if dims == 2 else [32, 64, 96])
        arguments.setdefault("stem_channels", 16)
    if network in ("monai.UNet", "monai.AttentionUnet"):
        arguments.setdefault("channels", [16, 32, 64, 128])
        arguments.setdefault("strides", [2] * (len(arguments["channels"]) - 1))
    return arguments


def _multiple(arguments: dict[str, Any], dims: int) -> int:
    strides = arguments.get("strides")
    if isinstance(strides, list):
        each = [[step] * dims if isinstance(step, int) else list(step) for step in strides]
        return int(max(math.prod(steps) for steps in zip(*each, strict=True)))
    return _UNKNOWN_MULTIPLE[dims]


def _window(config: TrainConfig, report: Report, axes: str, multiple: int, remainder: int, lost: Sequence[int]) -> tuple[int, ...]:
    dims = len(axes)
    if config.window is not None:
        if len(config.window) != dims:
            raise OptionsError(f"The window {config.window} must have one number for each of the axes {axes}.")
        return config.window
    sizes = [_spatial(report, item, axes) for item in report.train]
    typical = [max(1, int(median(side))) for side in zip(*sizes, strict=True)]
    wanted = [min(side, 4 * _SIDE[dims]) for side in typical]
    if min(wanted) >= _SIDE[dims]:
        wanted = [_SIDE[dims]] * dims
    while math.prod(wanted) > _SIDE[dims] ** dims:
        longest = max(range(dims), key=lambda axis: wanted[axis])
        wanted[longest] = max(1, wanted[longest] - max(multiple, 8))
    window = []
    for side, whole, less in zip(wanted, typical, lost, strict=True):
        # An image that is nearly a multiple is seen whole; a crop of a larger one is cut to a multiple.
        take = next_side if side == whole or less else previous_side
        window.append(take(side + 2 * less, multiple, remainder))
    return tuple(window)


def _spatial(report: Report, item: Any, axes: str) -> list[int]:
    facts = report.of(item)
    spatial = [axis for axis in facts.axes if axis in "ZYX"]
    spans = dict(zip(spatial, item.box, strict=True)) if item.box else {}
    return [spans[axis][1] - spans[axis][0] if axis in spans else facts.sizes[axis] for axis in axes if axis in facts.sizes]


def _normalization(report: Report) -> Normalization:
    facts = report.typical
    low = min(fact.low for fact in report.facts)
    if facts.medical and low <= -500 and max(fact.high for fact in report.facts) > 300:
        return Normalization(kind="range", low=-1000.0, high=1000.0, clip=(-0.1, 1.5))  # Hounsfield units mean the same in every image
    if facts.medical:
        return Normalization(kind="zscore", clip=(-4.0, 6.0))
    return Normalization(kind="percentile", lower=1.0, upper=99.8, joint=report.channels == 3, clip=(-0.2, 1.5))


def _spacing(config: TrainConfig, report: Report, axes: str) -> tuple[tuple[float, ...] | None, str]:
    if config.spacing is not None:
        if len(config.spacing) != len(axes):
            raise OptionsError(f"The pixel size {config.spacing} must have one number for each of the axes {axes}.")
        return config.spacing, config.spacing_unit
    known = [[fact.spacing[axis] for axis in axes] for fact in report.facts if fact.spacing]
    if len(known) < len(report.facts):
        return None, "micrometer"
    middle = [median(values) for values in zip(*known, strict=True)]
    if min(middle) >= 100:
        return tuple(float(f"{size / 1000:.4g}") for size in middle), "millimeter"
    return tuple(float(f"{size:.4g}") for size in middle), "micrometer"


def _flips(strengths: Strengths, spec: ModelSpec) -> tuple[bool, ...]:
    """Return the axes along which crops are mirrored; of objects, what is learnt of them is mirrored too, whatever a card says."""
    if spec.mirror_axes is not None and spec.output != "instances":
        return tuple(axis in spec.mirror_axes for axis in spec.spatial_axes)
    return tuple(strengths.flips and (axis != "Z" or strengths.flips_z) for axis in spec.spatial_axes)


def _augmentation(strengths: Strengths, size: tuple[int, ...], spec: ModelSpec, report: Report) -> Augmentation:
    s, plane = strengths, len(size) == 2
    zoom = math.exp(0.223 * s.scaling)
    facts = [report.of(item) for item in report.train]
    low, high = usual_range(spec.normalization, min(fact.low for fact in facts), max(fact.high for fact in facts))
    span, raw = high - low, is_raw(spec.normalization)
    return Augmentation(
        size=size,
        zoom=(1 / zoom, zoom),
        rotation=min(180.0, 180.0 * s.rotation) if plane else 15.0 * s.rotation,
        rotation_share=0.3 * min(1.0, s.rotation) if plane else 0.5 * min(1.0, s.rotation),
        elastic=1.5 * s.elastic,
        elastic_share=0.4 if s.elastic else 0.0,
        right_angles=s.right_angles and plane,
        flips=_flips(strengths, spec),
        gamma=0.0 if raw else 0.3 * s.gamma,  # a power of numbers that may be thousands would be another image
        contrast=0.2 * s.intensity,
        brightness=0.05 * s.intensity * span,
        noise=0.05 * s.noise * span,
        blur=1.0 * s.blur,
        blur_share=0.15 if s.blur else 0.0,
        stain=0.2 * s.stain if len(spec.channels) == 3 else 0.0,
        clip=limits(spec.normalization),
        padding=spec.padding,
    )
