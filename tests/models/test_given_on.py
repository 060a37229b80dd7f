"""A model of any kind, exported in our own format, gives the same labels on another computer, where nothing of it is trusted."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch

from napari_tileseg.errors import TrustError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.imports import export_model, import_model, running_files, standing
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import find_spec
from napari_tileseg.models.trust import trust, trusted
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from types import SimpleNamespace

    from numpy.typing import NDArray

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NNUNET = HERE / "loaders" / "nnunet" / "Dataset901_Hippocampus"
KINDS = (
    "onnx",
    "onnx, weights beside",
    "torchscript",
    "pt2",
    "checkpoint",
    "checkpoint, named by its card",
    "own",
    "monai",
    "monai, zip",
    "monai, script",
    "bioimageio, library",
    "bioimageio, onnx",
    "bioimageio, script",
    "bioimageio, source",
    "nnunet",
    "nnunet, fold",
    "nnunet, one of two",
    "nnunet, zip",
    "cellpose, 3",
    "cellpose, 4",
    "stardist, plane",
    "stardist, volume",
)
RUNS = {"torchscript", "pt2", "monai, script", "bioimageio, script", "bioimageio, source"}
"""Kinds that can run code, and so need trust."""

QUICK = {"torchscript", "checkpoint", "monai, zip", "bioimageio, onnx", "bioimageio, source", "nnunet, one of two", "stardist, plane"}
"""One of each; the others take a minute together."""


def bundle(folder: Path, network: torch.nn.Module | None = None) -> Path:
    """Write a MONAI bundle: a state dict, or a TorchScript archive."""
    definition = {"_target_": "monai.networks.nets.UNet", "spatial_dims": 2, "in_channels": 2, "out_channels": 3}
    definition |= {"channels": [4, 8], "strides": [2]}
    config = {
        "device": "$torch.device('cpu')",
        "network_def": definition,
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "NormalizeIntensityd", "keys": "image", "channel_wise": True}],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32], "overlap": 0.5},
        "postprocessing": {"_target_": "Compose", "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}]},
    }
    classes = {"0": "background", "1": "one", "2": "two"}
    output = {"type": "segmentation", "num_channels": 3, "channel_def": classes}
    data = {"inputs": {"image": {"num_channels": 2, "spatial_shape": [32, 32], "channel_def": {"0": "a", "1": "b"}}}}
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    metadata = {"version": "0.1.0", "name": "Two", "network_data_format": {**data, "outputs": {"pred": output}}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    if network is not None:
        torch.jit.trace(network, torch.zeros(1, 2, 32, 32)).save(folder / "models" / "model.ts")
        return folder
    from monai.networks.nets import UNet

    torch.manual_seed(0)
    torch.save(UNet(2, 2, 3, [4, 8], [2]).state_dict(), folder / "models" / "model.pt")
    return folder


def zipped(folder: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(folder.parent).as_posix())
    return target


def make(kind: str, folder: Path, small: torch.nn.Module, tools: SimpleNamespace) -> str:
    """Make a model of a kind, and return its reference."""
    name, _, more = kind.partition(", ")
    folder.mkdir()
    match name:
        case "onnx" | "torchscript" | "pt2":
            path = tools.write[name](small, folder / f"net.{'pt' if name == 'torchscript' else name}")
            if more:
                import onnx

                model = onnx.load(path)
                path.unlink()
                onnx.save_model(model, path, save_as_external_data=True, location="net.data", size_threshold=0)
            tools.say(path)
            return str(path)
        case "checkpoint":
            torch.save({"state_dict": small.state_dict()}, folder / "net.pth")
            tools.say(folder / "net.pth", **({"architecture": "residual_unet", "arguments": tools.ARGUMENTS} if more else {}))
            return str(folder / "net.pth")
        case "own":
            return "hippocampus-3d"
        case "monai":
            path = bundle(folder / "two", small if more == "script" else None)
            return str(zipped(path, folder / "two.zip") if more == "zip" else path)
        case "bioimageio":
            file = {"library": "library-3d-v5", "onnx": "onnx-2d-v5", "script": "script-2d-v5", "source": "source-2d-v4"}[more]
            return str(shutil.copy(HERE / "bioimageio" / f"{file}.zip", folder))
        case "cellpose":
            return f"cellpose:{shutil.copy(HERE / 'loaders' / 'cellpose' / f'small{more}', folder)}?diameter=25"
        case "stardist":
            pytest.importorskip("h5py")
            shutil.copytree(HERE / "loaders" / "stardist" / more, folder / more)
            return f"stardist:{folder / more}?prob_thresh=0.4"
    three = "nnUNetTrainer__nnUNetPlans__3d_fullres"
    shutil.copytree(NNUNET, folder / NNUNET.name)
    return {
        "": f"nnunet:{folder / NNUNET.name}?configuration=2d",
        "fold": str(folder / NNUNET.name / three / "fold_1"),
        "one of two": f"nnunet:{folder / NNUNET.name / three}?folds=0&checkpoint=best&configuration=3d_fullres",
        "zip": f"nnunet:{zipped(folder / NNUNET.name, folder / 'export.zip')}?folds=0,1" if more == "zip" else "",
    }[more]


def labels_of(ref: str) -> NDArray[Any]:
    """Return the labels of a small image, trusting whatever asks for it."""
    spec = find_spec(ref)
    shape = (len(spec.channels), *((20, 34, 30) if spec.spatial_ndim == 3 else (70, 83)))
    image = np.random.default_rng(5).random(shape, np.float32) * 255
    if spec.finds_objects:
        sample = tifffile.imread(ROOT / "sample_data" / "nuclei_fluorescence.tif")[40:200, 100:240].astype(np.float32)
        image = np.broadcast_to(sample, (len(spec.channels), *shape[1:-2], *sample.shape))
    options = SegmentOptions(device="cpu", tta=False, rescale=False)
    return np.asarray(segment(image, load_model(ref, device="cpu"), axes=spec.axes, options=options).labels)


def trust_all(ref: str) -> int:
    """Trust each file that asks for it; return how many did."""
    for count in range(5):
        try:
            load_model(ref, device="cpu")
        except TrustError as error:
            assert error.path is not None
            trust(error.path)
        else:
            return count
    raise AssertionError("it asks again and again")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in QUICK)) for kind in KINDS])
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_the_same_labels_elsewhere(
    kind: str, small: torch.nn.Module, tools: SimpleNamespace, own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ref = make(kind, tmp_path / "given", small, tools)
    assert (trust_all(ref) > 0) == (kind in RUNS)
    expected = labels_of(ref)
    assert len(np.unique(expected)) > 1
    import_model(ref, name="here")
    path = export_model("here", tmp_path / "given.tileseg.zip")
    direct = export_model(ref, tmp_path / "direct.tileseg.zip")
    shutil.rmtree(tmp_path / "given")
    shutil.rmtree(own_folder)
    shutil.rmtree(tmp_path / "cache", ignore_errors=True)

    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "other computer" / "models"))
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "other computer" / "cache"))
    assert trusted() == []
    import_model(str(path), name="there")
    assert bool(running_files("there")) == (kind in RUNS)
    assert standing(find_spec("there"), "there").trust == ("needed" if kind in RUNS else "not needed")
    for given in ("there", str(path), str(direct)):
        asked = trust_all(given)
        assert bool(asked) == (kind in RUNS and given == "there"), "the same bytes are trusted wherever they are"
        np.testing.assert_array_equal(labels_of(given), expected)
    assert find_spec("there").unknown == find_spec(str(path)).unknown
