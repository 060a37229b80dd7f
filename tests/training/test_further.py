"""Models of nnU-Net are trained further: prepared as they were, begun with what they know, and written as models of our own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_tileseg import SegmentOptions, Volume, list_models, load_model, read_volume, segment, train
from napari_tileseg.errors import ModelError
from napari_tileseg.models.imports import import_model
from napari_tileseg.models.loaders.nnunet.architecture import OWN
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import write_package
from napari_tileseg.models.registry import find_spec
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.events import EpochEnded, Noted, TrainingStarted
from napari_tileseg.training.plan import make_plan
from napari_tileseg.training.refusal import refusal
from napari_tileseg.training.report import inspect
from napari_tileseg.training.start import start_network

if TYPE_CHECKING:
    from collections.abc import Callable

TESTS = Path(__file__).parents[1]
NNUNET = TESTS / "models" / "loaders" / "nnunet"
VOLUMES, PLANES = (NNUNET / "Dataset901_Hippocampus" / f"nnUNetTrainer__nnUNetPlans__{name}" for name in ("3d_fullres", "2d"))
REGIONS = NNUNET / "Dataset902_HippocampusRegions" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
CASCADE = NNUNET / "Dataset903_HippocampusCascade"
OPTIONS = SegmentOptions(device="cpu", scores=True, tta=False)
QUICK: dict[str, Any] = {"epochs": 1, "epoch_steps": 2, "batch": 1, "device": "cpu", "learning_rate": 1e-5, "average": 0.0}

KEPT = ("axes", "channels", "normalization", "spacing", "resampling", "orientation", "crop", "window", "multiple_of", "overlap", "steps")
KEPT += ("blending", "mirror_axes", "tta", "architecture", "output", "classes", "region_values", "region_labels")


@cache
def sample() -> Volume:
    """Return a part of an MRI, with a border of 0."""
    volume = read_volume(TESTS.parent / "sample_data" / "hippocampus_mri.nii.gz")
    image = np.pad(np.asarray(volume.data)[6:30, 8:40, 6:30], 2).astype(np.float32)
    return Volume.from_scale(image, "ZYX", (1.0, 1.2, 0.9), units=("millimeter",) * 3, name="part")


def ref(folder: Path, folds: str = "0") -> str:
    return f"nnunet:{folder}?folds={folds}"


@cache
def answers(start: str) -> list[tuple[Volume, Any]]:
    images = [sample(), replace(sample(), data=np.asarray(sample().data) * 1.1 + 3 * (np.asarray(sample().data) > 0), name="brighter")]
    model = load_model(start, device="cpu")
    return [(image, np.asarray(segment(image, model, options=OPTIONS).labels)) for image in images]


def pairs(start: str) -> list[tuple[Volume, Any]]:
    """Return two images with what a model makes of them: labels that it knows."""
    return [(image, labels.copy()) for image, labels in answers(start)]


def transposed(folder: Path, order: list[int]) -> str:
    """Copy the model, with plans that turn volumes."""
    target = folder / VOLUMES.parent.name / VOLUMES.name
    shutil.copytree(VOLUMES, target, ignore=shutil.ignore_patterns("fold_1"))
    plans = json.loads((target / "plans.json").read_text())
    (target / "plans.json").write_text(json.dumps(plans | {"transpose_forward": order}))
    return ref(target)


def other_network(folder: Path, kind: str, norm: str) -> str:
    """Copy the model with another network of nnU-Net's, whose weights are random; its trainer may have exchanged the normalisation."""
    target = folder / VOLUMES.parent.name / VOLUMES.name
    shutil.copytree(VOLUMES, target, ignore=shutil.ignore_patterns("fold_1", "checkpoint_best.pth"))
    plans = json.loads((target / "plans.json").read_text())
    architecture = plans["configurations"]["3d_fullres"]["architecture"]
    architecture["network_class_name"] = f"dynamic_network_architectures.architectures.unet.{kind}"
    arguments = architecture["arch_kwargs"]
    if kind.startswith("Residual"):
        arguments["n_blocks_per_stage"] = arguments.pop("n_conv_per_stage")
    (target / "plans.json").write_text(json.dumps(plans))
    norms = {"norm_op": f"torch.nn.modules.{norm.lower()[:-2]}.{norm}"} if norm.startswith("Batch") else {}
    torch.manual_seed(1)
    made = build_network(OWN[kind], input_channels=1, num_classes=3, **arguments | norms)
    checkpoint = target / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    torch.save({**content, "network_weights": made.state_dict()}, checkpoint)
    return ref(target)


