"""A results folder of nnU-Net opens at any level, and what is asked for and not there gets a sentence."""

from __future__ import annotations

import json
import pickle
import shutil
import tracemalloc
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_tileseg import SegmentOptions, Volume, segment
from napari_tileseg.errors import Cancelled, ModelError, TrustError, WeightsError
from napari_tileseg.models.loaders.nnunet.results import detect
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.predictor import from_module, load_model
from napari_tileseg.models.registry import find_spec
from napari_tileseg.models.resampling import Interpolation, Resampling
from napari_tileseg.models.spec import ModelSpec, Normalization

if TYPE_CHECKING:
    from napari_tileseg.engine.events import Event

HERE = Path(__file__).parent / "nnunet"
DATASET = HERE / "Dataset901_Hippocampus"
TRAINED = DATASET / "nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of one trained model, to be damaged."""
    target = tmp_path / DATASET.name / TRAINED.name
    shutil.copytree(TRAINED, target)
    return target


def change(file: Path, **values: Any) -> None:
    """Exchange values of a JSON file."""
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **values}), encoding="utf-8")


@pytest.mark.parametrize(
    ("place", "folds"),
    [
        pytest.param(str(DATASET), ["0", "1"], id="dataset"),
        pytest.param(str(TRAINED), ["0", "1"], id="trained model"),
        pytest.param(str(TRAINED / "fold_1"), ["1"], id="fold"),
        pytest.param(f"nnunet:{DATASET}", ["0", "1"], id="with a scheme"),
        pytest.param(f"nnunet:{DATASET}?folds=0", ["0"], id="chosen fold"),
        pytest.param(f"nnunet:{DATASET}?checkpoint=best", ["0"], id="only one fold has the best checkpoint"),
    ],
)
def test_any_level_opens(place: str, folds: list[str]) -> None:
    spec = find_spec(place)
    assert spec.training["configuration"] == "3d_fullres"
    assert spec.training["folds"] == folds
    assert (spec.axes, spec.channels, spec.window) == ("CZYX", ["T1"], (24, 32, 24))
    assert spec.classes == ["background", "anterior", "posterior"]
    assert (spec.tta, spec.mirror_axes) == ("flips", "ZYX")
    assert "licence" in spec.unknown
    assert load_model(place, device="cpu").spec == spec


def test_another_configuration_has_a_card_of_its_own() -> None:
    spec = find_spec(f"nnunet:{DATASET}?configuration=2d")
    assert (spec.axes, spec.window, spec.training["configuration"]) == ("CYX", (32, 40), "2d")
    assert spec.weights_sha256 != find_spec(str(DATASET)).weights_sha256


