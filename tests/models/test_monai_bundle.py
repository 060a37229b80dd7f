"""MONAI bundles give the labels that MONAI's own transforms, inferer and inverses give; what could run code is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from PIL import Image

from napari_tileseg.errors import ModelError, TrustError, WeightsError
from napari_tileseg.io import read_volume
from napari_tileseg.models.imports import standing
from napari_tileseg.models.loaders.monai_bundle.config import Config
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import card, find_spec
from napari_tileseg.models.trust import trust
from napari_tileseg.pipeline import segment

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),  # MONAI's own, of defaults that will change
    pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning"),  # and of a decoder for GPUs that is not there
]

UNET = {"_target_": "UNet", "channels": [4, 8, 8], "strides": [2, 2], "num_res_units": 1, "norm": "batch"}


def bundle(
    folder: Path,
    *,
    network: dict[str, Any],
    preprocessing: list[dict[str, Any]],
    postprocessing: list[dict[str, Any]],
    roi: list[int],
    inferer: dict[str, Any] | None = None,
    metadata: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """Write a bundle as the model zoo has them, with a network of random weights."""
    config = {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "image_key": "image",
        "dataset_dir": "/workspace/data",
        "datalist": "$list(sorted(glob.glob(@dataset_dir + '/imagesTs/*.nii.gz')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing},
        "dataset": {"_target_": "Dataset", "data": "$[{'image': i} for i in @datalist]", "transform": "@preprocessing"},
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "shuffle": False, "num_workers": 0},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": roi, "sw_batch_size": 4, "overlap": 0.5, **(inferer or {})},
        "postprocessing": {"_target_": "Compose", "transforms": postprocessing},
        "handlers": [
            {"_target_": "CheckpointLoader", "load_path": "$@bundle_root + '/models/model.pt'", "load_dict": {"model": "@network"}}
        ],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }
    known = {
        "name": "Tiny",
        "version": "0.1.0",
        "monai_version": "1.5.0",
        "task": "Testing",
        "authors": "Nobody",
        "references": ["None, 2024"],
    }
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config, indent=4))
    (folder / "configs" / "metadata.json").write_text(json.dumps(known | (metadata or {})))
    parser = ConfigParser({"network_def": network})
    torch.manual_seed(seed)
    module = parser.get_parsed_content("network_def")
    for name, values in module.state_dict().items():
        if name.endswith("running_var"):
            values.uniform_(0.05, 0.2)
        elif name.endswith("running_mean"):
            values.normal_(0, 0.1)
    torch.save(module.state_dict(), folder / "models" / "model.pt")
    return folder


def formats(channels: dict[str, str], classes: dict[str, str]) -> dict[str, Any]:
    data = {
        "inputs": {"image": {"type": "image", "num_channels": len(channels), "spatial_shape": ["4*n", "4*n"], "channel_def": channels}},
        "outputs": {"pred": {"type": "image", "num_channels": len(classes), "channel_def": classes}},
    }
    return {"network_data_format": data}


def answer(folder: Path, image: Any) -> np.ndarray:
    """Return what MONAI makes of an image: the steps of its evaluator, one after another."""
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser["bundle_root"] = str(folder)
    network = parser.get_parsed_content("network_def")
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    network.eval()
    data = parser.get_parsed_content("preprocessing")({"image": image})
    with torch.no_grad():
        scores = parser.get_parsed_content("inferer")(data["image"][None], network)
    data["pred"] = scores[0]
    return np.asarray(parser.get_parsed_content("postprocessing")(data)["pred"])


def blobs(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    generator = np.random.default_rng(seed)
    return gaussian_filter(generator.normal(size=shape), 2.5) * 6


def write_nifti(path: Path, values: np.ndarray, affine: np.ndarray) -> Path:
    image = nibabel.Nifti1Image(values, affine)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, path)
    return path


def affine_of(codes: str, sizes: tuple[float, ...], *, oblique: float = 0.0) -> np.ndarray:
    """Return an affine whose axes lead where the letters say."""
    matrix = np.zeros((4, 4))
    for axis, (code, size) in enumerate(zip(codes, sizes, strict=True)):
        row = ["RL", "AP", "SI"].index(next(pair for pair in ("RL", "AP", "SI") if code in pair))
        matrix[row, axis] = size if code in "RAS" else -size
    turn = np.eye(3)
    turn[:2, :2] = [[np.cos(oblique), -np.sin(oblique)], [np.sin(oblique), np.cos(oblique)]]
    matrix[:3, :3] = turn @ matrix[:3, :3]
    matrix[:3, 3] = [-30.0, 12.0, 5.0]
    matrix[3, 3] = 1
    return matrix


CT = [
    {"_target_": "LoadImaged", "keys": "@image_key"},
    {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
    {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "@image_key", "pixdim": [1.5, 1.5, 2.0], "mode": "bilinear"},
    {"_target_": "ScaleIntensityRanged", "keys": "@image_key", "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1, "clip": True},
    {"_target_": "EnsureTyped", "keys": "@image_key"},
]


def inverted(**more: Any) -> dict[str, Any]:
    return {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "@image_key", **more}


def ct(folder: Path, *, nearest: bool = False, **more: Any) -> Path:
    before = [{"_target_": "Activationsd", "keys": "pred", "softmax": True}]
    discrete = {"_target_": "AsDiscreted", "keys": "pred", "argmax": True}
    after = [*before, discrete, inverted(nearest_interp=True)] if nearest else [*before, inverted(nearest_interp=False), discrete]
    return bundle(
        folder,
        network=UNET | {"spatial_dims": 3, "in_channels": 1, "out_channels": 2},
        preprocessing=CT,
        postprocessing=after,
        roi=[32, 24, 16],
        inferer={"mode": "gaussian", "padding_mode": "constant", "cval": 0.0},
        metadata=formats({"0": "image"}, {"0": "background", "1": "spleen"}),
        **more,
    )


@pytest.mark.parametrize("nearest", [False, True], ids=["probabilities", "labels"])
@pytest.mark.parametrize(
    ("codes", "oblique"),
    [("RAS", 0.0), ("LPS", 0.0), ("LAS", 0.1), ("ASR", 0.0), ("PIR", 0.0)],
    ids=["RAS", "LPS", "oblique", "ASR", "PIR"],
)
def test_ct_is_turned_resampled_and_brought_back_as_monai_does(tmp_path: Path, codes: str, oblique: float, nearest: bool) -> None:
    folder = ct(tmp_path / "bundle", nearest=nearest)
    values = (blobs(1, (44, 38, 30)) * 120 + 40).astype(np.int16)
    path = write_nifti(tmp_path / "scan.nii.gz", values, affine_of(codes, (0.9, 1.1, 2.6), oblique=oblique))
    expected = answer(folder, str(path))[0]
    found = segment(read_volume(path), f"monai:{folder}").labels.transpose()
    assert 0.1 < expected.mean() < 0.9
    share = (found == expected).mean()
    # Over the middle of the old grid, a pixel may lie halfway between two of the new one: rounding errors decide there.
    assert share >= (0.99 if nearest and oblique else 0.999)


def test_colours_in_two_dimensions(tmp_path: Path) -> None:
    folder = bundle(
        tmp_path / "bundle",
        network=UNET | {"_target_": "monai.networks.nets.UNet", "spatial_dims": 2, "in_channels": 3, "out_channels": 3},
        preprocessing=[
            {"_target_": "LoadImaged", "keys": "image", "reader": "PILReader"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "ScaleIntensityd", "keys": "image"},
            {
                "_target_": "NormalizeIntensityd",
                "keys": "image",
                "subtrahend": [0.4, 0.5, 0.6],
                "divisor": [0.2, 0.1, 0.3],
                "channel_wise": True,
            },
        ],
        postprocessing=[{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}],
        roi=[48, 32],
        metadata=formats({"0": "red", "1": "green", "2": "blue"}, {"0": "background", "1": "tool", "2": "hand"}),
    )
    values = np.stack([blobs(seed, (90, 120)) for seed in (1, 2, 3)], axis=-1)
    path = tmp_path / "frame.png"
    Image.fromarray(np.clip(values * 60 + 120, 0, 255).astype(np.uint8)).save(path)
    expected = answer(folder, str(path))[0]
    found = segment(read_volume(path), f"monai:{folder}").labels
    share = (found.transpose() == expected).mean()
    assert share >= 0.999
    assert find_spec(f"monai:{folder}").classes == ["background", "tool", "hand"]


@pytest.mark.parametrize("spacing", [None, [1.2, 1.2, 1.5]], ids=["as it is", "resampled"])
def test_mri_of_several_channels_with_regions(tmp_path: Path, spacing: list[float] | None) -> None:
    space = [{"_target_": "Spacingd", "keys": "image", "pixdim": spacing, "mode": "bilinear"}] if spacing else []
    folder = bundle(
        tmp_path / "bundle",
        network=UNET | {"spatial_dims": 3, "in_channels": 2, "out_channels": 3},
        preprocessing=[
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "EnsureChannelFirstd", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            *space,
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
        ],
        postprocessing=[
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
            inverted(nearest_interp=False),
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
        ],
        roi=[24, 24, 24],
        metadata=formats({"0": "T1", "1": "FLAIR"}, {"0": "core", "1": "whole", "2": "enhancing"}),
    )
    mask = np.zeros((40, 44, 36, 1))
    mask[5:35, 6:40, 4:30] = 1
    values = np.stack([blobs(seed, (40, 44, 36)) * 50 + 200 for seed in (4, 5)], axis=-1) * mask
    path = tmp_path / "brain.nii.gz"
    write_nifti(path, values[:, :, :, None].astype(np.float32), affine_of("LPS", (1.0, 1.0, 1.0)))
    expected = answer(folder, monai_image(path))
    volume = read_volume(path)
    assert volume.sizes["C"] == 2
    found = segment(volume, f"monai:{folder}").labels
    share = (found.transpose(0, 3, 2, 1) == expected).mean()
    assert expected.mean() > 0.05
    assert share >= 0.999


def monai_image(path: Path) -> list[str]:
    """Return a file for each channel, as MONAI wants several."""
    whole = nibabel.load(path)
    files = []
    for index in range(whole.shape[-1]):
        files.append(str(path.with_name(f"channel{index}.nii.gz")))
        write_nifti(Path(files[-1]), np.asarray(whole.dataobj)[:, :, :, 0, index], whole.affine)
    return files


def test_card_says_what_the_bundle_says(tmp_path: Path) -> None:
    folder = ct(tmp_path / "bundle")
    spec = find_spec(str(folder))
    assert spec.orientation == "SAR"
    assert spec.spacing == (2.0, 1.5, 1.5)
    assert spec.window == (16, 24, 32)
    assert spec.overlap == 0.5
    assert spec.blending == "gaussian"
    text = card(str(folder))
    assert "spleen" in text
    assert "SAR" in text


def changed(folder: Path, change: Any) -> Path:
    """Write another configuration."""
    path = folder / "configs" / "inference.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config, indent=4))
    return folder


def test_evaluator_of_the_bundle_gives_the_same(tmp_path: Path) -> None:
    pytest.importorskip("ignite", reason="MONAI's evaluator needs pytorch-ignite; the other tests compare with its parts")
    folder = ct(tmp_path / "bundle")
    path = write_nifti(tmp_path / "scan.nii.gz", (blobs(7, (40, 40, 24)) * 120 + 40).astype(np.int16), affine_of("LPS", (1.2, 1.2, 3.0)))
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser["bundle_root"] = str(folder)
    parser["dataset"]["data"] = [{"image": str(path)}]
    evaluator = parser.get_parsed_content("evaluator")
    evaluator.run()
    expected = np.asarray(evaluator.state.output[0]["pred"])[0]
    found = segment(read_volume(path), f"monai:{folder}").labels.transpose()
    assert 0.1 < expected.mean() < 0.9
    assert (found == expected).mean() >= 0.999


def test_zip_is_a_bundle_too(tmp_path: Path) -> None:
    folder = ct(tmp_path / "ct_tiny")
    packed = Path(shutil.make_archive(str(tmp_path / "ct_tiny"), "zip", tmp_path, "ct_tiny"))
    assert find_spec(str(packed)) == find_spec(str(folder)).model_copy(update={"weights_sha256": find_spec(str(packed)).weights_sha256})
    assert load_model(str(packed), device="cpu").spec.window == (16, 24, 32)


def test_yaml_is_read_as_json_is(tmp_path: Path) -> None:
    folder = ct(tmp_path / "bundle")
    spec = find_spec(str(folder))
    path = folder / "configs" / "inference.json"
    path.with_suffix(".yaml").write_text(yaml.safe_dump(json.loads(path.read_text())))
    path.unlink()
    assert find_spec(str(folder)).window == spec.window


def test_windows_keep_to_a_region(tmp_path: Path) -> None:
    folder = ct(tmp_path / "bundle")
    values = (blobs(3, (50, 40, 30)) * 120 + 40).astype(np.int16)
    volume = read_volume(write_nifti(tmp_path / "scan.nii.gz", values, affine_of("LPS", (1.5, 1.5, 2.0))))
    whole = segment(volume, f"monai:{folder}").labels
    part = segment(volume, f"monai:{folder}", region=((5, 20), (10, 30), (0, 50))).labels
    assert part.shape == whole.shape
    assert not part[:5].any()
    assert (part[5:20, 10:30] == whole[5:20, 10:30]).mean() > 0.9


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        ({"_target_": "Resized", "keys": "image", "spatial_size": [64, 64, 64]}, "Resized"),
        ({"_target_": "CropForegroundd", "keys": "image", "source_key": "image"}, "CropForegroundd"),
        ({"_target_": "Lambdad", "keys": "image", "func": "x"}, "Lambdad"),
        ({"_target_": "Spacingd", "keys": "image", "pixdim": [1, 1, 1], "mode": "bicubic"}, "bicubic"),
        ({"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.uint8"}, "uint8"),
        ({"_target_": "NormalizeIntensityd", "keys": "image", "subtrahend": 3.0}, "NormalizeIntensityd"),
    ],
)
def test_transform_that_cannot_be_done_is_refused_by_name(tmp_path: Path, transform: dict[str, Any], words: str) -> None:
    folder = changed(ct(tmp_path / "bundle"), lambda config: config["preprocessing"]["transforms"].append(transform))
    with pytest.raises(ModelError, match=words):
        find_spec(str(folder))
    name = transform["_target_"]
    remarks = find_spec(f"monai:{folder}?without={name}").training["remarks"]
    assert any(name in remark for remark in remarks)


def test_transform_after_the_network_is_refused_by_name(tmp_path: Path) -> None:
    largest = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1]}
    folder = changed(ct(tmp_path / "bundle"), lambda config: config["postprocessing"]["transforms"].append(largest))
    with pytest.raises(ModelError, match="KeepLargestConnectedComponentd"):
        find_spec(str(folder))


@pytest.mark.parametrize(
    "inferer",
    [
        {"_target_": "SimpleInferer"},
        {"_target_": "SlidingWindowInferer", "roi_size": [-1, -1, -1]},
        {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "cval": 3.0},
        {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "overlap": [0.5, 0.5, 0.25]},
    ],
)
def test_inferer_that_cannot_be_done_is_refused(tmp_path: Path, inferer: dict[str, Any]) -> None:
    folder = changed(ct(tmp_path / "bundle"), lambda config: config.update(inferer=inferer))
    with pytest.raises(ModelError, match="inferer"):
        find_spec(str(folder))


HOSTILE = [
    pytest.param({"network_def": {"_target_": "subprocess.run", "args": ["touch", "MARK"]}}, "subprocess.run", id="target"),
    pytest.param({"network_def": "$__import__('os').system('touch MARK')"}, "__import__", id="import"),
    pytest.param({"network_def": "$().__class__.__bases__[0].__subclasses__()"}, "__class__", id="classes"),
    pytest.param(
        {"network_def": {"_target_": "UNet", "act": {"_target_": "os.system", "command": "touch MARK"}}}, "os.system", id="argument"
    ),
    pytest.param({"network_def": {"_target_": "builtins.eval", "source": "open('MARK', 'w')"}}, "builtins.eval", id="eval"),
    pytest.param({"network_def": {"_target_": "monai.bundle.run", "run_id": "x"}}, "monai.bundle.run", id="other part of MONAI"),
    pytest.param({"network_def": {"_target_": "torch.nn.modules.os.system"}}, "torch.nn.modules", id="through torch"),
    pytest.param({"network_def": "$open('MARK', 'w')"}, "open", id="open"),
    pytest.param({"network_def": "$[x for x in ().__class__.__mro__]"}, "for x in", id="comprehension"),
    pytest.param({"network_def": "$(lambda: open('MARK', 'w'))()"}, "lambda", id="lambda"),
    pytest.param({"inferer": "$getattr(torch, 'load')('MARK')"}, "getattr", id="inferer"),
]


@pytest.mark.parametrize(("change", "words"), HOSTILE)
def test_what_could_run_code_is_refused_with_file_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "models"))
    text = json.loads(json.dumps(change).replace("MARK", str(tmp_path / "mark")))
    folder = changed(ct(tmp_path / "bundle"), lambda config: config.update(text))
    with pytest.raises(TrustError) as caught:
        load_model(f"monai:{folder}", device="cpu")
    assert words in str(caught.value)
    assert "inference.json" in str(caught.value)
    assert f"line {(folder / 'configs' / 'inference.json').read_text()[:].split(words)[0].count(chr(10)) + 1} " in str(caught.value)
    assert caught.value.path == folder / "configs" / "inference.json"
    assert not (tmp_path / "mark").exists()


def test_network_of_the_bundle_runs_when_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "models"))
    folder = ct(tmp_path / "bundle")
    assert standing(find_spec(str(folder)), str(folder)).trust == "not needed"
    plain = load_model(f"monai:{folder}", device="cpu")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "__init__.py").write_text("")
    (folder / "scripts" / "mine.py").write_text("from monai.networks.nets import UNet\n\n\nclass Mine(UNet):\n    pass\n")
    changed(folder, lambda config: config["network_def"].update({"_target_": "scripts.mine.Mine"}))
    refused = []
    for _ in range(3):
        with pytest.raises(TrustError) as caught:
            load_model(f"monai:{folder}", device="cpu")
        refused.append(caught.value.path.name)
        trust(caught.value.path)
    assert sorted(refused) == ["__init__.py", "inference.json", "mine.py"]
    assert standing(find_spec(str(folder)), str(folder)).trust == "trusted"
    tile = torch.randn(1, 1, 16, 24, 32)
    assert torch.equal(load_model(f"monai:{folder}", device="cpu")(tile), plain(tile))
    (folder / "scripts" / "mine.py").write_text("raise SystemExit\n")
    with pytest.raises(TrustError, match=r"mine\.py"):
        load_model(f"monai:{folder}", device="cpu")


def test_network_reads_no_file_of_its_own(tmp_path: Path) -> None:
    hover = {"_target_": "HoVerNet", "mode": "fast", "pretrained_url": "https://example.org/weights.tar"}
    folder = changed(ct(tmp_path / "bundle"), lambda config: config.update(network_def=hover | {"in_channels": 1, "out_classes": 2}))
    with pytest.raises(ModelError, match="pretrained_url"):
        load_model(f"monai:{folder}", device="cpu")


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    folder = changed(ct(tmp_path / "bundle"), lambda config: config["network_def"].update(out_channels=5))
    with pytest.raises(WeightsError, match="of another shape"):
        load_model(f"monai:{folder}", device="cpu")


@pytest.mark.parametrize(
    "content", ["[1, 2", "[]", '{"a": ' * 5000 + "1" + "}" * 5000, '{"network_def": "@network_def", "preprocessing": []}', "\x00", "null"]
)
def test_damaged_configuration_gets_a_sentence(tmp_path: Path, content: str) -> None:
    folder = ct(tmp_path / "bundle")
    (folder / "configs" / "inference.json").write_text(content)
    with pytest.raises(ModelError):
        find_spec(f"monai:{folder}")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 + 2 * 3", 7),
        ("@a[1] * 2 if @b == 'x' else 0", 40),
        ("[@a[0], -@a[1]] + [0]", [10, -20, 0]),
        ("torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')", "cpu"),
        ("tuple(@a)", (10, 20)),
        ("{'k': max(@a)}['k']", 20),
        ("@c::d#0", 5),
        ("not True or len(@a) >= 2", True),
        ("torch.float32", "float32"),
    ],
)
def test_plain_expressions_are_interpreted(text: str, value: object) -> None:
    config = Config({"a": [10, 20], "b": "x", "c": {"d": [5]}, "e": f"${text}"}, "", "inference.json")
    assert config.get("e") == value


@pytest.mark.parametrize("text", ["9**9**9", "[0] * 10**9", "'a' * 10**9", "int('9' * 5000)", "2 ** 10 ** 10", "round(1, **{})"])
def test_expressions_do_not_grow(text: str) -> None:
    config = Config({"e": f"${text}"}, "", "inference.json")
    with pytest.raises(ModelError):
        config.get("e")
