"""What ``tileseg models`` tells programs, such as the Models dock: cards, what would run, and how each deed ended."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_tileseg import cli
from napari_tileseg.models import imports
from napari_tileseg.models.imports import import_model, running_files
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import write_package
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.models.trust import is_trusted, trust

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., tuple[int, dict[str, Any]]]

SOURCE = Path(__file__).parents[1] / "models" / "bioimageio" / "source-2d-v4.zip"


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "own"
    monkeypatch.setenv("TILESEG_MODELS", str(folder))
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], own_folder: Path) -> Run:
    """Return a function that runs a command and returns its status and its last event."""

    def call(*arguments: object) -> tuple[int, dict[str, Any]]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["models", *map(str, arguments), "--json"])
        lines = capsys.readouterr().out.splitlines()
        return int(ended.value.code or 0), json.loads(lines[-1])

    return call


def package(folder: Path, name: str) -> Path:
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "stem_channels": 4}
    torch.manual_seed(1)
    network = build_network("residual_unet", **arguments)
    card: dict[str, Any] = {"name": name, "axes": "CYX", "channels": 1, "classes": ["background", "cell"], "window": (32, 32)}
    write_package(folder / name, ModelSpec(**card, architecture="residual_unet", arguments=arguments), network.state_dict())
    return folder / name


def test_a_card_is_told_whole(run: Run, own_folder: Path) -> None:
    package(own_folder, "net")
    status, event = run("show", "net")
    assert (status, event["event"], event["name"], event["window"]) == (0, "card", "net", [32, 32])
    assert event["card"].startswith("# net")
    assert "training" not in event


def test_a_model_that_is_damaged_hides_no_other(
    own_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package(own_folder, "whole")
    package(own_folder, "broken")
    inside = imports.standing

    def standing(spec: ModelSpec, ref: str = "") -> Any:
        if spec.name == "broken":
            raise OSError("the disk is gone")
        return inside(spec, ref)

    monkeypatch.setattr(imports, "standing", standing)
    with pytest.raises(SystemExit):
        cli.main(["models", "list", "--json"])
    found = {event["name"]: event["kind"] for event in map(json.loads, capsys.readouterr().out.splitlines())}
    assert found["broken"] == "damaged"
    assert found["whole"] == "TileSeg"


def test_what_would_run_is_told_trusted_and_taken_back(run: Run, own_folder: Path) -> None:
    status, event = run("import", SOURCE)
    assert (status, event["name"]) == (0, "source-2d-v4")
    status, event = run("verify", "source-2d-v4")
    assert (status, event["error"]) == (1, "TrustError")
    assert event["what"] == "it is Python source whose line 6 builds Two"
    assert Path(event["path"]).name == "two.py"
    assert event["findings"] == []
    assert running_files("source-2d-v4") == [Path(event["path"])]
    trust(Path(event["path"]))
    status, told = run("verify", "source-2d-v4")
    assert (status, told["event"], [test["passed"] for test in told["tests"]]) == (0, "verified", [True])
    status, told = run("revoke", "source-2d-v4")
    assert (status, told) == (0, {"event": "revoked", "names": ["two.py"]})
    assert not is_trusted(Path(event["path"]))
    assert run("revoke", "source-2d-v4")[0] == 2


def test_calls_in_a_pickle_are_listed(run: Run, tmp_path: Path) -> None:
    class Call:
        def __reduce__(self) -> Any:
            return print, ("ran",)

    torch.save({"a.weight": torch.ones(2), "x": Call()}, tmp_path / "evil.pth")
    status, event = run("show", tmp_path / "evil.pth")
    assert (status, event["error"]) == (1, "TrustError")
    assert "builtins.print (byte" in event["findings"][0]
    assert event["path"] == str(tmp_path / "evil.pth")


def test_a_model_is_written_and_removed(run: Run, own_folder: Path, tmp_path: Path) -> None:
    package(own_folder, "net")
    target = tmp_path / "given.tileseg.zip"
    assert run("export", "net", target) == (0, {"event": "exported", "path": str(target)})
    assert run("export", "net", target)[1]["error"] == "OutputError"
    assert run("remove", "net") == (0, {"event": "removed", "name": "net"})
    assert not (own_folder / "net").exists()
    assert run("remove", "nuclei-2d")[1]["error"] == "ModelError"


def test_an_import_that_is_cancelled_leaves_nothing(own_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = package(tmp_path, "net")

    def interrupt(*_: object) -> None:
        assert (own_folder / "net").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(imports, "_try_unknown", interrupt)
    with pytest.raises(KeyboardInterrupt):
        import_model(str(path))
    assert not list(own_folder.iterdir())
    shutil.rmtree(path)
