"""A framework is imported only when a model needs it, and a missing one is named with the line to type."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from napari_tileseg.errors import ModelError
from napari_tileseg.models.loaders.registry import BUILTIN, EXTRAS
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import find_spec
from napari_tileseg.models.trust import trust

if TYPE_CHECKING:
    from types import SimpleNamespace

    import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
NNUNET = HERE / "loaders" / "nnunet" / "Dataset901_Hippocampus"
FRAMEWORKS = ("torch", "monai", "onnx", "onnxruntime", "bioimageio", "nnunetv2", "dynamic_network_architectures", "timm", "torchvision")
FRAMEWORKS += ("cellpose", "stardist", "tensorflow", "h5py", "napari", "qtpy")

_CODE = """
import json, sys, warnings
warnings.simplefilter("ignore")
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import find_spec, list_models
frameworks, refs = json.loads(sys.argv[1])
list_models()
loaded = sorted(set(frameworks) & sys.modules.keys())
print(json.dumps(["list", loaded, []]))
for kind, ref in refs:
    before = set(sys.modules)
    find_spec(ref)
    card = sorted(set(frameworks) & (sys.modules.keys() - before))
    load_model(ref, device="cpu")
    print(json.dumps([kind, card, sorted(set(frameworks) & (sys.modules.keys() - before))]), flush=True)
"""


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_each_kind_imports_what_it_needs_and_no_more(
    small: torch.nn.Module, tools: SimpleNamespace, tmp_path: Path, own_folder: Path
) -> None:
    script = tools.write_torchscript(small, tmp_path / "net.ts")
    trust(script)
    refs = {
        "nnunet": f"nnunet:{NNUNET}?configuration=2d",
        "own": "hippocampus-3d",
        "torchscript": str(script),
        "cellpose": f"cellpose:{HERE / 'loaders' / 'cellpose' / 'small3'}",
        "stardist": f"stardist:{HERE / 'loaders' / 'stardist' / 'plane'}",
        "bioimageio": str(HERE / "bioimageio" / "onnx-2d-v5.zip"),
        "onnx": str(tools.write_onnx(small, tmp_path / "net.onnx")),
        "monai": str(HERE / "bioimageio" / "library-3d-v5.zip"),
    }
    asked = json.dumps([FRAMEWORKS, list(refs.items())])
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", _CODE, asked], env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = {kind: (card, loaded) for kind, card, loaded in map(json.loads, done.stdout.splitlines())}
    assert found == {
        "list": ([], []),
        "nnunet": ([], ["torch"]),
        "own": ([], []),
        "torchscript": ([], []),
        "cellpose": ([], []),
        "stardist": ([], ["h5py"]),
        "bioimageio": ([], ["onnxruntime"]),
        "onnx": ([], []),  # there already
        "monai": ([], ["monai"]),
    }


def test_a_missing_extra_is_a_line_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_folder: Path) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    folder = HERE / "loaders" / "stardist" / "plane"
    assert find_spec(str(folder)).name
    with pytest.raises(ModelError, match=r'StarDist models need the package h5py, .*: pip install "napari-tileseg\[stardist\]"'):
        load_model(str(folder), device="cpu")
    path = shutil.copy(HERE / "bioimageio" / "onnx-2d-v5.zip", tmp_path)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert find_spec(str(path)).name
    with pytest.raises(
        ModelError, match=r'need (the package )?onnxruntime, which is not installed\. Install it: pip install "napari-tileseg\[onnx\]"'
    ):
        load_model(str(path), device="cpu")


def test_every_extra_of_a_loader_is_one_that_can_be_installed() -> None:
    import tomllib

    project: Any = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    named = {loader.extra for loader in BUILTIN if loader.extra}
    assert named <= set(EXTRAS)
    assert named <= set(project["optional-dependencies"])
