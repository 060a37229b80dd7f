"""Whatever a server does, in whatever order: the file is right, or there is a sentence and no file."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_tileseg.errors import DownloadError
from napari_tileseg.models.hubs.fetch import fetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def raw(setting: Any) -> Iterator[Callable[[bytes], str]]:
    """Return a function that makes a server answer every request with these bytes, and returns its address."""
    setting(retries=1, timeout=2)
    listening = socket.create_server(("127.0.0.1", 0))
    answer: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    connection.recv(2**16)
                    connection.sendall(answer[0])

    thread = threading.Thread(target=serve)
    thread.start()

    def put(body: bytes) -> str:
        answer[:] = [body]
        return f"http://127.0.0.1:{listening.getsockname()[1]}/a.zip"

    yield put
    with contextlib.suppress(OSError):
        listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


OK = b"HTTP/1.1 200 OK\r\n"
NONSENSE = {
    "nothing": b"",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "endless line": b"HTTP/1.1 200 " + b"x" * 100_000,
    "endless header": OK + b"A: " + b"b" * 100_000 + b"\r\n\r\n",
    "many headers": OK + b"".join(b"A%d: b\r\n" % number for number in range(500)) + b"\r\n",
    "half a head": OK + b"Content-Le",
    "status that is none": b"HTTP/1.1 9999 Maybe\r\n\r\n",
    "negative status": b"HTTP/1.1 -200 OK\r\n\r\n",
    "chunks that are none": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc",
    "chunk of a negative size": OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabc",
    "chunk cut off": OK + b"Transfer-Encoding: chunked\r\n\r\nff\r\nabc",
    "huge length": OK + b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "redirected to nowhere": b"HTTP/1.1 302 Found\r\n\r\n",
    "redirected to an odd place": b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\n\r\n",
    "redirected with control characters": b"HTTP/1.1 302 Found\r\nLocation: http://a\x00b/\x1b[2J\r\n\r\n",
    "a part that was not asked for": b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-7/8\r\nContent-Length: 3\r\n\r\nabc",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "not modified": b"HTTP/1.1 304 Not Modified\r\n\r\n",
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_gets_a_sentence(raw: Any, tmp_path: Path, answer: bytes) -> None:
    with pytest.raises(DownloadError) as caught:
        fetch(raw(answer), tmp_path / "a.zip")
    assert str(caught.value).isprintable()
    assert str(caught.value).endswith(".")
    assert not (tmp_path / "a.zip").exists()


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(st.sampled_from(["cut", "reset", 503, 429, "ok"]), max_size=6),
    ranges=st.booleans(),
    if_range=st.booleans(),
    chunked=st.booleans(),
    etag=st.sampled_from(["", '"one"', 'W/"one"']),
    size=st.sampled_from([0, 1, 2, 1000, 300_000]),
    calls=st.integers(1, 3),
    changes=st.booleans(),
)
def test_file_is_right_or_there_is_none(server: Any, setting: Any, tmp_path: Path, **how: Any) -> None:
    setting(retries=1)
    faults, size, calls, changes = (how.pop(name) for name in ("faults", "size", "calls", "changes"))
    path = tmp_path / secrets.token_hex(6) / "a.zip"
    first, second = secrets.token_bytes(size), secrets.token_bytes(size)
    url = server.put("a.zip", first, faults=faults, **how)
    now = first
    for _ in range(calls):
        try:
            fetch(url, path)
        except DownloadError:
            assert not path.exists()
        else:
            assert path.read_bytes() == now
            path.unlink()
        if changes:  # the author uploads another file of the same size; a server that tells nothing of it cannot be continued
            now = second
            server.files["/a.zip"].body = second
            server.files["/a.zip"].etag = how["etag"].replace("one", "two")


@given(st.text(), st.text())
def test_names_and_addresses_never_lead_outside(url: str, disposition: str) -> None:
    from napari_tileseg.models.hubs.addresses import announced_name, file_name

    for text in (url, f"https://x/{url}"):
        with contextlib.suppress(ValueError):  # of the standard library, for addresses that `check_url` refuses before
            name = file_name(text)
            assert "/" not in name
            assert "\\" not in name
            assert name not in (".", "..")
    name = announced_name(f"attachment; filename={disposition}")
    assert not set(name) & set('/\\:*?"<>|\0\n')
    assert not name.startswith(".")
