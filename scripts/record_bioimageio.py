"""Make small BioImage.IO packages, and record what bioimageio.core answers, for tests/models/test_bioimageio.py.

Run it in an environment of its own, from the root of the repository; nothing of it is needed to run the test::

    python -m venv bioimageio-venv
    bioimageio-venv/bin/pip install bioimageio.core torch monai onnx onnxruntime onnxscript
    bioimageio-venv/bin/python scripts/record_bioimageio.py
"""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import monai.networks.nets
import numpy as np
import torch
import yaml
from bioimageio.core import create_prediction_pipeline
from bioimageio.core.sample import Sample
from bioimageio.core.tensor import Tensor
from bioimageio.spec import load_model_description

TARGET = Path(__file__).parent.parent / "tests" / "models" / "bioimageio"

LARGER = {
    "source-2d-v4": ((1, 1, 150, 200), "uint8", 64, 4),
    "library-3d-v5": ((1, 1, 40, 50, 60), "uint16", 40, 6),
    "onnx-2d-v5": ((1, 3, 130, 140), "uint8", 64, 3),
}
"""Images that are larger than a block, and of integers; the side of a block, and the halo."""

SOURCE = '''"""A network of two convolutions."""

from torch import nn


class Two(nn.Module):
    """Convolutions that keep the size, or lose `lost` pixels at each side."""

    def __init__(self, ndim=2, channels=1, classes=1, width=4, lost=0, activation="none", heads=1):
        super().__init__()
        conv = {2: nn.Conv2d, 3: nn.Conv3d}[ndim]
        self.first = conv(channels, width, 5, padding=2 - lost)
        self.second = conv(width, classes, 3, padding=1)
        self.activation = {"none": nn.Identity(), "sigmoid": nn.Sigmoid()}[activation]
        self.heads = heads

    def forward(self, batch):
        found = self.activation(self.second(self.first(batch).relu()))
        return found if self.heads == 1 else (found, found.mean((2, 3)))
'''


def two(seed: int, **arguments: Any) -> torch.nn.Module:
    """Build the network of the source file, its scores spread so that labels are of both kinds."""
    space: dict[str, Any] = {}
    exec(SOURCE, space)
    torch.manual_seed(seed)
    network = space["Two"](**arguments)
    with torch.no_grad():
        network.second.weight *= 3
    return network.eval()


