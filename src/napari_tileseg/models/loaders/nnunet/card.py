"""The card of a trained nnU-Net: everything that its preprocessing, its predictor and its export do, as a ``ModelSpec``."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.checksum import checksum
from napari_tileseg.models.loaders.nnunet.architecture import letters, own_network
from napari_tileseg.models.loaders.nnunet.checkpoint import read_header
from napari_tileseg.models.loaders.nnunet.plans import Labels, Plans, read_labels
from napari_tileseg.models.loaders.nnunet.primus import NAMES, network_of
from napari_tileseg.models.loaders.nnunet.results import Choice, Results, choose, find_stage
from napari_tileseg.models.resampling import Interpolation, Resampling
from napari_tileseg.models.spec import ModelSpec, Normalization, PreviousStage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["describe", "pack", "read_spec"]

_SAME = 1e-8
"""Least standard deviation that nnU-Net divides by."""

_LENGTHS = {"SimpleITKIO", "NibabelIO", "SimpleITKIOWithReorient", "NibabelIOWithReorient"}
"""Readers whose spacing is in millimetres; files of the others hold none, or in any unit."""

_TURNING = ("SimpleITKIOWithReorient", "NibabelIOWithReorient")
"""Readers that turn every volume so that X leads to the right, Y to the front and Z upwards."""

_SAMPLERS = {
    "resample_data_or_seg_to_shape": "spline",
    "resample_data_or_seg": "spline",
    "resample_torch_fornnunet": "torch",
    "resample_torch_simple": "torch",
    "no_resampling_hack": "none",
    "no_resampling_data_or_seg_to_shape": "none",
}


def read_spec(path: Path, **options: str) -> ModelSpec:
    """Return the card of the model that a path and options mean; neither torch nor weights are read.

    Parameters
    ----------
    path : Path
        A results folder at any level, or an export.
    **options
        See `choose`.

    Raises
    ------
    ModelError
        If there is none, or it does what cannot be done here.
    """
    results = Results(path)
    return _card(results, choose(results, **options), path)


def _card(results: Results, choice: Choice, path: Path) -> ModelSpec:
    """Return the card of one trained model, and in it that of the first stage where it is the second."""
    header = read_header(results.file(choice.checkpoints[0]))
    dataset = results.json(choice.trained.path("dataset.json"))
    told = header.get("init_args")
    configuration = str(told.get("configuration") or "") if isinstance(told, dict) else ""
    plans = Plans(results.json(choice.trained.path("plans.json")), dataset, configuration or choice.trained.configuration)
    files = [results.file(name) for name in choice.checkpoints]
    before = None
    if plans.previous_stage:
        place, stage = find_stage(results, choice, plans.previous_stage)
        before = _card(place, stage, path)
        files += [place.file(name) for name in stage.checkpoints]
    try:
        spec = describe(plans, read_labels(dataset), choice, header, before)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ModelError(f"The plans of {choice.trained.dataset} cannot be used: {where}: {first['msg']}.") from None
    except (KeyError, TypeError, ValueError, IndexError) as error:
        reason = printable(str(error)) or type(error).__name__
        raise ModelError(f"The plans of {choice.trained.dataset} are not what nnU-Net writes ({reason}). Get the model again.") from None
    return spec.model_copy(update={"weights_sha256": checksum(files, path)})


def pack(path: Path, **options: str) -> tuple[Path, list[Path], dict[str, str]]:
    """Return what a copy of the model that a path and options mean must hold: its folds, and both stages of a cascade.

    Returns
    -------
    root : Path
        The zip; or the folder that all files are in.
    files : list of Path
    options : dict of str to str
        Which mean the same model in a folder with these files alone.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    results = Results(path)
    if not path.is_dir():
        return path, [path], options
    choice = choose(results, **options)
    stages = [(results, choice)]
    if (before := read_spec(path, **options).previous) is not None:
        stages.append(find_stage(results, choice, str(before.model.training["configuration"])))
        options = {**options, "configuration": choice.trained.configuration}
    elif not choice.trained.folder:  # a copy has no folder whose name says these
        options = {name: value for name, value in options.items() if name not in ("configuration", "trainer", "plans")}
    root = stages[-1][0].root.absolute()  # of a stage whose first one lies beside it: the folder of both
    files = [
        place.root.absolute() / name
        for place, stage in stages
        for name in (*(stage.trained.path(name) for name in ("plans.json", "dataset.json")), *stage.checkpoints)
    ]
    return root, files, options


