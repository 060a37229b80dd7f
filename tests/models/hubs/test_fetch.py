"""A file comes whole and checked to the disk, or a sentence says why not; whatever a server or the network does."""

from __future__ import annotations

import hashlib
import socket
import subprocess
import sys
import threading
import time
from collections import namedtuple
from typing import TYPE_CHECKING, Any

import pytest

from napari_tileseg.errors import Cancelled, DownloadError
from napari_tileseg.models.hubs import fetch as fetching
from napari_tileseg.models.hubs.fetch import fetch

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def _defaults(setting: Any) -> None:
    setting()


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def sums(content: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(content).hexdigest()}


@pytest.mark.parametrize(
    ("how", "requests"),
    [
        pytest.param({}, 1, id="plain"),
        pytest.param({"chunked": True}, 1, id="chunked"),
        pytest.param({"faults": [503, 503]}, 3, id="503 twice"),
        pytest.param({"faults": ["reset", 429]}, 3, id="reset, then too many"),
        pytest.param({"faults": ["cut"]}, 2, id="cut"),
        pytest.param({"faults": ["cut", "cut", "cut"]}, 4, id="cut three times"),
        pytest.param({"faults": ["cut"], "ranges": False}, 2, id="cut, no ranges"),
        pytest.param({"faults": ["cut"], "etag": "", "modified": "Wed, 05 Nov 2025 14:22:05 GMT"}, 2, id="cut, a date only"),
        pytest.param({"faults": ["cut"], "etag": "", "modified": ""}, 2, id="cut, nothing to recognise it by"),
        pytest.param({"faults": ["cut"], "etag": 'W/"weak"'}, 2, id="cut, a weak tag"),
        pytest.param({"faults": ["cut"], "chunked": True}, 2, id="cut, chunked"),
        pytest.param({"pace": 0.005}, 1, id="slow"),
    ],
)
def test_file_comes_whole(server: Any, content: bytes, tmp_path: Path, how: dict[str, Any], requests: int) -> None:
    place = tmp_path / "here" / "model.zip"
    seen: list[tuple[int, int | None]] = []
    found = fetch(server.put("model.zip", content, **how), place, checksums=sums(content), on_progress=lambda *at: seen.append(at))
    assert place.read_bytes() == content
    assert (found.path, found.sha256, found.checked) == (place, sums(content)["sha256"], "sha256")
    assert left(place.parent) == {"model.zip"}
    assert len(server.files["/model.zip"].requests) == requests
    assert seen[-1][0] == len(content)
    assert all(total in (None, len(content)) for _, total in seen)


def test_cut_connection_goes_on_where_it_stopped(server: Any, content: bytes, tmp_path: Path) -> None:
    fetch(server.put("a.zip", content, faults=["cut"]), tmp_path / "a.zip")
    _, second = server.files["/a.zip"].requests
    assert second["range"] == f"bytes={len(content) // 2}-"
    assert second["if-range"] == '"one"'


@pytest.mark.parametrize("if_range", [True, False], ids=["heeds If-Range", "ignores If-Range"])
def test_file_that_changed_in_between_starts_anew(server: Any, content: bytes, tmp_path: Path, if_range: bool) -> None:
    url = server.put("a.zip", content, faults=["cut"], if_range=if_range)
    other = content[::-1]

    def change(done: int, total: int | None) -> None:
        if done >= len(content) // 2:
            server.files["/a.zip"].body, server.files["/a.zip"].etag = other, '"two"'

    fetch(url, tmp_path / "a.zip", on_progress=change)
    assert (tmp_path / "a.zip").read_bytes() == other


