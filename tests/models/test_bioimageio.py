"""BioImage.IO packages give what bioimageio.core gives; what cannot be done as meant is refused with a sentence."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from napari_tileseg.errors import ModelError, OptionsError, TrustError, WeightsError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.imports import standing
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import card, find_spec
from napari_tileseg.models.trust import trust
from napari_tileseg.pipeline import segment
from napari_tileseg.verification import verify

HERE = Path(__file__).parent / "bioimageio"
FACTS = json.loads((HERE / "source.json").read_text())
NAMES = sorted(path.stem for path in HERE.glob("*.zip"))

CHAIN = [(0, b"b"), *((index, b"c%d" % (index - 1)) for index in range(1, 30))]
"""Aliases, each of which stands for the one before twice."""

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
    inside = (..., *(slice(4, -4),) * model.spec.spatial_ndim)
    assert same[inside].mean() >= 0.9999
    assert same.mean() >= 0.98  # at the border bioimageio.core repeats the last pixel, the engine does not


def step(name: str, **values: Any) -> Any:
    """Return a change that gives version 0.5's input one step."""
    return lambda description: description["inputs"][0].update(preprocessing=[{"id": name, "kwargs": values}])


def after(*steps: dict[str, Any]) -> Any:
    return lambda description: description["outputs"][0].update(postprocessing=list(steps))


def size(letter: str, value: Any) -> Any:
    def change(description: dict[str, Any]) -> None:
        next(axis for axis in description["outputs"][0]["axes"] if axis.get("id") == letter)["size"] = value

    return change


REFUSED = {
    "statistics of planes": (step("zero_mean_unit_variance", axes=["x"]), "zero_mean_unit_variance.*x only"),
    "another tensor": (step("scale_range", axes=["y", "x"], reference_tensor="other"), "scale_range.*other"),
    "another image": (step("scale_mean_variance", reference_tensor="other"), "scale_mean_variance"),
    "whole numbers": (step("ensure_dtype", dtype="uint8"), "ensure_dtype.*uint8"),
    "a step of its own": (step("custom", source="mine.py"), "custom"),
    "numbers for other channels": (step("scale_linear", gain=[1, 2], offset=[0, 0], axis="channel"), "2 numbers for 3 channels"),
    "no gain": (step("scale_linear", gain=0.0, offset=1.0), "scale_linear"),
    "wrong order": (step("scale_range", axes=["y", "x"], min_percentile=99, max_percentile=1), "scale_range.*percentile"),
    "no threshold": (step("binarize"), "binarize"),
    "not finite": (step("scale_linear", gain=float("nan")), "finite"),
    "stars": (after({"id": "stardist_postprocessing", "kwargs": {"prob_threshold": 0.5}}), "stardist_postprocessing"),
    "range of the output": (after({"id": "scale_range", "kwargs": {"axes": ["y", "x"]}}), "scale_range"),
    "rounded scores": (after({"id": "ensure_dtype", "kwargs": {"dtype": "uint8"}}), "ensure_dtype"),
    "two inputs": (lambda description: description["inputs"].append(dict(description["inputs"][0], id="second")), "2 inputs"),
    "newer version": (lambda description: description.update(format_version="0.9.0"), "0.9.0"),
    "another kind": (lambda description: description.update(type="dataset"), "dataset"),
    "no weights": (lambda description: description.update(weights={"keras_hdf5": {"source": "a.h5"}}), "Keras HDF5"),
    "another scale": (size("y", {"tensor_id": "raw", "axis_id": "y", "offset": 8}), "more pixels"),
    "a fixed output": (size("y", 64), "64 pixels"),
    "size of text": (lambda description: description["inputs"][0]["axes"][2].update(size="many"), "size"),
    "time": (lambda description: description["inputs"][0]["axes"].append({"type": "time", "id": "time", "size": 5}), "axis t"),
    "no space": (lambda description: description["inputs"][0].update(axes=description["inputs"][0]["axes"][:3]), "axes bcy"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_done_as_it_is_meant_is_refused_by_name(tmp_path: Path, name: str) -> None:
    change, words = REFUSED[name]
    path = changed(tmp_path / "model.zip", "onnx-2d-v5", change)
    with pytest.raises(ModelError, match=words):
        find_spec(f"bioimageio:{path}")
        load_model(f"bioimageio:{path}", device="cpu")


def test_card_of_a_package() -> None:
    spec = find_spec(str(HERE / "library-3d-v5.zip"))
    assert spec.output == "softmax"
    assert spec.classes == ["background", "cell", "nucleus"]
    assert spec.blending == "crop"
    assert spec.multiple_of == 8
    assert spec.window[0] * spec.overlap // 2 == 6
    assert spec.citation == "Nobody (2024) 10.1234/nothing"
    assert spec.unknown == []
    heads = find_spec(str(HERE / "script-2d-v5.zip"))
    assert heads.output == "sigmoid"
    assert heads.output_offset == (2, 2)
    assert "output" in heads.unknown
    assert find_spec(str(HERE / "onnx-2d-v4.zip")).fixed_window


def test_fixed_window_stays(trusted: Any) -> None:
    pytest.importorskip("onnxruntime")
    model = load_model(str(HERE / "onnx-2d-v4.zip"), device="cpu")
    image = blobs(1, (2, 60, 70), "uint8")
    assert segment(image, model, axes="CYX").labels.shape == (2, 60, 70)
    with pytest.raises(OptionsError, match="32 x 40 only"):
        segment(image, model, axes="CYX", options=SegmentOptions(window=(64, 64)))


def test_source_is_refused_with_its_line_until_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "models"))
    files = unpacked("source-2d-v4")
    mark = tmp_path / "mark"
    files["two.py"] += f"\nopen({str(mark)!r}, 'w').close()\n".encode()
    description = yaml.safe_load(files["rdf.yaml"])
    del description["weights"]["pytorch_state_dict"]["architecture_sha256"]
    files["rdf.yaml"] = yaml.safe_dump(description).encode()
    path = packed(tmp_path / "model.zip", files)
    with pytest.raises(TrustError, match=r"two\.py.*line 6 builds Two") as caught:
        load_model(f"bioimageio:{path}", device="cpu")
    assert not mark.exists()
    assert caught.value.path is not None
    trust(caught.value.path)
    load_model(f"bioimageio:{path}", device="cpu")
    assert mark.exists()
    files["two.py"] += b"# another file\n"
    with pytest.raises(TrustError):
        load_model(f"bioimageio:{packed(tmp_path / 'other.zip', files)}", device="cpu")