def describe(plans: Plans, labels: Labels, choice: Choice, header: Mapping[str, Any], first: ModelSpec | None = None) -> ModelSpec:
    """Return the card of one configuration; of the second stage of a cascade with the card of the first."""
    _refuse(plans)
    axes = letters(plans)
    mirrored = header.get("inference_allowed_mirroring_axes") or ()
    trainer = str(header.get("trainer_name") or choice.trained.trainer)
    dataset = plans.name or choice.trained.dataset
    many = f"fold{'s' * (len(choice.folds) > 1)} {', '.join(choice.folds)}"
    dotted, arguments = network_of(plans, trainer)
    weights = header.get("network_weights") or ()
    own = None if first else own_network(plans, trainer, weights, len(plans.channels), len(labels.heads))
    unknown = ["licence", "attribution", "citation"]
    spacing = _by_letter(axes, plans["spacing"]) if plans.reader in _LENGTHS else None
    return ModelSpec(
        name=re.sub(r"[^A-Za-z0-9._-]+", "-", f"{dataset}-{plans.configuration}").strip("-._") or "nnunet",
        title=f"{dataset} {plans.configuration}",
        description=f"nnU-Net, {plans.configuration}, {many}, {choice.checkpoint.removesuffix('.pth')}.",
        architecture=own[0] if own else "",
        arguments=own[1] if own else {},
        axes="C" + "".join(sorted(axes, key="ZYX".index)),
        channels=plans.channels,
        normalization=Normalization(kind="channels", channels=_rules(plans)),
        spacing=None if _sampler(plans, "data") == "none" else spacing,
        spacing_unit="millimeter",
        resampling=Resampling(tolerance=0, image=_interpolation(plans, "data"), scores=_interpolation(plans, "probabilities")),
        orientation="SAR" if plans.reader in _TURNING else "",
        crop="nonzero",
        window=_by_letter(axes, plans["patch_size"]),
        multiple_of=_by_letter(axes, _multiples(plans["patch_size"], arguments.get("strides"))),
        fixed_window=dotted in NAMES,
        overlap=0.5,
        steps="even",
        blending="nnunet",
        mirror_axes="".join(sorted((axes[int(axis)] for axis in mirrored), key="ZYX".index)),
        tta="flips" if mirrored else False,
        output="regions" if labels.region_values else "softmax",
        classes=labels.classes,
        heads=labels.heads if labels.region_values else [],
        region_values=labels.region_values,
        region_labels=labels.region_labels,
        training={
            "framework": "nnU-Net v2",
            "dataset": dataset,
            "trainer": trainer,
            "plans": choice.trained.plans,
            "configuration": plans.configuration,
            "folds": list(choice.folds),
            "checkpoint": choice.checkpoint,
            "spacing": list(plans["spacing"]),
            **({} if labels.ignored is None else {"ignored": labels.ignored}),
        },
        previous=_previous(plans, labels, first) if first else None,
        unknown=unknown if spacing else [*unknown, "spacing"],
        members=[{"name": f"fold_{fold}", "version": "1", "weights_sha256": ""} for fold in choice.folds] if len(choice.folds) > 1 else [],
    )


def _refuse(plans: Plans) -> None:
    """Say what nnU-Net would do here and this program does not."""
    preprocessor = plans.get("preprocessor_name", "DefaultPreprocessor")
    for what, name, known in (
        ("preprocesses with", preprocessor, "DefaultPreprocessor"),
        ("reads labels with", plans.label_manager, "LabelManager"),
    ):
        if name != known:
            raise ModelError(f'This model {what} "{printable(str(name))}", code of its own; only {known} is known here.')


