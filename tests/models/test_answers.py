"""What a source does not say is said once, of a package or of files wherever they are, and remembered."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg import cli
from napari_tileseg.errors import ModelError, OutputError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.answers import accepted, answered, answers_folder
from napari_tileseg.models.imports import answer_model, export_model, import_model
from napari_tileseg.models.package import SPEC_FILE
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import find_spec, list_models, stamp
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace

    import numpy as np
    import torch
    from numpy.typing import NDArray

SAID = {"classes": ["background", "one", "two"], "channels": ["a", "b"], "window": (32, 32), "normalization": {"kind": "zscore"}}
CARD = ModelSpec(
    name="x", axes="CYX", channels=1, classes=["background", "cell"], window=(32, 32), unknown=["axes", "classes", "window", "spacing"]
)


@pytest.fixture
def file(small: torch.nn.Module, tools: SimpleNamespace, tmp_path: Path, own_folder: Path) -> Path:
    """Return an ONNX file that says little of itself, not in the user's folder."""
    path: Path = tools.write_onnx(small, tmp_path / "net.onnx")
    return path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["models", *map(str, arguments)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


def warnings_of(ref: str, image: NDArray[np.float32]) -> list[str]:
    return list(segment(image, ref, axes="CYX", options=SegmentOptions(device="cpu")).warnings)


def test_files_elsewhere_are_known_by_their_checksum(
    file: Path, small: Any, tools: SimpleNamespace, image: NDArray[np.float32], tmp_path: Path, own_folder: Path
) -> None:
    assert any("Say it once" in warning for warning in warnings_of(str(file), image))
    before = stamp(str(file))
    spec = answer_model(str(file), SAID)
    assert spec.unknown == ["spacing", "licence"]
    assert find_spec(str(file)) == spec
    assert load_model(str(file), device="cpu").spec.normalization.kind == "zscore"
    assert stamp(str(file)) != before, "who keeps it loaded must see that it is another model now"
    assert not any("does not say" in warning for warning in warnings_of(str(file), image))
    copy = tmp_path / "elsewhere" / "other.onnx"
    copy.parent.mkdir()
    shutil.copyfile(file, copy)
    assert find_spec(str(copy)).classes == ["background", "one", "two"]
    assert find_spec(f"onnx:{copy}?output=scores").unknown != spec.unknown, "another output is another model"
    answer_model(str(file), {"licence": "MIT"})
    assert (find_spec(str(copy)).licence, find_spec(str(copy)).unknown) == ("MIT", ["spacing"]), "what was said before still holds"
    package = import_model(str(copy), name="brought")
    assert find_spec(package.name).unknown == ["spacing"]
    small.head.bias += 1
    tools.write_onnx(small, copy)
    assert "classes" in find_spec(str(copy)).unknown, "it is another file"


def test_a_model_that_lies_in_the_folder_is_asked_about(file: Path, own_folder: Path) -> None:
    own_folder.mkdir()
    shutil.move(file, own_folder / "net.onnx")
    assert "classes" in next(spec for spec in list_models() if spec.name == "net").unknown
    answer_model("net.onnx", SAID, accept=True)
    assert next(spec for spec in list_models() if spec.name == "net").unknown == []


def test_a_package_holds_what_was_said(file: Path, own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_model(str(file), {name: SAID[name] for name in ("classes", "channels", "window")})
    assert find_spec("net").unknown == ["normalization", "spacing", "licence"]
    answer_model("net", {"normalization": {"kind": "zscore"}}, accept=True)
    assert find_spec("net").unknown == []
    assert json.loads((own_folder / "net" / SPEC_FILE).read_text())["normalization"]["kind"] == "zscore"
    assert sorted(path.name for path in (own_folder / "net").iterdir()) == [SPEC_FILE, "source"], "nothing is left over"
    assert not answers_folder().exists()
    exported = export_model("net", tmp_path / "given.tileseg.zip")
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "other computer"))
    assert find_spec(str(exported)).unknown == []


def test_a_zip_of_our_own_elsewhere(small: torch.nn.Module, tools: SimpleNamespace, own_folder: Path, tmp_path: Path) -> None:
    import torch

    torch.save(small.state_dict(), tmp_path / "net.pth")
    path = export_model(str(tmp_path / "net.pth"), tmp_path / "net.tileseg.zip")
    content = path.read_bytes()
    assert "classes" in find_spec(str(path)).unknown
    answer_model(str(path), {"classes": ["background", "one", "two"], "window": (64, 64)})
    assert path.read_bytes() == content, "what lies elsewhere is not written to"
    assert load_model(str(path), device="cpu").spec.window == (64, 64)
    assert "classes" not in load_model(str(path), device="cpu").spec.unknown


