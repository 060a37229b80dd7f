"""Trust is in exactly one file, remembered, and taken back; harmless checkpoints need none."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import pickle
from collections import Counter, OrderedDict, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_tileseg.errors import ModelError, TrustError, WeightsError
from napari_tileseg.models.archive import Archive, is_safe_name, parse_json, printable
from napari_tileseg.models.pickles import check_pickle
from napari_tileseg.models.trust import is_trusted, load_torch, require_trust, revoke, trust, trust_file, trusted

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("own_folder")


class Call:
    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.mark,)


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.pth"
    torch.save({"a.weight": torch.ones(2), "x": Call(tmp_path / "ran")}, path)
    return path


def test_an_untrusted_file_is_refused_with_name_place_and_what_to_do(program: Path, tmp_path: Path) -> None:
    with pytest.raises(TrustError) as caught:
        load_torch(program)
    error = caught.value
    assert "posix.mkdir (byte" in str(error) or "nt.mkdir (byte" in str(error)
    assert "of program/data.pkl)" in str(error)
    assert str(error).endswith(f'tileseg models trust "{program}".')
    assert error.path == program
    assert error.findings[0].name.endswith(".mkdir")
    assert not (tmp_path / "ran").exists()


def test_trust_is_in_exactly_this_file_and_can_be_taken_back(program: Path, tmp_path: Path) -> None:
    (entry,) = trust(program)
    assert is_trusted(program)
    assert [known.name for known in trusted()] == ["program.pth"]
    load_torch(program)
    assert (tmp_path / "ran").exists()
    with program.open("ab") as stream:
        stream.write(b"\0")
    assert not is_trusted(program)
    with pytest.raises(TrustError):
        load_torch(program)
    assert [gone.sha256 for gone in revoke(entry.sha256[:10])] == [entry.sha256]
    assert trusted() == []
    assert revoke("nothing") == []


def test_a_copy_is_the_same_file(program: Path, tmp_path: Path) -> None:
    trust(program)
    copy = tmp_path / "copy.pth"
    copy.write_bytes(program.read_bytes())
    assert is_trusted(copy)
    assert revoke(copy)
    assert not is_trusted(program)


def test_a_folder_is_trusted_file_by_file(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "run.py").write_text("print()")
    (folder / "a.json").write_text("{}")
    assert {entry.name for entry in trust(folder)} == {"run.py", "a.json"}
    require_trust(folder / "scripts" / "run.py", "line 1 prints")
    (folder / "scripts" / "new.py").write_text("print(1)")
    with pytest.raises(TrustError, match=r"because line 1 prints"):
        require_trust(folder / "scripts" / "new.py", "line 1 prints")
    assert len(revoke(folder)) == 2


def test_a_damaged_list_trusts_nothing(program: Path) -> None:
    trust(program)
    for content in ("{", "[]", '{"trusted": 3}', "[" * 20_000, "\xff"):
        trust_file().write_text(content, encoding="latin-1")
        assert not is_trusted(program)
    trust(program)
    assert is_trusted(program)
    assert [path.name for path in trust_file().parent.iterdir() if path.name.startswith(".")] == []
    assert set(json.loads(trust_file().read_text())) == {"trusted"}


def test_nothing_cannot_be_trusted(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="There is no file"):
        trust(tmp_path / "missing")


HARMLESS: dict[str, Any] = {
    "numbers": {"a": 1, "b": 2.5, "c": True, "d": None, "e": 10**30, "f": b"x", "g": 1j},
    "numpy": {"scalar": np.float64(2.5), "whole": np.int64(3), "array": np.arange(6.0).reshape(2, 3), "flag": np.bool_(True)},
    "containers": {"o": OrderedDict(a=1), "d": defaultdict(list, a=[1]), "c": Counter("aab"), "s": {1, 2}, "f": frozenset({3})},
    "paths": {"p": pathlib.PurePosixPath("/data/x")},
    "settings": {"hyper_parameters": argparse.Namespace(lr=0.1, layers=[1, 2])},
    "times": {"t": datetime.timedelta(seconds=3), "d": datetime.datetime(2020, 1, 2)},
    "torch": {
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "type": torch.float16,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    },
}


@pytest.mark.parametrize("kind", HARMLESS)
@pytest.mark.parametrize("new", [True, False])
def test_what_checkpoints_hold_needs_no_trust(kind: str, new: bool, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"state_dict": {"a.weight": torch.arange(3.0)}, **HARMLESS[kind]}, path, _use_new_zipfile_serialization=new)
    assert check_pickle(path) == []
    content = load_torch(path)
    assert torch.equal(content["state_dict"]["a.weight"], torch.arange(3.0))
    assert content.keys() >= HARMLESS[kind].keys()
    if kind == "numpy":
        assert np.array_equal(content["array"], HARMLESS[kind]["array"])
    if kind == "settings":
        assert content["hyper_parameters"] == {"lr": 0.1, "layers": [1, 2]}
    if kind == "paths":
        assert content["p"] == "/data/x"


def test_a_network_of_lightning_or_monai_names_what_is_not_installed(tmp_path: Path) -> None:
    path = tmp_path / "net.ckpt"
    name = "pytorch_lightning.utilities.parsing"
    content = b"\x80\x02}X\x02\x00\x00\x00hp" + f"c{name}\nAttributeDict\n".encode() + b")R}X\x02\x00\x00\x00lrK\x01sbs."
    import zipfile

    with zipfile.ZipFile(path, "w") as archive:
        for member, data in (("net/data.pkl", content), ("net/version", b"3\n"), ("net/byteorder", b"little")):
            archive.writestr(member, data)
    assert load_torch(path) == {"hp": {"lr": 1}}


def test_further_globals_can_be_allowed(tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save({"a": torch.nn.Identity}, path)
    with pytest.raises(TrustError, match="Identity"):
        load_torch(path)
    name = check_pickle(path)[0].name
    assert load_torch(path, allowed={name: dict}) == {"a": dict}


# Pickles, names and JSON of any content


@given(st.binary(max_size=200))
@settings(max_examples=150)
def test_any_bytes_are_a_sentence_or_harmless(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "net.pth"
    path.write_bytes(b"\x80\x02" + content)
    with pytest.raises((WeightsError, TrustError)) as caught:
        load_torch(path)
    assert str(caught.value).isprintable()


@given(
    st.recursive(
        st.none() | st.integers() | st.text() | st.floats(), lambda inner: st.lists(inner) | st.tuples(inner, inner), max_leaves=20
    )
)
def test_plain_values_name_nothing(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.pkl"
    for protocol in range(2, 6):
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        assert check_pickle(path) == []


@given(st.text(max_size=40))
def test_safe_names_stay_inside(name: str) -> None:
    if is_safe_name(name):
        path = pathlib.PurePosixPath("/root") / name
        assert path.is_relative_to("/root")
        assert ".." not in path.parts
        assert pathlib.PureWindowsPath("C:/root", name).is_relative_to("C:/root")
        assert printable(name).isprintable()


@pytest.mark.parametrize(
    "name", ["", "/a", "../a", "a/../b", "a//b", "./a", "a\\b", "C:a", "con", "NUL.txt", "a\nb", "a\x1b", "a ", "a.", "\u202etxt"]
)
def test_unsafe_names(name: str) -> None:
    assert not is_safe_name(name)


def test_a_link_out_of_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "inside").write_text("y")
    (folder / "fine").symlink_to(folder / "inside")
    assert Archive(folder).names == ["fine", "inside"]
    (folder / "out").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="out in model is a link to a place outside"):
        Archive(folder)


def test_a_zip_is_unpacked_into_the_cache_by_its_content(tmp_path: Path) -> None:
    import zipfile

    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("top/a.json", '{"x": 1}')
        archive.writestr("top/deep/b.bin", b"12345")
    found = Archive(path)
    assert found.find("a.json") == "top/a.json"
    assert found.find("b.bin") is None
    assert found.json("top/a.json") == {"x": 1}
    file = found.file("top/deep/b.bin")
    assert file.is_relative_to(tmp_path / "cache")
    assert file.read_bytes() == b"12345"
    assert found.folder() == file.parents[2]
    file.write_bytes(b"54321"[:3])
    assert Archive(path).file("top/deep/b.bin").read_bytes() == b"12345"
    with pytest.raises(ModelError, match="holds no file other"):
        found.read("other")
    with pytest.raises(ModelError, match="5 bytes; 4 are accepted"):
        found.read("top/deep/b.bin", largest=4)


@given(st.binary(max_size=60))
def test_any_json_is_a_value_or_a_sentence(content: bytes) -> None:
    try:
        parse_json(content, "x")
    except ModelError as error:
        assert str(error).startswith("x is ")
        assert str(error).isprintable()
