"""BioImage.IO packages give what bioimageio.core gives; what cannot be done as meant is refused with a sentence."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from napari_tileseg.errors import TrustError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import card
from napari_tileseg.models.trust import trust
from napari_tileseg.pipeline import segment
from napari_tileseg.verification import verify

HERE = Path(__file__).parent / "bioimageio"
FACTS = json.loads((HERE / "source.json").read_text())
NAMES = sorted(path.stem for path in HERE.glob("*.zip"))

RUNS_CODE = {name for name in NAMES if name.startswith(("source", "script"))}

every_package = pytest.mark.parametrize("name", NAMES)


def blobs(seed: int, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Return the image that scripts/record_bioimageio.py has made of that seed."""
    generator = np.random.default_rng(seed)
    coarse = generator.random([max(1, size // 4) if size > 8 else size for size in shape])
    for axis, size in enumerate(shape):
        coarse = np.repeat(coarse, -(-size // coarse.shape[axis]), axis).take(range(size), axis)
    return (coarse * 180 + generator.random(shape) * 40).astype(dtype)


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that trusts what a package would run."""
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "models"))

    def agree(path: Path) -> str:
        ref = f"bioimageio:{path}"
        try:
            load_model(ref, device="cpu")
        except TrustError as error:
            assert error.path is not None
            trust(error.path)
        return ref

    return agree


def unpacked(name: str) -> dict[str, bytes]:
    with zipfile.ZipFile(HERE / f"{name}.zip") as archive:
        return {member: archive.read(member) for member in archive.namelist()}


def packed(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in files.items():
            archive.writestr(member, content)
    return path


def changed(path: Path, name: str, change: Any) -> Path:
    """Write a package with another description."""
    files = unpacked(name)
    description = yaml.safe_load(files["rdf.yaml"])
    change(description)
    files["rdf.yaml"] = yaml.safe_dump(description).encode()
    return packed(path, files)


@every_package
def test_test_tensors_come_out_as_bioimageio_core_has_them(name: str, trusted: Any) -> None:
    pytest.importorskip("onnxruntime") if name.startswith("onnx") else None
    ref = trusted(HERE / f"{name}.zip")
    (check,) = verify(ref)
    assert check.passed
    assert check.difference <= 2e-5 or check.share == 0.0
    assert "passed" in card(ref)


@pytest.mark.parametrize("name", sorted(FACTS["larger"]))
def test_labels_of_a_larger_image_are_those_of_bioimageio_core(name: str, trusted: Any) -> None:
    pytest.importorskip("onnxruntime") if name.startswith("onnx") else None
    facts = FACTS["larger"][name]
    expected = np.load(HERE / f"{name}.npz")["labels"]
    image = blobs(99, facts["shape"], facts["dtype"])[0]
    model = load_model(trusted(HERE / f"{name}.zip"), device="cpu")
    window = (facts["window"],) * model.spec.spatial_ndim
    options = SegmentOptions(window=window, overlap=(2 * facts["halo"] + 0.5) / window[0])
    found = segment(image, model, axes=model.spec.axes, options=options).labels
    found = found[0] if name.startswith("source") else found
    assert found.dtype in (np.uint8, bool)
    same = found.astype(np.uint8) == expected
    print(name, same.mean())
    inside = (..., *(slice(4, -4),) * model.spec.spatial_ndim)
    assert same[inside].mean() >= 0.9999
    assert same.mean() >= 0.98  # at the border bioimageio.core repeats the last pixel, the engine does not