def test_a_wrong_answer_is_refused_and_not_remembered(file: Path, own_folder: Path) -> None:
    with pytest.raises(ModelError, match=r"Say its classes \(--classes, one name for each of the 3 scores\)"):
        answer_model(str(file), {**SAID, "classes": ["background", "one"]})
    with pytest.raises(ModelError, match="What was said of the model cannot be used: axes"):
        answer_model(str(file), {"axes": "XYZ"})
    assert "classes" in find_spec(str(file)).unknown
    assert not answers_folder().exists()
    import_model(str(file), SAID)
    card = (own_folder / "net" / SPEC_FILE).read_bytes()
    with pytest.raises(ModelError, match="Say its classes"):
        answer_model("net", {"classes": ["background"]})
    assert (own_folder / "net" / SPEC_FILE).read_bytes() == card


def test_a_program_is_answered_for_before_it_is_trusted(
    small: torch.nn.Module, tools: SimpleNamespace, own_folder: Path, tmp_path: Path
) -> None:
    path = tools.write_torchscript(small, tmp_path / "net.pt")
    answer_model(str(path), SAID)
    assert find_spec(str(path)).classes == SAID["classes"]


def test_what_cannot_be_answered_for(file: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match="comes with the program"):
        answer_model("nuclei-2d", {}, accept=True)
    with pytest.raises(ModelError, match="one by one"):
        answer_model("ensemble:nuclei-2d,nuclei-2d", {}, accept=True)
    answers_folder().write_bytes(b"")
    with pytest.raises(OutputError, match="cannot be remembered"):
        answer_model(str(file), SAID)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"said": 3}', b'{"said": {"axes": "QQ"}}', b'{"said": {"no field": 1}}', b"\xff"])
def test_a_damaged_memory_is_asked_again(file: Path, content: bytes) -> None:
    answer_model(str(file), SAID)
    (kept,) = answers_folder().iterdir()
    kept.write_bytes(content)
    assert "classes" in find_spec(str(file)).unknown


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "axes": st.sampled_from(["CYX", "CZYX"]),
            "classes": st.lists(st.text("ab", min_size=1), min_size=1, max_size=3),
            "licence": st.text(max_size=3),
            "spacing": st.none(),
        },
    )
)
def test_what_is_accepted_is_what_was_assumed(answers: dict[str, Any]) -> None:
    said = answered(CARD, answers)
    kept = answered(CARD, accepted(CARD, answers))
    assert kept.unknown == []
    assert kept.model_copy(update={"unknown": said.unknown}) == said
    assert set(said.unknown) == {name for name in CARD.unknown if answers.get(name) is None}
    assert answered(CARD, json.loads(json.dumps(accepted(CARD, answers)))) == kept, "it is written as JSON"


def test_on_the_command_line(file: Path, run: Any, own_folder: Path) -> None:
    status, _, told = run("show", file)
    assert (status, "tileseg models answer" in told) == (0, True)
    assert run("answer", file)[0] == 2
    words = ("--classes", "background,one,two", "--channels", "a,b", "--window", "32,32", "--normalization", "range:0,255")
    status, said, told = run("answer", file, *words, "--spacing", "0.5,0.5um")
    assert (status, said) == (0, "Remembered: net takes CYX, 2 in, background, one, two out.\n"), told
    assert told == "Still not said: licence.\n"
    spec = find_spec(str(file))
    assert (spec.spacing, spec.spacing_unit, spec.normalization.high) == ((0.5, 0.5), "micrometer", 255)
    status, said, told = run("answer", file, "--accept", "--json")
    assert (status, json.loads(said)) == (0, {"event": "answered", "name": "net", "unknown": []})
    assert run("show", file)[2] == ""
    status, _, told = run("import", file, "--accept")
    assert (status, "assumed" in told) == (0, False)


def test_a_full_disk_leaves_the_old_card(file: Path, own_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import_model(str(file), SAID)
    card = (own_folder / "net" / SPEC_FILE).read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_tileseg.models.package.move", full)
    with pytest.raises(OutputError, match="No space left on device"):
        answer_model("net", {"licence": "MIT"})
    monkeypatch.undo()
    assert (own_folder / "net" / SPEC_FILE).read_bytes() == card