def test_part_without_a_mark_is_not_continued_by_a_later_call(server: Any, content: bytes, tmp_path: Path, setting: Any) -> None:
    setting(retries=0)
    url = server.put("a.zip", content, faults=["cut"], etag="")
    with pytest.raises(DownloadError, match="the connection ended after"):
        fetch(url, tmp_path / "a.zip")
    server.files["/a.zip"].body = content[::-1]
    fetch(url, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == content[::-1]


def test_damaged_part_is_found_by_the_checksum_and_fetched_anew(server: Any, content: bytes, tmp_path: Path, setting: Any) -> None:
    setting(retries=0)
    url = server.put("a.zip", content, faults=["cut"])
    with pytest.raises(DownloadError):
        fetch(url, tmp_path / "a.zip", checksums=sums(content))
    part = tmp_path / "a.zip.part"
    part.write_bytes(b"x" * part.stat().st_size)
    fetch(url, tmp_path / "a.zip", checksums=sums(content))
    assert (tmp_path / "a.zip").read_bytes() == content
    assert "range" not in server.files["/a.zip"].requests[-1]


@pytest.mark.parametrize("name", ["sha256", "sha1"])
def test_wrong_checksum(server: Any, content: bytes, tmp_path: Path, name: str) -> None:
    wanted = hashlib.new(name, b"something else").hexdigest()
    with pytest.raises(DownloadError, match=r"not what it should be: its SHA-(256|1) is \w{12}\.\.\., expected " + wanted[:12]):
        fetch(server.put("a.zip", content), tmp_path / "a.zip", checksums={name: wanted})
    assert left(tmp_path) & {"a.zip", "a.zip.part", "a.zip.part.json"} == set()


@pytest.mark.parametrize(
    ("declared", "words"),
    [(100, "could not be fetched 4 times: the connection ended after"), (-100, "longer than the 3199900 bytes")],
    ids=["announces more", "announces less"],
)
def test_server_that_lies_about_the_length(server: Any, content: bytes, tmp_path: Path, declared: int, words: str) -> None:
    url = server.put("a.zip", content, declared=declared, ranges=False)
    with pytest.raises(DownloadError, match=words):
        fetch(url, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()
    server.put("a.zip", content)
    assert fetch(url, tmp_path / "a.zip").sha256 == sums(content)["sha256"]  # what the lie has left does no harm


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"faults": [404]}, "404 Not Found. There is no such file"),
        ({"faults": [403]}, "403 Forbidden. It is not open to everybody"),
        ({"faults": [500] * 9}, "could not be fetched 4 times: the server answered 500"),
        ({"location": "file:///etc/passwd"}, "sends on to file:, which is not followed"),
        ({"location": "ftp://example.org/a.zip"}, "sends on to ftp:, which is not followed"),
        ({"location": "a.zip"}, "sends on more than 10 times"),
        ({"location": "http://u:p@127.0.0.1/a.zip"}, "holds a user name or password"),
        ({"encoding": "gzip"}, "comes packed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_fetched_gets_a_sentence(server: Any, content: bytes, tmp_path: Path, how: dict[str, Any], words: str) -> None:
    with pytest.raises(DownloadError, match=words):
        fetch(server.put("a.zip", content, **how), tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "https://", "http://a b/c", "https://u:p@h/x", "http://[::1/x", "https://h:99999/x", "x\ny"]
)
def test_addresses_that_are_not_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError):
        fetch(url, tmp_path / "a.zip")


def test_redirection_is_followed(server: Any, content: bytes, tmp_path: Path) -> None:
    server.put("far/model.zip", content, disposition='attachment; filename="unet v2.onnx"')
    found = fetch(server.put("a", b"", location="/far/model.zip"), tmp_path / "a.zip")
    assert (found.sha256, found.name) == (sums(content)["sha256"], "unet v2.onnx")


@pytest.mark.parametrize(
    "said", ['attachment; filename="../../x.zip"', "attachment; filename*=UTF-8''..%2F..%2Fx.zip", 'attachment; filename=".ssh"', "inline"]
)
def test_name_that_leads_outside_is_not_taken(server: Any, tmp_path: Path, said: str) -> None:
    assert fetch(server.put("a.zip", b"x", disposition=said), tmp_path / "a.zip").name == ""


def test_silent_server(server: Any, tmp_path: Path, setting: Any) -> None:
    setting(timeout=0.2, retries=1)
    with pytest.raises(DownloadError, match=r"could not be fetched 2 times: the server said nothing for 0\.2 s"):
        fetch(server.put("a.zip", b"x", faults=["silent"] * 3), tmp_path / "a.zip")


