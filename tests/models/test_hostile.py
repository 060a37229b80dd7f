"""Hostile models: none runs, writes outside its folder, or takes more than 1 GB; each gets a sentence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

_OPEN = """
import json, resource, sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
import monai.networks.nets, numpy, onnxruntime, safetensors.torch, torch
from napari_tileseg.errors import ModelError
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import card, find_spec, list_models, stamp

def peak():
    "Return the most memory in kB; on Linux not by getrusage, which remembers the parent's."
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

for ref in json.loads(Path(sys.argv[1]).read_text()):
    before = peak()
    told = {"ref": ref, "errors": []}
    for step in (find_spec, card, stamp, lambda ref: load_model(ref, device="cpu")):
        try:
            step(ref)
        except ModelError as error:
            told["errors"].append([type(error).__name__, str(error)])
        except BaseException as error:
            told["unexpected"] = f"{type(error).__name__}: {error}"
        else:
            told["errors"].append(None)
    told["megabytes"] = peak() / 1024
    told["more"] = (peak() - before) / 1024
    print(json.dumps(told), flush=True)
"""

REASONS = {
    "torch.pth": "names posix.system",
    "reduce.pth": "names posix.system",
    "stack-global.pth": "names posix.system",
    "memo.pth": "names os.system",
    "inst.pth": "names os.system",
    "eval.pth": "names builtins.eval",
    "computed.pth": "names builtins.getattr",
    "dotted.pth": "names torch._utils.os.system",
    "extension.pth": "names copyreg extension",
    "whole-module.pth": "names torch.nn.modules.conv.Conv2d",
    "declared.pth": "declares a tensor of 25000000000 numbers",
    "declared-old.pth": "declares a tensor of 25000000000 numbers",
    "bytearray.pth": "asks for room for 4000000000",
    "storage-call.pth": "asks for room for 25000000000",
    "header.safetensors": "its header ends after the file",
    "deep.safetensors": "nested too deeply",
    "declared.onnx": "declares weights of 100000000000 bytes",
    "dotdot.onnx": "which is not in its folder",
    "absolute.onnx": "which is not in its folder",
    "link.onnx": "which is not in its folder",
    "few.onnx": "holds fewer",
    "deep.onnx": "nested too deeply",
    "bomb.tileseg.zip": "would grow from",
    "card-bomb.tileseg.zip": "more than the",
    "deep.tileseg.zip": "nested too deeply",
    "source-dotdot.tileseg.zip": "which is no file of the package",
    "source-absolute.tileseg.zip": "which is no file of the package",
    "entry-dotdot.tileseg.zip": "could lead outside",
    "entry-absolute.tileseg.zip": "could lead outside",
    "entry-control.tileseg.zip": "could lead outside",
    "entry-drive.tileseg.zip": "could lead outside",
    "entry-link.tileseg.zip": "is a link",
    "source-bomb.tileseg.zip": "would grow from",
    "members.tileseg.zip": "more than 10000 files",
    "wide.tileseg.zip": "do not fit its network",
    "many.tileseg.zip": "no network needs",
    "fetching.tileseg.zip": "asks for pretrained",
    "side-deep.pth": "nested too deeply",
    "side-list.pth": "side-car",
    "program.ts": "a TorchScript archive holds a program",
    "program.pt2": "an archive of torch.export holds a program",
    "deep.pt2": "nested too deeply",
}
"""What must be said of some of them."""


def everything(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*")}


@pytest.mark.skipif(sys.platform == "win32", reason="peaks of memory are told by another call there")
def test_no_hostile_model_runs_writes_elsewhere_or_takes_a_gigabyte(tmp_path: Path) -> None:
    sys.path.insert(0, str(Path(__file__).parent))
    try:
        import hostile
    finally:
        sys.path.pop(0)
    canary = tmp_path / "canary"
    refs = hostile.write_all(tmp_path / "given", canary)
    (tmp_path / "refs.json").write_text(json.dumps([str(path) for path in refs]))
    (tmp_path / "empty").mkdir()
    (tmp_path / "temporary").mkdir()
    before = everything(tmp_path)
    environment = {
        **os.environ,
        "TILESEG_MODELS": str(tmp_path / "empty"),
        "TILESEG_CACHE": str(tmp_path / "cache"),
        "TMPDIR": str(tmp_path / "temporary"),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, str(tmp_path / "refs.json")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = {Path(line["ref"]).name: line for line in map(json.loads, done.stdout.splitlines())}
    assert not canary.exists(), "a model ran a program"
    of_programs = {str(tmp_path / "temporary" / ".ses")}  # ONNX Runtime's own, made when it is imported
    written = {path for path in everything(tmp_path) - before - of_programs if not Path(path).is_relative_to(tmp_path / "cache")}
    assert not written, "a model wrote outside the cache"
    assert set(told) == {path.name for path in refs}
    for name, line in told.items():
        assert "unexpected" not in line, (name, line["unexpected"])
        assert line["megabytes"] < 1000, (name, line["megabytes"])
        assert line["errors"][-1] is not None, f"{name} was loaded"
        sentences = [told for told in line["errors"] if told is not None]
        for _, sentence in sentences:
            assert sentence.endswith((".", '".', "]"))
            assert sentence.isprintable(), repr(sentence)
            assert len(sentence) < 1000, sentence
        if name in REASONS:
            assert any(REASONS[name] in sentence for _, sentence in sentences), (name, sentences)
