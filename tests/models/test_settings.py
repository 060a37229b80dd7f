"""Settings come back as they were set; a damaged file does no harm."""

from __future__ import annotations

import json
import os
import stat
import sys
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.errors import OptionsError, OutputError
from napari_tileseg.folders import cache_folder, settings_file
from napari_tileseg.models.settings import Settings, read_settings, write_settings


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "deep" / "settings.json"
    monkeypatch.setenv("TILESEG_SETTINGS", str(path))
    return path


def test_nothing_set(file: Path) -> None:
    assert read_settings() == Settings()
    assert settings_file() == file
    assert not file.exists()


@given(
    st.builds(
        Settings,
        cache=st.sampled_from([None, Path.cwd(), Path.cwd() / "Ünïcode 1"]),
        mirror=st.sampled_from(["", "https://a=http://b:1/c", "https://a=http://b https://c=https://d"]),
        proxy=st.sampled_from(["", "http://a:3128", "http://me:s%40t@a:1"]),
        offline=st.booleans(),
        retries=st.integers(0, 100),
        timeout=st.floats(0.001, 3600),
    )
)
def test_round_trip(settings: Settings) -> None:
    write_settings(settings)
    assert read_settings() == settings
    assert {path.name for path in settings_file().parent.iterdir()} == {"settings.json"}


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("cache", "relative/path", "must be a whole path"),
        ("cache", __file__, "must be a folder, but is a file"),
        ("mirror", "github.com=x", "must be pairs such as"),
        ("mirror", "https://a", "must be pairs such as"),
        ("mirror", "https://a=file:///etc", "must be pairs such as"),
        ("proxy", "socks5://a:1", "must be an address such as"),
        ("proxy", "http://a:99999", "must be an address such as"),
        ("offline", "perhaps", "offline"),
        ("retries", "-1", "retries"),
        ("timeout", "0", "timeout"),
        ("timeout", "nan", "timeout"),
        ("nothing", "1", 'There is no setting "nothing". Known are cache,'),
    ],
)
def test_values_that_are_not_accepted(name: str, value: str, words: str) -> None:
    with pytest.raises(OptionsError) as caught:
        Settings.parse({name: value})
    assert words in str(caught.value)


def test_password_of_a_refused_proxy_is_not_repeated() -> None:
    with pytest.raises(OptionsError) as caught:
        Settings.parse({"proxy": "https://me:secret@host"})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"retries": "many"}', b"[" * 10_000], ids=repr)
def test_damaged_file_gives_the_defaults_with_one_warning(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with pytest.warns(UserWarning, match=r"are damaged, so the defaults are used") as caught:
        assert read_settings() == read_settings() == Settings()
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_settings(Settings(retries=2))
        assert read_settings().retries == 2
        cache_folder()
    if content != b'{"retries": "many"}':
        assert (file.parent / "settings.json.damaged").read_bytes() == content


def test_what_a_newer_version_has_set_stays(file: Path) -> None:
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"quota": 5, "retries": 2}), encoding="utf-8")
    assert read_settings().retries == 2
    write_settings(Settings(offline=True))
    assert json.loads(file.read_text(encoding="utf-8")) == {"quota": 5, "offline": True}


@pytest.mark.skipif(sys.platform == "win32", reason="who may read a file is told in another way there")
def test_only_the_user_may_read_them(file: Path) -> None:
    write_settings(Settings(proxy="http://me:secret@host:1"))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_folder_that_cannot_be_made(file: Path) -> None:
    file.parent.write_text("a file")
    with pytest.raises(OutputError, match="The settings cannot be written to"):
        write_settings(Settings())


def test_cache_folder_follows_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILESEG_CACHE")
    before = cache_folder()
    write_settings(Settings(cache=tmp_path / "other"))
    assert cache_folder() == tmp_path / "other"
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "third"))
    assert cache_folder() == tmp_path / "third"
    monkeypatch.delenv("TILESEG_CACHE")
    write_settings(Settings())
    assert cache_folder() == before
    assert os.fspath(before)


@pytest.mark.parametrize("cache", ['"relative"', "3", '{"a": 1}', '""'])
def test_cache_that_is_none_does_no_harm(file: Path, cache: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TILESEG_CACHE")
    before = cache_folder()
    file.parent.mkdir(parents=True)
    file.write_text(f'{{"cache": {cache}}}', encoding="utf-8")
    assert cache_folder() == before