def bundle(folder: Path) -> str:
    """Write a bundle of MONAI that turns volumes, and changes their pixel size and their intensities."""
    definition = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 8], "strides": [2]}
    before = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"},
        {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True},
    ]
    config = {
        "network_def": definition,
        "preprocessing": {"_target_": "Compose", "transforms": before},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [24, 24, 24], "overlap": 0.5, "mode": "gaussian"},
        "postprocessing": {"_target_": "Compose", "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}]},
    }
    names = {"0": "background", "1": "one", "2": "two"}
    data = {"inputs": {"image": {"num_channels": 1}}, "outputs": {"pred": {"num_channels": 3, "channel_def": names}}}
    for name in ("configs", "models"):
        (folder / name).mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1", "name": "B", "network_data_format": data}))
    torch.manual_seed(0)
    made = build_network("monai.UNet", **{name: value for name, value in definition.items() if name != "_target_"})
    torch.save(made.state_dict(), folder / "models" / "model.pt")
    return f"monai:{folder}"


MADE: dict[str, Callable[[Path], str]] = {
    "volumes": lambda folder: ref(VOLUMES),
    "planes": lambda folder: ref(PLANES),
    "regions": lambda folder: ref(REGIONS),
    "turned": lambda folder: transposed(folder, [1, 2, 0]),
    "residual": lambda folder: other_network(folder, "ResidualEncoderUNet", "InstanceNorm3d"),
    "exchanged": lambda folder: other_network(folder, "PlainConvUNet", "BatchNorm3d"),
    "bundle": lambda folder: bundle(folder / "bundle"),
    "bioimageio": lambda folder: f"bioimageio:{TESTS / 'models' / 'bioimageio' / 'library-3d-v5.zip'}",
}


@pytest.mark.parametrize("kind", MADE)
def test_before_the_first_step_it_is_the_same_model(kind: str, tmp_path: Path) -> None:
    start = MADE[kind](tmp_path)
    before = find_spec(start)
    assert refusal(before) == ""
    config = TrainConfig(start=start, output=str(tmp_path / "m"), val_share=0.0)
    given = pairs(start)
    report = inspect(config, given)
    plan = make_plan(config, report, "m")
    network, notes = start_network(config, plan.spec)
    assert notes == (), "all is taken over"
    spec = write_package(tmp_path / "m", plan.spec, network.state_dict())
    for name in KEPT:
        if getattr(before, name) is not None:  # mirror axes of a model that does not say them
            assert getattr(spec, name) == getattr(before, name), name
    image = given[0][0]
    old, new = (segment(image, load_model(name, device="cpu"), options=OPTIONS) for name in (start, str(tmp_path / "m")))
    np.testing.assert_array_equal(old.scores, new.scores)
    np.testing.assert_array_equal(old.labels, new.labels)
    seen = "YX" if before.mirror_axes is None else before.mirror_axes
    assert plan.augmentation.flips == tuple(axis in seen for axis in before.spatial_axes), "along the axes where it knows mirror images"


def test_a_few_steps_make_a_model_of_our_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path))
    start = ref(VOLUMES, "0,1")
    events: list[Any] = []
    spec = train(TrainConfig(start=start, output=str(tmp_path / "tuned"), **QUICK), pairs(ref(VOLUMES)), on_event=events.append)
    notes = [event.message for event in events if isinstance(event, Noted)]
    assert notes == ["Dataset901_Hippocampus 3d_fullres is 2 networks together; the first one (fold 0) is trained further, and alone."]
    (epoch,) = (event for event in events if isinstance(event, EpochEnded))
    assert epoch.scores["dice anterior"] > 0.9, "two small steps forget nothing"
    assert (spec.loader, spec.members, spec.source) == ("", [], "")
    assert "tuned" in [known.name for known in list_models()]
    one, two = (load_model(name, device="cpu") for name in (ref(VOLUMES), "tuned"))
    old, new = one.module.state_dict(), two.module.state_dict()
    changed = [name for name in old if (old[name] != new[name]).any()]
    assert any(name.startswith("encoder") for name in changed)
    last = max(name for name in old if "seg_layers" in name)
    assert last in changed
    assert "decoder.seg_layers.0.weight" not in changed, "those of coarser scores wait for whoever trains them again"


