"""Models are brought in with what their source does not say, checked, written out, given on and removed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from napari_tileseg import cli
from napari_tileseg.errors import ModelError, OutputError, TrustError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.imports import export_model, import_model, remove_model, standing, verify_model
from napari_tileseg.models.package import SPEC_FILE, WEIGHTS_FILE
from napari_tileseg.models.predictor import from_module, load_model
from napari_tileseg.models.registry import find_spec, list_models
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.models.trust import trust
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import SimpleNamespace

    from numpy.typing import NDArray

CPU = SegmentOptions(device="cpu")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["models", *map(str, arguments)])
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return call


@pytest.fixture
def expected(small: torch.nn.Module, image: NDArray[np.float32], tools: SimpleNamespace) -> NDArray[Any]:
    spec = ModelSpec.model_validate({"name": "small", **tools.SAID})
    return labels_of(from_module(small, spec, device="cpu"), image)


def labels_of(model: Any, image: NDArray[np.float32]) -> NDArray[Any]:
    return np.asarray(segment(image, model, axes="CYX", options=CPU).labels)


def test_an_onnx_model_is_imported_used_exported_and_removed(
    small: torch.nn.Module,
    image: NDArray[np.float32],
    expected: NDArray[Any],
    tools: SimpleNamespace,
    own_folder: Path,
    tmp_path: Path,
    run: Any,
) -> None:
    path = tools.write_onnx(small, tmp_path / "cells.onnx")
    status, said, told = run(
        "import", path, "--classes", "background,one,two", "--channels", "a,b", "--window", "32,32", "--normalization", "none"
    )
    assert status == 0, told
    assert said == "cells is here now: CYX, 2 in, background, one, two out.\n"
    assert "Not said, hence assumed: spacing, licence." in told
    path.unlink()
    spec = find_spec("cells")
    assert (spec.loader, spec.source, spec.unknown) == ("onnx", "source/cells.onnx", ["spacing", "licence"])
    assert np.mean(labels_of("cells", image) == expected) >= 0.9999
    assert standing(spec).kind == "ONNX"
    assert standing(spec).place == "own"
    status, said, told = run("verify", "cells")
    assert (status, said.startswith("cells works: SHA-256 ")) == (0, True), told
    for name in ("out", "out.tileseg.zip"):
        assert run("export", "cells", tmp_path / name)[0] == 0
        assert np.mean(labels_of(str(tmp_path / name), image) == expected) >= 0.9999
    assert run("export", "cells", tmp_path / "out")[0] == 1
    assert run("import", tmp_path / "out.tileseg.zip", "--name", "again")[0] == 0
    assert {"cells", "again"} <= {spec.name for spec in list_models()}
    assert run("remove", "cells")[1] == "cells is gone.\n"
    assert [path.name for path in own_folder.iterdir()] == ["again"]


def test_a_checkpoint_becomes_a_package_of_our_own(
    small: torch.nn.Module,
    image: NDArray[np.float32],
    expected: NDArray[Any],
    tools: SimpleNamespace,
    own_folder: Path,
    tmp_path: Path,
    run: Any,
) -> None:
    path = tmp_path / "net.ckpt"
    torch.save({"state_dict": {f"model.{key}": value for key, value in small.state_dict().items()}}, path)
    said = {"classes": ["background", "one", "two"], "window": (32, 32), "normalization": {"kind": "none"}}
    package = import_model(str(path), said)
    assert {file.name for file in package.iterdir()} == {SPEC_FILE, WEIGHTS_FILE}
    assert find_spec("net").unknown == ["spacing", "licence"]
    assert np.array_equal(labels_of("net", image), expected)
    assert verify_model("net").scores == (1, 3, 32, 32)
    status, _, told = run("import", path, "--name", "named", "--architecture", "residual_unet", "--arguments", json.dumps(tools.ARGUMENTS))
    assert status == 0, told
    assert find_spec("named").arguments == tools.ARGUMENTS


def test_a_program_is_imported_before_it_is_trusted_and_runs_after(
    small: torch.nn.Module,
    image: NDArray[np.float32],
    expected: NDArray[Any],
    tools: SimpleNamespace,
    own_folder: Path,
    tmp_path: Path,
    run: Any,
) -> None:
    path = tools.write_torchscript(small, tmp_path / "net.pt")
    import_model(str(path), {"classes": ["background", "one", "two"], "channels": ["a", "b"], "axes": "CYX", "window": (32, 32)})
    assert standing(find_spec("net")).trust == "needed"
    assert "[needs trust]" in run("list")[1]
    with pytest.raises(TrustError) as caught:
        load_model("net", device="cpu")
    assert caught.value.path is not None
    assert run("trust", caught.value.path)[0] == 0
    assert standing(find_spec("net")).trust == "trusted"
    assert np.mean(labels_of("net", image) == expected) >= 0.9999
    assert "net.pt" in run("revoke")[1]
    assert run("revoke", "net.pt")[1] == "net.pt is not trusted any more.\n"
    assert run("revoke", "net.pt")[0] == 2
    assert standing(find_spec("net")).trust == "needed"


def test_a_wrong_answer_is_refused_and_leaves_nothing(
    small: torch.nn.Module, tools: SimpleNamespace, own_folder: Path, tmp_path: Path
) -> None:
    path = tools.write_onnx(small, tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"Say its classes \(--classes, one name for each of the 3 scores\)"):
        import_model(str(path), {"classes": ["background", "one"], "window": (32, 32)})
    with pytest.raises(ModelError, match="What was said of the model cannot be used: axes"):
        import_model(str(path), {"axes": "XYZ"})
    assert not own_folder.exists() or list(own_folder.iterdir()) == []


def test_a_linked_model_stays_where_it_is(
    small: torch.nn.Module, image: NDArray[np.float32], expected: NDArray[Any], tools: SimpleNamespace, own_folder: Path, tmp_path: Path
) -> None:
    path = tools.write_onnx(small, tmp_path / "net.onnx")
    said = {"classes": ["background", "one", "two"], "window": (32, 32), "channels": ["a", "b"]}
    package = import_model(str(path), said, link=True)
    assert [file.name for file in package.iterdir()] == [SPEC_FILE]
    assert np.mean(labels_of("net", image) == expected) >= 0.9999
    moved = tmp_path / "elsewhere"
    package.rename(moved)
    with pytest.raises(ModelError, match=r"which is no file of the package"):
        load_model(str(moved), device="cpu")
    moved.rename(package)
    tools.write_onnx(torch.nn.Sequential(small, torch.nn.Softmax(1)), path)
    with pytest.raises(ModelError, match="were changed or damaged"):
        load_model("net", device="cpu")
    remove_model("net")
    assert path.exists()


def test_names_are_taken_once_and_models_of_others_are_left_alone(
    small: torch.nn.Module, tools: SimpleNamespace, own_folder: Path, tmp_path: Path
) -> None:
    path = tools.write_onnx(small, tmp_path / "net.onnx")
    import_model(str(path), {"window": (32, 32)})
    with pytest.raises(OutputError, match=r'A model "net" is there already\. Give another name'):
        import_model(str(path))
    with pytest.raises(ModelError, match="comes with the program"):
        remove_model("nuclei-2d")
    with pytest.raises(ModelError, match="so it was not removed"):
        remove_model(str(path))
    assert path.exists()


def test_a_folder_is_not_replaced_by_an_export_unless_asked(own_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(OutputError, match="is there already"):
        export_model("nuclei-2d", tmp_path / "out")
    export_model("nuclei-2d", tmp_path / "new")
    assert find_spec(str(tmp_path / "new")).weights_sha256
    with pytest.raises(ModelError, match="Export its members one by one"):
        export_model("ensemble:nuclei-2d,nuclei-2d", tmp_path / "both")


@pytest.mark.parametrize(
    ("option", "text"),
    [("--spacing", "0.5,0.5"), ("--normalization", "max"), ("--normalization", "range:a,b"), ("--arguments", "[1]"), ("--window", "a")],
)
def test_wrong_options_are_sentences(option: str, text: str, run: Any, own_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "x.onnx").touch()
    status, said, told = run("import", tmp_path / "x.onnx", option, text)
    assert (status, said) == (2, "")
    assert told.startswith(f'{option} "{text}" is not accepted. Give ')


def test_a_model_of_torch_that_was_trusted_can_be_verified(
    small: torch.nn.Module, tools: SimpleNamespace, own_folder: Path, tmp_path: Path
) -> None:
    path = tools.write_pt2(small, tmp_path / "net.pt2")
    trust(path)
    found = verify_model(str(path))
    assert found.scores[:2] == (1, 3)
    assert found.seconds_for_tile >= 0