def test_script_is_refused_until_it_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "models"))
    with pytest.raises(TrustError, match="TorchScript"):
        load_model(str(HERE / "script-2d-v5.zip"), device="cpu")


def test_exchanged_weights_are_refused(tmp_path: Path) -> None:
    files = unpacked("library-3d-v5")
    stream = io.BytesIO()
    np.save(stream, np.zeros(3))
    files["weights.pt"] = stream.getvalue()
    with pytest.raises(WeightsError, match="SHA-256"):
        load_model(f"bioimageio:{packed(tmp_path / 'model.zip', files)}", device="cpu")


def test_library_outside_the_list_is_refused(tmp_path: Path) -> None:
    def change(description: dict[str, Any]) -> None:
        description["weights"]["pytorch_state_dict"]["architecture"].update(import_from="subprocess", callable="run")

    path = changed(tmp_path / "model.zip", "library-3d-v5", change)
    with pytest.raises(ModelError, match=r"subprocess\.run"):
        load_model(f"bioimageio:{path}", device="cpu")


def test_failed_test_tensor_shows_on_the_card(tmp_path: Path) -> None:
    files = unpacked("library-3d-v5")
    expected = np.load(io.BytesIO(files["output0.npy"]))
    stream = io.BytesIO()
    np.save(stream, expected[:, ::-1])
    files["output0.npy"] = stream.getvalue()
    description = yaml.safe_load(files["rdf.yaml"])
    del description["outputs"][0]["test_tensor"]["sha256"]
    files["rdf.yaml"] = yaml.safe_dump(description).encode()
    ref = f"bioimageio:{packed(tmp_path / 'model.zip', files)}"
    assert "not run yet" in card(ref)
    (check,) = verify(ref)
    assert not check.passed
    assert "failed" in card(ref)


def test_folder_is_read_as_a_zip_is(tmp_path: Path) -> None:
    for name, content in unpacked("library-3d-v5").items():
        (tmp_path / name).write_bytes(content)
    spec = find_spec(str(tmp_path))
    assert spec.classes == find_spec(str(HERE / "library-3d-v5.zip")).classes
    assert load_model(str(tmp_path / "rdf.yaml"), device="cpu").spec.title == "library-3d-v5"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1, 2", "damaged"),
        (b"!!python/object/apply:os.system ['touch mark']", "damaged"),
        (b"- 1\n- 2\n", "no description"),
        (b"a: &a [1]\nb: &b [*a, *a]\n" + b"".join(b"c%d: &c%d [*%s, *%s]\n" % (i, i, p, p) for i, p in CHAIN), "more than"),
        (b"a: &a [*a]\n", "contains itself"),
        (b"[" * 3000, "nested too deeply|damaged"),
        (b"", "no description"),
        (b"\xff\xfe\x00", "damaged"),
        (b"a: " + b"x" * (5 * 2**20), "bytes"),
    ],
    ids=["cut", "object", "list", "bomb", "loop", "deep", "empty", "bytes", "long"],
)
def test_hostile_description_gets_a_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "rdf.yaml").write_bytes(content)
    with pytest.raises(ModelError, match=words):
        find_spec(f"bioimageio:{tmp_path}")


def test_card_holds_no_markup(tmp_path: Path) -> None:
    path = changed(tmp_path / "model.zip", "library-3d-v5", lambda description: description.update(name="<script>x</script>\x1b[31m"))
    text = card(f"bioimageio:{path}")
    assert "<" not in text
    assert "\x1b" not in text


def test_only_files_that_run_need_trust(trusted: Any) -> None:
    assert standing(find_spec(str(HERE / "library-3d-v5.zip")), str(HERE / "library-3d-v5.zip")).trust == "not needed"
    path = HERE / "source-2d-v4.zip"
    assert standing(find_spec(str(path)), str(path)).trust == "needed"
    trusted(path)
    assert standing(find_spec(str(path)), str(path)).trust == "trusted"