def test_an_imported_model_is_trained_further_with_one_class_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path))
    import_model(ref(VOLUMES), name="imported")
    given = [(image, np.where((labels == 2) & (np.arange(28) < 14), 3, labels)) for image, labels in pairs("imported")]
    events: list[Any] = []
    names = ("background", "anterior", "posterior", "left")
    more = QUICK | {"freeze": "encoder"}
    spec = train(TrainConfig(start="imported", output=str(tmp_path / "b"), classes=names, **more), given, on_event=events.append)
    notes = [event.message for event in events if isinstance(event, Noted)]
    assert any("it begins with what Dataset901_Hippocampus 3d_fullres knows of anterior, posterior" in note for note in notes)
    assert spec.classes == list(names)
    old, new = (load_model(name, device="cpu").module.state_dict() for name in ("imported", "b"))
    assert all(torch.equal(old[name], new[name]) for name in old if name.startswith("encoder"))
    before, after = (np.asarray(segment(sample(), name, options=OPTIONS).labels) for name in ("imported", "b"))
    assert np.mean((before == 1) == (after == 1)) > 0.98


def test_regions_are_learnt_from_the_numbers_in_labels(tmp_path: Path) -> None:
    given = pairs(ref(REGIONS))
    given[0][1][:2] = 9  # nobody knows, as the model was told
    target = tmp_path / REGIONS.parent.name / REGIONS.name
    shutil.copytree(REGIONS, target)
    dataset = json.loads((target / "dataset.json").read_text())
    (target / "dataset.json").write_text(json.dumps(dataset | {"labels": dataset["labels"] | {"ignore": 9}}))
    events: list[Any] = []
    config = TrainConfig(start=ref(target), output=str(tmp_path / "r"), **QUICK)
    spec = train(config, given, on_event=events.append, views=tmp_path / "views")
    (epoch,) = (event for event in events if isinstance(event, EpochEnded))
    (started,) = (event for event in events if isinstance(event, TrainingStarted))
    assert any(line.startswith("Labelled: hippocampus 9") for line in started.report)
    assert epoch.scores["dice hippocampus"] > 0.9
    assert epoch.scores["dice posterior"] > 0.9
    assert (spec.output, spec.heads, spec.classes) == ("regions", ["hippocampus", "posterior"], ["background", "hippocampus", "posterior"])
    shown = np.load(epoch.images[0]["truth"])
    labels = {image.name: labels for image, labels in given}[epoch.images[0]["name"]]
    np.testing.assert_array_equal(shown[2:], labels[2:])
    assert set(np.unique(segment(sample(), str(tmp_path / "r"), options=OPTIONS).labels)) <= {0, 1, 2}


def test_regions_become_classes_where_the_user_says_so(tmp_path: Path) -> None:
    start = ref(REGIONS)
    config = TrainConfig(start=start, output=str(tmp_path / "c"), task="classes", **QUICK)
    spec = train(config, pairs(start))
    assert (spec.output, spec.region_values, spec.region_labels, len(spec.score_names)) == ("softmax", (), (), 3)


def test_classes_that_corrected_labels_lack_stay_in_the_model(tmp_path: Path) -> None:
    given = [(image, np.where(labels == 2, 2, 0)) for image, labels in pairs(ref(VOLUMES))]
    report = inspect(TrainConfig(start=ref(VOLUMES)), given)
    assert (report.values, report.classes) == ((0, 1, 2), ("background", "anterior", "posterior"))
    assert any('"anterior" is in none of the labels' in warning for warning in report.warnings)
    named = inspect(TrainConfig(start=ref(VOLUMES), classes=("background", "scar")), given)
    assert (named.values, named.classes) == ((0, 2), ("background", "scar"))


def test_what_cannot_be_trained_further_says_so_before_anything_is_read(tmp_path: Path) -> None:
    config = TrainConfig(start=f"nnunet:{CASCADE}?configuration=3d_cascade_fullres", output=str(tmp_path / "c"))
    with pytest.raises(ModelError, match="second of a cascade"):
        train(config, pairs(ref(VOLUMES)))
    together = find_spec(f"ensemble:{ref(VOLUMES)},{ref(VOLUMES, '1')}")
    assert "several models together" in refusal(together)


def test_a_bundle_of_monai_learns_what_it_sees(tmp_path: Path) -> None:
    start = bundle(tmp_path / "bundle")
    image = sample()
    labels = np.digitize(np.asarray(image.data), np.percentile(np.asarray(image.data), (50, 85))).astype(np.uint8)
    config = TrainConfig(start=start, output=str(tmp_path / "b"), **QUICK | {"epoch_steps": 30, "learning_rate": 1e-2, "batch": 2})
    events: list[Any] = []
    spec = train(config, [(image, labels), (replace(image, name="again"), labels)], on_event=events.append)
    (epoch,) = (event for event in events if isinstance(event, EpochEnded))
    assert epoch.score > 0.5
    assert (spec.orientation, spec.resampling.anchor, spec.normalization.kind) == ("SAR", "points", "steps")
