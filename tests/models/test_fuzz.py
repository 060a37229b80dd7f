"""Files that were damaged by chance or by will: every loader describes them, or says in a sentence why it cannot."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from napari_tileseg.errors import ModelError
from napari_tileseg.models.loaders.registry import find_loader
from napari_tileseg.models.package import write_package
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path
    from types import SimpleNamespace

KINDS = {
    "onnx": ("onnx", "net.onnx"),
    "torchscript": ("torchscript", "net.pt"),
    "pt2": ("pt2", "net.pt2"),
    "checkpoint": ("checkpoint", "net.pth"),
    "old checkpoint": ("checkpoint", "old.pth"),
    "safetensors": ("checkpoint", "net.safetensors"),
    "package": ("tileseg", "net.tileseg.zip"),
}

Change = tuple[str, float, bytes]
changes = st.lists(
    st.tuples(
        st.sampled_from(["replace", "insert", "delete", "cut"]), st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=9)
    ),
    min_size=1,
    max_size=6,
)


@pytest.fixture
def seeds(small: torch.nn.Module, tools: SimpleNamespace, own_folder: Path, tmp_path: Path) -> Path:
    """Write one valid file of each kind."""
    folder = tmp_path / "seeds"
    folder.mkdir()
    for kind, write in tools.write.items():
        write(small, folder / KINDS[kind][1])
    state = small.state_dict()
    torch.save({"state_dict": state}, folder / "net.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file({key: value.clone() for key, value in state.items()}, folder / "net.safetensors")
    spec = {"name": "net", "architecture": "residual_unet", "arguments": tools.ARGUMENTS, **tools.SAID}
    write_package(folder / "net.tileseg.zip", ModelSpec.model_validate(spec), state)
    return folder


def changed(content: bytes, how: list[Change]) -> bytes:
    """Apply changes to places that are given as shares of the length, most of them near the ends, where the structure is."""
    data = bytearray(content)
    for kind, share, new in how:
        near = min(len(data), 4096)
        place = int(share * 2 * near) if share < 0.5 else len(data) - 1 - int((share - 0.5) * 2 * near)
        place = max(0, min(place, len(data)))
        if kind == "replace":
            data[place : place + len(new)] = new
        elif kind == "insert":
            data[place:place] = new
        elif kind == "delete":
            del data[place : place + len(new)]
        else:
            del data[place:]
    return bytes(data)


def repack(content: bytes, folder: Path, how: list[Change]) -> bytes:
    """Apply changes to the largest text or pickle inside a zip, so that they pass the archive's own checks."""
    source, target = folder / "in.zip", folder / "out.zip"
    source.write_bytes(content)
    with zipfile.ZipFile(source) as archive, zipfile.ZipFile(target, "w") as made:
        chosen = [info for info in archive.infolist() if info.filename.endswith((".pkl", ".json"))]
        largest = max(chosen, key=lambda info: info.file_size)
        for info in archive.infolist():
            data = archive.read(info)
            made.writestr(info.filename, changed(data, how) if info is largest else data)
    return target.read_bytes()


@pytest.mark.parametrize("kind", KINDS)
@given(how=changes, inside=st.booleans())
@example(how=[("cut", 0.0, b"\0")], inside=False)
@example(how=[("cut", 0.75, b"\0")], inside=False)
@example(how=[("replace", 0.01, b"\xff" * 9)], inside=True)
@example(how=[("insert", 0.0, b"[" * 9)], inside=True)
@example(how=[("replace", 0.499, b"\x80\x02.")], inside=True)
@example(how=[("cut", 0.125, b"\0"), ("replace", 0.5625, b"\\")], inside=True)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_described_or_refused_in_a_sentence(kind: str, how: list[Change], inside: bool, seeds: Path) -> None:
    scheme, name = KINDS[kind]
    content = (seeds / name).read_bytes()
    folder = seeds.parent / "damaged"
    folder.mkdir(exist_ok=True)
    path = folder / name
    inner = inside and content[:2] == b"PK"
    path.write_bytes(repack(content, folder, how) if inner else changed(content, how))
    loader = find_loader(scheme)
    try:
        assert isinstance(loader.call("read_spec", path), ModelSpec)
    except ModelError as error:
        assert str(error).isprintable()
        assert len(str(error)) < 1000
        assert str(error).rstrip().endswith((".", "'."))


@pytest.mark.parametrize("kind", KINDS)
def test_the_undamaged_files_are_described(kind: str, seeds: Path) -> None:
    scheme, name = KINDS[kind]
    loader = find_loader(scheme)
    assert loader.call("detect", seeds / name)
    assert len(loader.call("read_spec", seeds / name).classes) == 3


def test_cards_are_read_without_torch(seeds: Path) -> None:
    refs = [str(seeds / KINDS[kind][1]) for kind in ("onnx", "torchscript", "pt2", "package")]
    code = f"""
import sys
from napari_tileseg.models.registry import find_spec
for ref in {json.dumps(refs)}:
    assert find_spec(ref).axes == "CYX"
loaded = {{"torch", "monai", "onnx", "onnxruntime"}} & sys.modules.keys()
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
