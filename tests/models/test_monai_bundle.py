"""MONAI bundles give the labels that MONAI's own transforms, inferer and inverses give; what could run code is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image

from napari_tileseg.io import read_volume
from napari_tileseg.models.registry import card, find_spec
from napari_tileseg.pipeline import segment

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # MONAI's own, of defaults that will change

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
    print(f"{codes} {oblique} nearest={nearest}: {share:.6f}")
    assert share >= 0.999


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
    print(f"2D colours: {share:.6f}", np.bincount(found.ravel()))
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
    print(f"MRI {spacing}: {share:.6f}")
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
