"""Our own model format: what is written is read back, and damage is named in one sentence."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.errors import ModelError, ModelNotFoundError, OutputError, WeightsError
from napari_tileseg.models import checksum as checksum_module
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import (
    CARD_FILE,
    SPEC_FILE,
    WEIGHTS_FILE,
    build_module,
    is_package,
    load_weights,
    read_spec,
    write_package,
)
from napari_tileseg.models.spec import ModelSpec, Normalization

SPEC = ModelSpec(
    name="small",
    architecture="residual_unet",
    arguments={"in_channels": 1, "out_channels": 2, "channels": [4, 6], "stem_channels": 2},
    axes="CYX",
    channels=1,  # type: ignore[arg-type]  # a number becomes names
    normalization=Normalization(kind="percentile", invert="auto", clip=(-0.2, 1.5)),
    window=(32, 32),
    multiple_of=4,
    classes=["background", "thing"],
    training={"data": ["somewhere"], "scores": {"dice": 0.9}},
)


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(SPEC.architecture, **SPEC.arguments)


@pytest.fixture(params=["small", "small.tileseg.zip"])
def package(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / request.param
    write_package(path, SPEC, network().state_dict())
    return path


@pytest.mark.parametrize("name", ["small", "small.tileseg.zip"])
def test_what_is_written_is_read_back(tmp_path: Path, name: str) -> None:
    module = network()
    with torch.no_grad():
        module(torch.rand(4, 1, 32, 32))  # so that the running statistics are no round numbers
    written = write_package(tmp_path / name, SPEC, module.state_dict(), card="# Small\n")
    spec, read = build_module(tmp_path / name)
    assert spec == written
    assert spec.model_copy(update={"weights_sha256": ""}) == SPEC
    assert read.state_dict().keys() == module.state_dict().keys()
    assert all(torch.equal(value, read.state_dict()[key]) for key, value in module.state_dict().items())
    assert not read.training
    assert not any(parameter.requires_grad for parameter in read.parameters())
    assert is_package(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@given(names=st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4), title=st.text(max_size=30), lower=st.floats(0, 50))
@settings(max_examples=25)
def test_every_card_survives(tmp_path_factory: pytest.TempPathFactory, names: list[str], title: str, lower: float) -> None:
    spec = SPEC.model_copy(update={"classes": names, "title": title, "normalization": Normalization(kind="percentile", lower=lower)})
    path = tmp_path_factory.mktemp("card") / "model.tileseg.zip"
    written = write_package(path, spec, {"weight": torch.zeros(1)})
    assert read_spec(path) == written


def test_half_weights_are_close_and_half_the_size(tmp_path: Path) -> None:
    state = {**network().state_dict(), "tiny": torch.tensor([1e-9, 1e9])}
    write_package(tmp_path / "full", SPEC, state)
    write_package(tmp_path / "half", SPEC, state, half=True)
    full, half = load_weights(tmp_path / "full", SPEC), load_weights(tmp_path / "half", SPEC)
    assert (tmp_path / "half" / WEIGHTS_FILE).stat().st_size < 0.75 * (tmp_path / "full" / WEIGHTS_FILE).stat().st_size
    for key, value in full.items():
        assert half[key].dtype == value.dtype
        torch.testing.assert_close(half[key], value, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(half["tiny"], state["tiny"], rtol=0, atol=0)


def test_the_same_model_gives_the_same_file(tmp_path: Path) -> None:
    for name in ("a.tileseg.zip", "b.tileseg.zip"):
        write_package(tmp_path / name, SPEC, network().state_dict())
    assert (tmp_path / "a.tileseg.zip").read_bytes() == (tmp_path / "b.tileseg.zip").read_bytes()


def test_a_package_replaces_another_whole(tmp_path: Path) -> None:
    path = tmp_path / "model"
    write_package(path, SPEC, network().state_dict(), card="old")
    (path / "extra.txt").touch()
    write_package(path, SPEC.model_copy(update={"version": "2"}), network().state_dict())
    assert read_spec(path).version == "2"
    assert {file.name for file in path.iterdir()} == {SPEC_FILE, WEIGHTS_FILE}
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_folder_of_other_files_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("long work")
    with pytest.raises(OutputError, match="holds other files than a model"):
        write_package(tmp_path / "thesis", SPEC, {})
    assert [path.name for path in tmp_path.rglob("*")] == ["thesis", "chapter.txt"]


@pytest.mark.parametrize("name", ["model", "model.tileseg.zip"])
def test_a_write_that_fails_leaves_the_old_package(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    write_package(path, SPEC, network().state_dict())

    def fail(*arguments: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    monkeypatch.setattr(zipfile.ZipFile, "writestr", fail)
    with pytest.raises(OutputError, match="No space left on device"):
        write_package(path, SPEC.model_copy(update={"version": "2"}), network().state_dict())
    monkeypatch.undo()
    assert build_module(path)[0].version == "1"
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_card_is_kept_beside_the_model(tmp_path: Path) -> None:
    write_package(tmp_path / "model", SPEC, network().state_dict(), card="# Small µ\n")
    assert (tmp_path / "model" / CARD_FILE).read_text(encoding="utf-8") == "# Small µ\n"


def damage_weights(path: Path, content: bytes | None) -> None:
    if path.is_dir():
        (path / WEIGHTS_FILE).unlink()
        if content is not None:
            (path / WEIGHTS_FILE).write_bytes(content)
        return
    with zipfile.ZipFile(path) as archive:
        spec = archive.read(SPEC_FILE)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(SPEC_FILE, spec)
        if content is not None:
            archive.writestr(WEIGHTS_FILE, content)


def test_missing_weights_are_named(package: Path) -> None:
    damage_weights(package, None)
    with pytest.raises(WeightsError, match=r"weights of small are missing"):
        build_module(package)


@pytest.mark.parametrize("content", [b"", b"\0" * 100, b"\xff" * 100])
def test_exchanged_weights_are_refused(package: Path, content: bytes) -> None:
    damage_weights(package, content)
    with pytest.raises(WeightsError, match="SHA-256"):
        build_module(package)
    spec = read_spec(package).model_copy(update={"weights_sha256": ""})
    with pytest.raises(WeightsError, match=r"weights\.safetensors of small is damaged"):
        load_weights(package, spec)


def test_truncated_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model"
    spec = write_package(path, SPEC, network().state_dict())
    weights = path / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="SHA-256"):
        load_weights(path, spec)
    with pytest.raises(WeightsError, match="damaged"):
        load_weights(path, spec.model_copy(update={"weights_sha256": ""}))


def test_weights_that_do_not_fit_are_listed(tmp_path: Path) -> None:
    state = dict(network().state_dict())
    state["surplus"] = state.pop("head.bias")
    state["head.weight"] = torch.zeros(5, 2, 1, 1)
    write_package(tmp_path / "model", SPEC, state)
    with pytest.raises(WeightsError) as caught:
        build_module(tmp_path / "model")
    for part in (
        "1 missing (head.bias)",
        "1 unexpected (surplus)",
        "1 of another shape (head.weight: 5 x 2 x 1 x 1 instead of 2 x 2 x 1 x 1)",
    ):
        assert part in str(caught.value)


def test_nothing_there_and_something_else_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="There is no model at"):
        read_spec(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"holds no model\.json"):
        read_spec(tmp_path)
    other = tmp_path / "other.zip"
    other.write_bytes(b"PK but no archive")
    with pytest.raises(ModelError, match="no intact"):
        read_spec(other)
    assert not is_package(tmp_path / "nowhere")
    assert not is_package(tmp_path)
    assert not is_package(other)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "damaged"),
        ("[]", "cannot be used"),
        ('{"name": "x"}', "axes: Field required"),
        (json.dumps({**json.loads(SPEC.model_dump_json()), "schema_version": 99}), "Update napari-tileseg"),
        (json.dumps({**json.loads(SPEC.model_dump_json()), "novelty": 1}), "novelty"),
    ],
)
def test_damaged_cards_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / SPEC_FILE).write_text(content)
    with pytest.raises(ModelError, match=message):
        read_spec(tmp_path)


def test_a_card_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tileseg.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(SPEC_FILE, b" " * (5 * 2**20))
    with pytest.raises(ModelError, match="more than the"):
        read_spec(path)


def test_members_outside_the_archive_are_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "evil.tileseg.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"../../{SPEC_FILE}", "{}")
    with pytest.raises(ModelError, match=r"holds no model\.json"):
        read_spec(path)


def test_a_zip_made_of_the_folder_itself_is_read(tmp_path: Path) -> None:
    write_package(tmp_path / "model", SPEC, network().state_dict())
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in (tmp_path / "model").iterdir():
            archive.write(file, f"model/{file.name}")
    assert build_module(path)[0].name == "small"


def test_a_bit_that_flipped_in_a_zip_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "model.tileseg.zip"
    write_package(path, SPEC, network().state_dict())
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(WeightsError):
        build_module(path)


def test_a_model_without_architecture_cannot_be_built(tmp_path: Path) -> None:
    write_package(tmp_path / "model", SPEC.model_copy(update={"architecture": ""}), {"weight": torch.zeros(1)})
    with pytest.raises(ModelError, match="names no architecture"):
        build_module(tmp_path / "model")


def test_a_card_without_checksum_is_no_obstacle(tmp_path: Path) -> None:
    from napari_tileseg.models.predictor import load_model

    write_package(tmp_path / "small", SPEC, network().state_dict())
    card = tmp_path / "small" / "model.json"
    told = json.loads(card.read_text())
    assert told.pop("weights_sha256")
    card.write_text(json.dumps(told))
    assert load_model(str(tmp_path / "small"), device="cpu").spec.weights_sha256, "that of all its files"


def test_a_model_of_several_files_has_one_checksum_on_every_system(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows sorts paths whatever their case."""
    monkeypatch.setattr(checksum_module, "_remembered", lambda path: path.name)
    names = ["b.bin", "A.json", "c/B.bin", "c/a.bin", "C.txt"]
    found = {
        checksum_module.checksum([kind(root, *name.split("/")) for name in names], kind(root))  # type: ignore[misc, list-item, arg-type]
        for kind, root in ((PurePosixPath, "/m"), (PureWindowsPath, "C:/m"))
    }
    assert len(found) == 1