def test_nobody_there(tmp_path: Path, server: Any, setting: Any) -> None:
    setting(retries=0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(DownloadError, match="could not be fetched: connection refused"):
        fetch(f"http://127.0.0.1:{port}/a.zip", tmp_path / "a.zip")


@pytest.mark.parametrize("how", [{"pace": 0.5}, {"faults": ["silent"]}, {"faults": [503] * 50}], ids=["slow", "silent", "503"])
def test_stops_at_once_and_goes_on_later(
    server: Any, content: bytes, tmp_path: Path, how: dict[str, Any], setting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting(retries=20)
    monkeypatch.setattr(fetching, "_LONGEST_PAUSE", 20)
    url = server.put("a.zip", content, **how)
    cancel = threading.Event()
    asked: list[float] = []
    threading.Timer(0.8, lambda: (asked.append(time.monotonic()), cancel.set())).start()
    with pytest.raises(Cancelled):
        fetch(url, tmp_path / "a.zip", cancel=cancel)
    assert time.monotonic() - asked[0] < 5, "half of what the whole answer takes; busy machines take a second"
    kept = (tmp_path / "a.zip.part").stat().st_size if "pace" in how else 0
    file = server.files["/a.zip"]
    file.pace, file.faults = 0, []
    assert fetch(url, tmp_path / "a.zip").sha256 == sums(content)["sha256"]
    assert file.requests[-1].get("range", "bytes=0-") == f"bytes={kept}-"


def test_killed_in_the_middle_and_continued(server: Any, content: bytes, tmp_path: Path) -> None:
    url = server.put("a.zip", content, pace=0.2)
    code = "import sys; from pathlib import Path; from napari_tileseg.models.hubs.fetch import fetch; fetch(sys.argv[1], Path(sys.argv[2]))"
    child = subprocess.Popen([sys.executable, "-c", code, url, str(tmp_path / "a.zip")])
    part = tmp_path / "a.zip.part"
    until = time.monotonic() + 60
    while not (part.is_file() and part.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    child.kill()
    child.wait()
    kept = part.stat().st_size
    server.files["/a.zip"].pace = 0
    assert 0 < kept < len(content)
    assert fetch(url, tmp_path / "a.zip", checksums=sums(content)).sha256 == sums(content)["sha256"]
    assert server.files["/a.zip"].requests[-1]["range"] == f"bytes={kept}-"


def test_full_disk_is_said_before(server: Any, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**12, 10**12, 12 * 10**6))
    with pytest.raises(DownloadError, match=r"Needs 3\.2 MB on .*; 12\.0 MB are free\. Choose another folder"):
        fetch(server.put("a.zip", content), tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of this kind there")
def test_disk_that_is_full_on_the_way_keeps_what_was_fetched(server: Any, content: bytes, tmp_path: Path) -> None:
    url = server.put("a.zip", content)
    code = """
import resource, signal, sys
from pathlib import Path
from napari_tileseg.errors import DownloadError
from napari_tileseg.models.hubs.fetch import fetch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))
try:
    fetch(sys.argv[1], Path(sys.argv[2]))
except DownloadError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, url, str(tmp_path / "a.zip")], capture_output=True, text=True, timeout=60, check=True
    )
    assert "cannot be written to" in done.stdout
    assert "Free some space, or choose another folder" in done.stdout
    assert 0 < (tmp_path / "a.zip.part").stat().st_size <= 10**6
    fetch(url, tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == content
    assert "range" in server.files["/a.zip"].requests[-1]


def test_room_for_the_copy_counts(server: Any, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage(10**12, 10**12, fetching._SPARE + 4 * 10**6))
    fetch(server.put("a.zip", content), tmp_path / "a.zip")
    with pytest.raises(DownloadError, match=r"Needs 6\.4 MB"):
        fetch(server.put("b.zip", content), tmp_path / "b.zip", copied_to=tmp_path / "models" / "mine")


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "not announced"])
def test_too_large(server: Any, content: bytes, tmp_path: Path, chunked: bool) -> None:
    with pytest.raises(DownloadError, match=r"more than 1\.0 MB"):
        fetch(server.put("a.zip", content, chunked=chunked), tmp_path / "a.zip", largest=10**6)
    assert left(tmp_path) & {"a.zip", "a.zip.part"} == set()


def test_wrong_size(server: Any, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="has 3200000 bytes, but 7 were expected"):
        fetch(server.put("a.zip", content), tmp_path / "a.zip", size=7)


def test_offline_mode_asks_nobody(server: Any, content: bytes, tmp_path: Path, setting: Any) -> None:
    setting(offline=True)
    with pytest.raises(DownloadError, match=r"offline mode is on\. Switch it off"):
        fetch(server.put("a.zip", content), tmp_path / "a.zip")
    assert server.log == []


@pytest.mark.parametrize("by_setting", [True, False], ids=["setting", "environment"])
def test_proxy(server: Any, content: bytes, tmp_path: Path, setting: Any, by_setting: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # The server is asked as a proxy for an address that exists nowhere else.
    server.put("a.zip", content)
    server.files["http://model.invalid/a.zip"] = server.files["/a.zip"]
    address = server.address.replace("http://", "http://me:se%3Acret@")
    if by_setting:
        setting(proxy=address)
    else:
        monkeypatch.setenv("http_proxy", address)
    assert fetch("http://model.invalid/a.zip", tmp_path / "a.zip").sha256 == sums(content)["sha256"]
    assert server.log == ["http://model.invalid/a.zip"]
    assert server.files["/a.zip"].requests[0]["proxy-authorization"] == "Basic bWU6c2U6Y3JldA=="
    assert server.files["/a.zip"].requests[0]["host"] == "model.invalid"


def test_mirror(server: Any, content: bytes, tmp_path: Path, setting: Any) -> None:
    server.put("github/a/b.zip", content)
    setting(mirror=f"https://github.com={server.address}/github https://github.com.evil={server.address}/no")
    assert fetch("https://github.com/a/b.zip", tmp_path / "a.zip").sha256 == sums(content)["sha256"]
    assert server.log == ["/github/a/b.zip"]