class Last(torch.nn.Module):
    """A network whose channels come last."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return self.network(batch.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def image(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return blobs on an uneven ground."""
    generator = np.random.default_rng(seed)
    coarse = generator.random([max(1, size // 4) if size > 8 else size for size in shape])
    for axis, size in enumerate(shape):
        coarse = np.repeat(coarse, -(-size // coarse.shape[axis]), axis).take(range(size), axis)
    values = coarse * 180 + generator.random(shape) * 40
    return values.astype(dtype)


def axes5(letters: str, sizes: dict[str, Any], channels: list[str], **more: dict[str, Any]) -> list[dict[str, Any]]:
    """Return axes as version 0.5 writes them."""
    found = []
    for letter in letters:
        if letter == "b":
            found.append({"type": "batch"})
        elif letter == "c":
            found.append({"type": "channel", "channel_names": channels})
        else:
            found.append({"type": "space", "id": letter, "size": sizes[letter], **more.get(letter, {})})
    return found


def follows(letters: str, offset: int = 0) -> dict[str, Any]:
    return {letter: {"tensor_id": "raw", "axis_id": letter, "offset": offset} for letter in letters}


def general(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "description": "A tiny network for tests.",
        "authors": [{"name": "Nobody"}],
        "cite": [{"text": "Nobody (2024)", "doi": "10.1234/nothing"}],
        "license": "CC0-1.0",
        "documentation": "README.md",
        "type": "model",
        "timestamp": "2024-01-01T00:00:00",
        "covers": [],
        "tags": ["segmentation"],
    }


def source_2d_v4() -> dict[str, Any]:
    return {
        "kind": "source",
        "network": two(1),
        "arguments": {},
        "image": image(1, (1, 1, 48, 64), "float32"),
        "version": "0.4.10",
        "inputs": [
            {
                "name": "raw",
                "axes": "bcyx",
                "data_type": "float32",
                "data_range": ["-inf", "inf"],
                "shape": {"min": [1, 1, 16, 16], "step": [0, 0, 16, 16]},
                "preprocessing": [{"name": "zero_mean_unit_variance", "kwargs": {"mode": "per_sample", "axes": "yx"}}],
            }
        ],
        "outputs": [
            {
                "name": "mask",
                "axes": "bcyx",
                "data_type": "float32",
                "data_range": [0, 1],
                "halo": [0, 0, 4, 4],
                "shape": {"reference_tensor": "raw", "scale": [1, 1, 1, 1], "offset": [0, 0, 0, 0]},
                "postprocessing": [{"name": "sigmoid"}],
            }
        ],
    }


def library_3d_v5() -> dict[str, Any]:
    unet = {
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 3,
        "channels": [4, 8],
        "strides": [2],
        "num_res_units": 1,
        "norm": "BATCH",
    }
    torch.manual_seed(5)
    library = monai.networks.nets.UNet(**{**unet, "channels": (4, 8), "strides": (2,)}).eval()
    return {
        "kind": "library",
        "network": library,
        "arguments": unet,
        "image": image(2, (1, 1, 16, 16, 24), "float32"),
        "version": "0.5.3",
        "inputs": [
            {
                "id": "raw",
                "axes": axes5("bczyx", {key: {"min": 16, "step": 8} for key in "zyx"}, ["intensity"]),
                "data": {"type": "float32"},
                "preprocessing": [
                    {"id": "ensure_dtype", "kwargs": {"dtype": "float32"}},
                    {"id": "scale_range", "kwargs": {"axes": ["channel", "z", "y", "x"], "min_percentile": 1, "max_percentile": 99.8}},
                    {"id": "clip", "kwargs": {"min": 0.0, "max": 1.0}},
                ],
            }
        ],
        "outputs": [
            {
                "id": "classes",
                "data": {"type": "float32"},
                "axes": axes5("bczyx", follows("zyx"), ["background", "cell", "nucleus"], **{key: {"halo": 6} for key in "zyx"}),
                "postprocessing": [{"id": "softmax", "kwargs": {"axis": "channel"}}],
            }
        ],
    }


def script_3d_v4() -> dict[str, Any]:
    return {
        "kind": "script",
        "network": two(3, ndim=3, classes=2, activation="sigmoid"),
        "version": "0.4.9",
        "image": image(3, (1, 1, 8, 16, 24), "float32"),
        "inputs": [
            {
                "name": "raw",
                "axes": "bczyx",
                "data_type": "float32",
                "data_range": ["-inf", "inf"],
                "shape": {"min": [1, 1, 8, 8, 8], "step": [0, 0, 8, 8, 8]},
                "preprocessing": [
                    {"name": "scale_linear", "kwargs": {"gain": 0.02, "offset": -1.0}},
                    {"name": "clip", "kwargs": {"min": -0.9, "max": 2.0}},
                ],
            }
        ],
        "outputs": [
            {
                "name": "heads",
                "axes": "bczyx",
                "data_type": "float32",
                "data_range": [0, 1],
                "shape": {"reference_tensor": "raw", "scale": [1, 0, 1, 1, 1], "offset": [0, 1, 0, 0, 0]},
            }
        ],
    }


def onnx_2d_v5() -> dict[str, Any]:
    series = {"y": {"min": 16, "step": 16}, "x": {"min": 16, "step": 16}}
    return {
        "kind": "onnx",
        "network": two(4, channels=3, classes=2),
        "image": image(4, (1, 3, 32, 48), "float32"),
        "version": "0.5.3",
        "inputs": [
            {
                "id": "raw",
                "axes": axes5("bcyx", series, ["red", "green", "blue"]),
                "data": {"type": "float32"},
                "preprocessing": [
                    {
                        "id": "fixed_zero_mean_unit_variance",
                        "kwargs": {"axis": "channel", "mean": [100.0, 110.0, 90.0], "std": [50.0, 40.0, 60.0]},
                    }
                ],
            }
        ],
        "outputs": [
            {
                "id": "cells",
                "data": {"type": "float32"},
                "axes": axes5("bcyx", follows("yx"), ["foreground", "boundary"], y={"halo": 3}, x={"halo": 3}),
                "postprocessing": [{"id": "sigmoid"}],
            }
        ],
    }


def onnx_2d_v4() -> dict[str, Any]:
    return {
        "kind": "onnx",
        "network": Last(two(11, channels=2, classes=2)),
        "image": image(5, (1, 32, 40, 2), "float32"),
        "version": "0.4.10",
        "inputs": [
            {
                "name": "raw",
                "axes": "byxc",
                "data_type": "float32",
                "data_range": ["-inf", "inf"],
                "shape": [1, 32, 40, 2],
                "preprocessing": [
                    {
                        "name": "zero_mean_unit_variance",
                        "kwargs": {"mode": "fixed", "axes": "yx", "mean": [90.0, 120.0], "std": [40.0, 70.0]},
                    }
                ],
            }
        ],
        "outputs": [
            {
                "name": "masks",
                "axes": "byxc",
                "data_type": "float32",
                "data_range": [0, 1],
                "shape": [1, 32, 40, 2],
                "postprocessing": [{"name": "sigmoid"}, {"name": "binarize", "kwargs": {"threshold": 0.4}}],
            }
        ],
    }


def script_2d_v5() -> dict[str, Any]:
    series = {"y": {"min": 16, "step": 16}, "x": {"min": 16, "step": 16}}
    return {
        "kind": "script",
        "network": two(7, channels=2, classes=3, lost=2),
        "image": image(6, (1, 2, 48, 48), "float32"),
        "version": "0.5.4",
        "inputs": [
            {
                "id": "raw",
                "axes": axes5("bcyx", series, ["membrane", "nuclei"]),
                "data": {"type": "float32"},
                "preprocessing": [{"id": "zero_mean_unit_variance", "kwargs": {"axes": ["channel", "y", "x"]}}],
            }
        ],
        "outputs": [
            {
                "id": "scores",
                "data": {"type": "float32"},
                "axes": axes5("bcyx", follows("yx", -4), ["a", "b", "c"]),
            }
        ],
    }


def source_3d_v5() -> dict[str, Any]:
    series = {key: {"min": 8, "step": 8} for key in "zyx"}
    return {
        "kind": "source",
        "network": two(8, ndim=3, classes=2, heads=2),
        "arguments": {"ndim": 3, "classes": 2, "heads": 2},
        "image": image(7, (1, 1, 8, 24, 16), "float32"),
        "version": "0.5.3",
        "inputs": [
            {
                "id": "raw",
                "axes": axes5("bczyx", series, ["intensity"]),
                "data": {"type": "float32"},
                "preprocessing": [
                    {"id": "zero_mean_unit_variance", "kwargs": {"axes": ["z", "y", "x"]}},
                    {"id": "scale_linear", "kwargs": {"gain": 2.0, "offset": 0.5}},
                    {"id": "sigmoid"},
                    {"id": "scale_range", "kwargs": {"axes": ["z", "y", "x"], "min_percentile": 2.0, "max_percentile": 98.0}},
                ],
            }
        ],
        "outputs": [
            {
                "id": "scores",
                "data": {"type": "float32"},
                "axes": axes5("bczyx", follows("zyx"), ["cell", "wall"]),
                "postprocessing": [
                    {"id": "scale_linear", "kwargs": {"gain": 0.5, "offset": 0.1}},
                    {"id": "binarize", "kwargs": {"threshold": 0.1}},
                ],
            },
            {
                "id": "summary",
                "data": {"type": "float32"},
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": ["a", "b"]},
                    {"type": "space", "id": "x", "size": follows("x")["x"]},
                ],
            },
        ],
    }


def packages() -> dict[str, dict[str, Any]]:
    """Return every package: how its weights are stored, its description, its network, its test image."""
    makers = (source_2d_v4, library_3d_v5, script_3d_v4, onnx_2d_v5, onnx_2d_v4, script_2d_v5, source_3d_v5)
    return {make.__name__.replace("_", "-"): make() for make in makers}


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def weights(recipe: dict[str, Any], files: dict[str, bytes]) -> dict[str, Any]:
    """Write the weights; return how the description names them."""
    network, kind, example = recipe["network"], recipe["kind"], torch.from_numpy(recipe["image"])
    new = recipe["version"].startswith("0.5")
    stream = io.BytesIO()
    if kind == "script":
        torch.jit.save(torch.jit.trace(network, example), stream)
        files["weights.pt"] = stream.getvalue()
        entry = {"source": "weights.pt", "sha256": sha256(files["weights.pt"])}
        return {"torchscript": {**entry, "pytorch_version": "2.0"} if new else entry}
    if kind == "onnx":
        space = [index for index, size in enumerate(example.shape) if size > 8] if new else []
        torch.onnx.export(
            network,
            (example,),
            stream,
            dynamo=False,
            opset_version=17,
            input_names=["raw"],
            output_names=["scores"],
            dynamic_axes={"raw": {index: f"n{index}" for index in space}, "scores": {index: f"n{index}" for index in space}},
        )
        files["weights.onnx"] = stream.getvalue()
        return {"onnx": {"source": "weights.onnx", "sha256": sha256(files["weights.onnx"]), "opset_version": 17}}
    torch.save(network.state_dict(), stream)
    files["weights.pt"] = stream.getvalue()
    entry = {"source": "weights.pt", "sha256": sha256(files["weights.pt"])}
    if kind == "library":
        architecture = {"callable": "UNet", "import_from": "monai.networks.nets", "kwargs": recipe["arguments"]}
        return {"pytorch_state_dict": {**entry, "architecture": architecture, "pytorch_version": "2.0"}}
    files["two.py"] = SOURCE.encode()
    if new:
        architecture = {"callable": "Two", "source": "two.py", "sha256": sha256(files["two.py"]), "kwargs": recipe["arguments"]}
        return {"pytorch_state_dict": {**entry, "architecture": architecture, "pytorch_version": "2.0"}}
    old = {"architecture": "two.py:Two", "architecture_sha256": sha256(files["two.py"]), "kwargs": recipe["arguments"]}
    return {"pytorch_state_dict": {**entry, **old}}


def pack(recipe: dict[str, Any], name: str, path: Path, outputs: list[np.ndarray]) -> None:
    """Write a package whose test outputs are given."""
    files = {"README.md": b"# A test\n", "input.npy": npy(recipe["image"])}
    description = {**general(name), "format_version": recipe["version"], "weights": weights(recipe, files)}
    inputs, results = [dict(tensor) for tensor in recipe["inputs"]], [dict(tensor) for tensor in recipe["outputs"]]
    for index, array in enumerate(outputs):
        files[f"output{index}.npy"] = npy(array)
    if recipe["version"].startswith("0.5"):
        inputs[0]["test_tensor"] = {"source": "input.npy", "sha256": sha256(files["input.npy"])}
        for index, tensor in enumerate(results):
            tensor["test_tensor"] = {"source": f"output{index}.npy", "sha256": sha256(files[f"output{index}.npy"])}
    else:
        description |= {"test_inputs": ["input.npy"], "test_outputs": [f"output{index}.npy" for index in range(len(outputs))]}
    files["rdf.yaml"] = yaml.safe_dump({**description, "inputs": inputs, "outputs": results}, sort_keys=False).encode()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(zipfile.ZipInfo(file, (2024, 1, 1, 0, 0, 0)), content, zipfile.ZIP_DEFLATED)


def predict(path: Path, array: np.ndarray, *, tests: bool) -> list[np.ndarray]:
    """Ask bioimageio.core: for the answer to a test tensor, or for that to any image, padded and cropped by the halo."""
    model = load_model_description(path, format_version="latest", perform_io_checks=False)
    tensor = Tensor(array, dims=[axis.id for axis in model.inputs[0].axes])
    sample = Sample(members={model.inputs[0].id: tensor}, stat={}, id=None)
    with create_prediction_pipeline(model) as pipeline:
        if tests:
            found = pipeline.predict_sample_without_blocking(sample, skip_input_padding=True, skip_output_cropping=True)
        else:
            found = pipeline.predict_sample_with_blocking(sample, ns=3)
        return [np.asarray(found.members[tensor.id].data.to_numpy()) for tensor in model.outputs if tensor.id in found.members]


def main() -> None:
    """Write packages and answers."""
    TARGET.mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"source": f"bioimageio.core {version('bioimageio.core')}", "larger": {}}
    for name, recipe in packages().items():
        with tempfile.TemporaryDirectory() as folder:
            first = Path(folder, f"{name}.zip")
            outputs = [np.zeros((1,) * len(tensor["axes"]), np.float32) for tensor in recipe["outputs"]]
            pack(recipe, name, first, outputs)
            answers = [answer.astype(np.float32) for answer in predict(first, recipe["image"], tests=True)]
        path = TARGET / f"{name}.zip"
        pack(recipe, name, path, answers + outputs[len(answers) :])
        if name in LARGER:
            shape, dtype, window, halo = LARGER[name]
            facts["larger"][name] = {"shape": shape, "dtype": dtype, "window": window, "halo": halo}
            (scores,) = predict(path, image(99, shape, dtype), tests=False)
            labels = scores.argmax(1) if name.startswith("library") else scores[0] >= 0.5
            np.savez_compressed(TARGET / f"{name}.npz", labels=labels.astype(np.uint8).squeeze())
        print(name, [(answer.shape, float(answer.min()), float(answer.mean()), float(answer.max())) for answer in answers])
    (TARGET / "source.json").write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