def test_an_export_is_a_zip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))
    export = tmp_path / "export.zip"
    with zipfile.ZipFile(export, "w") as archive:
        for file in DATASET.rglob("*"):
            if file.is_file():
                archive.write(file, f"{DATASET.name}/{file.relative_to(DATASET)}")
    assert detect(export)
    model = load_model(f"{export}", device="cpu")
    assert model.spec.training == find_spec(str(DATASET)).training
    noise = torch.rand(1, 1, 24, 32, 24)
    with torch.inference_mode():
        assert torch.equal(model(noise), load_model(str(DATASET), device="cpu")(noise))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("configuration=3d_lowres", 'no configuration "3d_lowres" here. Choose one of 2d, 3d_fullres'),
        ("folds=7", 'Fold "7" has no checkpoint_final.pth here. Folds that have one: 0, 1'),
        ("checkpoint=latest", "no checkpoint_latest.pth here. There are checkpoint_best.pth, checkpoint_final.pth"),
        ("trainer=mine", 'no trainer "mine" here. Choose one of nnUNetTrainer'),
        ("fold=1", 'has the option "fold"'),
    ],
)
def test_what_is_not_there_gets_a_sentence(options: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        find_spec(f"nnunet:{DATASET}?{options}")


def test_other_folders_are_no_results(tmp_path: Path) -> None:
    (tmp_path / "fold_0").mkdir()
    assert not detect(tmp_path)
    assert not detect(tmp_path / "fold_0")
    assert not detect(tmp_path / "nothing")
    with pytest.raises(ModelError, match="holds no trained model"):
        find_spec(f"nnunet:{tmp_path}")


def test_the_second_stage_of_a_cascade_needs_the_first(copy: Path) -> None:
    plans = json.loads((copy / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["previous_stage"] = "3d_lowres"
    (copy / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match=r"sees the labels of 3d_lowres, which is not here\. Put the folder"):
        find_spec(str(copy))


@pytest.mark.parametrize("scheme", ["ZScoreWithMySpecialTouch", "os.system"])
def test_code_of_its_own_is_named_and_not_imported(copy: Path, scheme: str) -> None:
    plans = json.loads((copy / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["normalization_schemes"] = [scheme]
    (copy / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match=f'normalises with "{scheme}"'):
        find_spec(str(copy))


def test_networks_are_taken_from_a_list(copy: Path) -> None:
    plans = json.loads((copy / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "os.path.join"
    (copy / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match=r'name the network "os\.path\.join".*nothing else is imported'):
        load_model(str(copy), device="cpu")


def test_plans_from_before_architectures_had_names(copy: Path) -> None:
    plans = json.loads((copy / "plans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    arguments = configuration.pop("architecture")["arch_kwargs"]
    configuration |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 6,
        "unet_max_num_features": 24,
        "conv_kernel_sizes": arguments["kernel_sizes"],
        "pool_op_kernel_sizes": arguments["strides"],
        "n_conv_per_stage_encoder": arguments["n_conv_per_stage"],
        "n_conv_per_stage_decoder": arguments["n_conv_per_stage_decoder"],
    }
    plans["configurations"]["small"] = {"inherits_from": "3d_fullres", "batch_size": 1}
    (copy / "plans.json").write_text(json.dumps(plans))
    noise = torch.rand(1, 1, 24, 32, 24)
    with torch.inference_mode():
        assert torch.equal(load_model(str(copy), device="cpu")(noise), load_model(str(TRAINED), device="cpu")(noise))


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_a_checkpoint_that_would_run_code_is_refused(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = copy / "fold_0" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    torch.save({**content, "logging": _Evil()}, file)
    assert find_spec(str(copy)).classes == ["background", "anterior", "posterior"]  # the card runs nothing
    with pytest.raises(TrustError):
        load_model(str(copy), device="cpu")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", pickle.dumps({"a": 1})], ids=["empty", "cut", "no zip"])
def test_a_damaged_checkpoint_gets_a_sentence(copy: Path, content: bytes) -> None:
    (copy / "fold_0" / "checkpoint_final.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"checkpoint_final\.pth is no"):
        find_spec(str(copy))


def test_weights_of_another_network_are_listed(copy: Path) -> None:
    shutil.copy(DATASET / "nnUNetTrainer__nnUNetPlans__2d" / "fold_0" / "checkpoint_final.pth", copy / "fold_1")
    with pytest.raises(WeightsError, match=r"do not fit the network of the plans: .* of another shape"):
        load_model(str(copy), device="cpu")


def many_classes(classes: int) -> Any:
    """Return a predictor with nnU-Net's recipe whose network costs nothing."""
    spec = ModelSpec(
        name="many",
        axes="CZYX",
        channels=1,
        classes=["background", *(f"class {index}" for index in range(1, classes))],
        window=(16, 32, 32),
        steps="even",
        blending="nnunet",
        spacing=(1, 1, 1),
        spacing_unit="millimeter",
        crop="nonzero",
        normalization=Normalization(kind="channels", channels=(Normalization(kind="zscore"),)),
        resampling=Resampling(
            tolerance=0,
            image=Interpolation(order=3, antialias=False, slices="auto", clip=True),
            scores=Interpolation(antialias=False, slices="auto"),
        ),
    )
    network = torch.nn.Conv3d(1, classes, 3, padding=1)
    torch.manual_seed(0)
    torch.nn.init.normal_(network.weight)
    return from_module(network, spec, device="cpu")


def test_scores_of_all_classes_never_exist_at_full_size(monkeypatch: pytest.MonkeyPatch) -> None:
    classes, shape = 20, (120, 96, 96)
    image = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    volume = Volume.from_scale(image, "ZYX", (1.5, 1.5, 1.5), units=("millimeter",) * 3)
    model = many_classes(classes)
    held: list[int] = []
    take = torch.Tensor.index_select

    def counted(self: torch.Tensor, *args: Any) -> torch.Tensor:
        found = take(self, *args)
        held.append(found.untyped_storage().nbytes())
        return found

    monkeypatch.setattr(torch.Tensor, "index_select", counted)
    tracemalloc.start()
    result = segment(volume, model, options=SegmentOptions(device="cpu", memory_limit=1 << 30))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = 4 * classes * image.size
    assert result.labels.max() == classes - 1
    assert max(held) <= whole / 4  # pieces of scores on the image's grid
    assert peak < whole  # everything that NumPy holds


def test_a_run_goes_on_in_the_middle_of_resampled_scores(tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(100, 20, (90, 40, 40)).astype(np.float32)
    image[:7] = image[:, -3:] = 0
    volume = Volume.from_scale(image, "ZYX", (1.4, 1.2, 0.9), units=("millimeter",) * 3)
    model = many_classes(4)
    whole = segment(volume, model, options=SegmentOptions(device="cpu")).labels
    seen: list[Event] = []
    with pytest.raises(Cancelled):
        segment(
            volume, model, options=SegmentOptions(device="cpu"), journal=tmp_path / "j", on_event=seen.append, cancel=lambda: len(seen) > 60
        )
    assert (tmp_path / "j" / "journal.json").exists()
    again = segment(volume, model, options=SegmentOptions(device="cpu"), journal=tmp_path / "j")
    assert again.windows < segment(volume, model, options=SegmentOptions(device="cpu")).windows
    np.testing.assert_array_equal(again.labels, whole)
    assert not again.labels[:7].any()


@pytest.mark.parametrize("name", ["PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet"])
def test_networks_are_those_of_the_package(name: str) -> None:
    package = pytest.importorskip(
        "dynamic_network_architectures.architectures.unet", reason="[nnunet] is not installed", exc_type=ImportError
    )
    plan = {
        "n_stages": 3,
        "features_per_stage": [4, 8, 12],
        "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
        "n_conv_per_stage_decoder": [1, 2],
        "conv_bias": True,
        "norm_op_kwargs": {"eps": 1e-5, "affine": True},
        "nonlin_kwargs": {"inplace": True},
        ("n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage"): [1, 2, 2],
    }
    layers = {"conv_op": torch.nn.Conv3d, "norm_op": torch.nn.InstanceNorm3d, "nonlin": torch.nn.LeakyReLU}
    theirs = getattr(package, name)(input_channels=2, num_classes=3, **plan, **layers).eval()
    own = {"PlainConvUNet": "plain_conv_unet", "ResidualEncoderUNet": "residual_encoder_unet", "ResidualUNet": "residual_conv_unet"}[name]
    words = {"conv_op": "torch.nn.Conv3d", "norm_op": "torch.nn.InstanceNorm3d", "nonlin": "torch.nn.LeakyReLU"}
    ours = build_network(own, input_channels=2, num_classes=3, **plan, **words).eval()
    ours.load_state_dict(theirs.state_dict())
    noise = torch.rand(1, 2, 8, 16, 16)
    with torch.inference_mode():
        assert torch.equal(ours(noise), theirs(noise))
