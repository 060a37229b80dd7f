"""``tileseg train``: a folder becomes a model, the guide's file is run, mistakes are one sentence."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from scenes import SMALL, folders
from typer.testing import CliRunner

from napari_tileseg.cli import app
from napari_tileseg.models.package import read_spec

GUIDE = Path(__file__).parents[2] / "docs" / "training.md"
QUICK = [
    "--batch",
    "2",
    "--epochs",
    "1",
    "--device",
    "cpu",
    "--set",
    "epoch_steps=2",
    "--set",
    f"arguments={json.dumps(SMALL['arguments'])}",
]


def call(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["train", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def of(places: dict[str, str]) -> list[str]:
    return ["--images", places["images"], "--labels", places["labels"]]


def test_a_folder_becomes_a_model(tmp_path: Path) -> None:
    status, told, _ = call(*of(folders(tmp_path)), "-o", tmp_path / "m", *QUICK)
    assert status == 0
    assert "4 images to learn from, 1 to validate on." in told
    assert "Epoch 1 of 1: loss" in told
    assert read_spec(tmp_path / "m").training["score"] is not None


def test_without_a_place_it_stands_among_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "models"))
    status, told, _ = call(*of(folders(tmp_path)), "--name", "my-balls", *QUICK, "--json")
    assert status == 0
    events = [json.loads(line) for line in told.splitlines()]
    assert events[0]["event"] == "training started"
    assert events[-1] | {"seconds": 0, "score": 0} == {
        "event": "training ended",
        "output": str(tmp_path / "models" / "my-balls"),
        "epoch": 1,
        "score": 0,
        "reason": "done",
        "seconds": 0,
    }
    assert "my-balls" in CliRunner().invoke(app, ["models", "list"]).stdout


def test_the_file_of_the_guide_is_run(tmp_path: Path) -> None:
    found = re.search(r"<!-- tested -->\n```toml\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
    assert found is not None
    folders(tmp_path)
    (tmp_path / "blobs.toml").write_text(found[1])
    status, _, complaints = call(tmp_path / "blobs.toml", "--device", "cpu")
    assert status == 0, complaints
    spec = read_spec(tmp_path / "blobs")
    assert spec.architecture == "unet2015_same"
    assert spec.training["settings"]["augmentation"]["elastic"] == 1.5


def test_a_dry_run_tells_all_and_writes_nothing(tmp_path: Path) -> None:
    places = folders(tmp_path)
    status, told, _ = call(*of(places), "-o", tmp_path / "m", "--dry-run", "--no-probe")
    assert status == 0
    assert "Classes: background" in told
    assert 'network = "residual_unet"' in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images", "labels"]
    told = call(*of(places), "-o", tmp_path / "m", "--dry-run", "--no-probe", "--json")[1]
    assert json.loads(told)["settings"]["classes"] == ["background", "class 1", "class 2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Say what to learn from"),
        (["--set", "speed=3"], "speed = 3 is not accepted"),
        (["--set", "speed"], "Give field=value"),
        (["--name", "a b"], "is no name for a model"),
        (["--arch", "none", "--images", "IMAGES", "--labels", "LABELS"], 'no network "none"'),
        (["--window", "a"], "Give whole numbers"),
        (["no.toml"], "cannot be read"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, arguments: list[str], message: str) -> None:
    places = folders(tmp_path)
    filled = [{"IMAGES": places["images"], "LABELS": places["labels"]}.get(argument, argument) for argument in arguments]
    status, _, complaint = call(*filled, *([] if "--name" in filled else ["-o", tmp_path / "m"]))
    assert status in (1, 2)
    assert message in complaint
    assert "Traceback" not in complaint