def _previous(plans: Plans, labels: Labels, first: ModelSpec) -> PreviousStage:
    """Return how the labels of the first stage come into the second."""
    resampling = _interpolation(plans, "seg")
    if 3 in (resampling.order, resampling.slice_order) or resampling.slice_order == 1:
        raise ModelError("This model resamples the labels of its first stage as only nnU-Net can. Choose another configuration.")
    return PreviousStage(model=first, labels=labels.foreground, resampling=resampling)


def _by_letter(axes: str, values: Any) -> tuple[Any, ...]:
    """Put values in the order of the network's axes into that of the image's."""
    found = dict(zip(axes, values, strict=True))
    return tuple(found[axis] for axis in "ZYX" if axis in found)


def _rules(plans: Plans) -> tuple[Normalization, ...]:
    schemes, masks = plans["normalization_schemes"], plans["use_mask_for_norm"]
    return tuple(_rule(plans, index, str(scheme), masked=bool(masks[index])) for index, scheme in enumerate(schemes))


def _rule(plans: Plans, channel: int, scheme: str, *, masked: bool) -> Normalization:
    match scheme:
        case "ZScoreNormalization":
            return Normalization(kind="zscore", masked=masked)
        case "CTNormalization":
            known = plans.intensities(channel)
            mean, scale = float(known["mean"]), max(float(known["std"]), _SAME)
            limits = (float(known["percentile_00_5"]) - mean) / scale, (float(known["percentile_99_5"]) - mean) / scale
            return Normalization(kind="range", low=mean, high=mean + scale, clip=limits)
        case "RescaleTo01Normalization":
            return Normalization(kind="minmax")
        case "RGBTo01Normalization":
            return Normalization(kind="range", low=0, high=255)
        case "NoNormalization":
            return Normalization()
        case _:
            raise ModelError(f'This model normalises with "{printable(scheme)}", code of its own. It can be run by nnU-Net only.')


def _sampler(plans: Plans, what: str) -> str:
    name = str(plans.get(f"resampling_fn_{what}", "resample_data_or_seg_to_shape"))
    if name not in _SAMPLERS:
        raise ModelError(f'This model resamples with "{printable(name)}", code of its own. It can be run by nnU-Net only.')
    return _SAMPLERS[name]


def _interpolation(plans: Plans, what: str) -> Interpolation:
    """Read how the image, the scores, or the labels of a first stage are resampled."""
    told = plans.get(f"resampling_fn_{what}_kwargs") or {}
    force = told.get("force_separate_z", None if _sampler(plans, what) == "torch" or told else False)
    slices = {None: "auto", True: "always", False: "never"}[force]
    if _sampler(plans, what) == "spline":
        order, across = int(told.get("order", 3 if what == "data" else 1)), int(told.get("order_z", 0))
    else:
        modes = {"linear": 1, "nearest": 0, "nearest-exact": 0}
        order, across = modes[told.get("mode", "linear")], modes[told.get("aniso_axis_mode", "nearest-exact")]
    if what == "probabilities" and 3 in (order, across):
        raise ModelError("This model resamples its scores with splines, which is not supported. It can be run by nnU-Net only.")
    anisotropy = float(told.get("separate_z_anisotropy_threshold", 3))
    return Interpolation(
        order=order,
        antialias=False,
        slices=slices,
        slice_order=across,
        anisotropy=anisotropy,
        clip=_sampler(plans, what) == "spline",
    )


def _multiples(patch: Any, strides: Any) -> list[int]:
    """Return what each side of a window must be a multiple of: of its strides, or of what they share with a patch they do not divide."""
    wanted = [math.prod(int(step if isinstance(step, int) else step[axis]) for step in strides or ()) for axis in range(len(patch))]
    return [math.gcd(int(size), steps) for size, steps in zip(patch, wanted, strict=True)]
