"""A server with every fault that a download can meet, and settings that fit a test."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from napari_tileseg.models.settings import Settings, write_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@dataclass
class File:
    """What a server has under one address, and how it misbehaves.

    Parameters
    ----------
    faults : list of str or int
        Used up from the front, one for each request: a status such as 503, ``"cut"`` after half of what was asked, ``"reset"``,
        ``"silent"``, ``"ok"``.
    declared : int
        Added to the length that is announced.
    """

    body: bytes = b""
    etag: str = '"one"'
    modified: str = ""
    ranges: bool = True
    if_range: bool = True
    chunked: bool = False
    declared: int = 0
    pace: float = 0.0
    location: str = ""
    disposition: str = ""
    encoding: str = ""
    faults: list[Any] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)


class Server:
    """An HTTP server on this computer, for as long as the test lasts."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.released = threading.Event()
        self.log: list[str] = []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    owner.answer(self)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def put(self, name: str, body: bytes, **how: Any) -> str:
        """Offer a file, and return its address."""
        self.files[f"/{name}"] = File(body, **how)
        return f"{self.address}/{name}"

    def close(self) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        path = request.path.removeprefix(self.address) if request.path.startswith("http") else request.path
        self.log.append(request.path)
        found = self.files.get(path) or self.files.get(path.partition("?")[0])
        if found is None:
            return request.send_error(404)
        found.requests.append({name.lower(): value for name, value in request.headers.items()})
        fault = found.faults.pop(0) if found.faults else "ok"
        if fault == "silent":
            self.released.wait(30)
            return None
        if fault == "reset":
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            return request.connection.close()
        if isinstance(fault, int):
            return request.send_error(fault)
        if found.location:
            request.send_response(302)
            request.send_header("Location", found.location)
            request.send_header("Content-Length", "0")
            return request.end_headers()
        return self._body(request, found, cut=fault == "cut")

    def _body(self, request: http.server.BaseHTTPRequestHandler, found: File, *, cut: bool) -> None:
        start = self._start(request, found)
        if start >= len(found.body) > 0:
            return request.send_error(416)
        body = found.body[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(found.body) - 1}/{len(found.body)}")
        named = {"ETag": found.etag, "Last-Modified": found.modified, "Content-Disposition": found.disposition}
        for name, value in {**named, "Content-Encoding": found.encoding}.items():
            if value:
                request.send_header(name, value)
        if found.chunked:
            request.send_header("Transfer-Encoding", "chunked")
        else:
            request.send_header("Content-Length", str(len(body) + found.declared))
        request.end_headers()
        sent = body[: len(body) // 2] if cut else body
        step = max(1, len(sent) // 20) if found.pace else 2**16
        for first in range(0, len(sent), step):
            piece = sent[first : first + step]
            request.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if found.chunked else piece)
            time.sleep(found.pace)
        if found.chunked and not cut:
            request.wfile.write(b"0\r\n\r\n")
        return None

    @staticmethod
    def _start(request: http.server.BaseHTTPRequestHandler, found: File) -> int:
        asked = request.headers.get("Range", "")
        if not asked or not found.ranges:
            return 0
        condition = request.headers.get("If-Range")
        if condition is not None and found.if_range and condition not in (found.etag, found.modified):
            return 0
        return int(asked.removeprefix("bytes=").partition("-")[0])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):  # of the computer that runs the tests
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    running = Server()
    yield running
    running.close()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a cache, models and settings of its own."""
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("TILESEG_SETTINGS", str(tmp_path / "settings.json"))
    return tmp_path


@pytest.fixture
def setting(places: Path) -> Callable[..., Settings]:
    """Return a function that writes settings."""

    def write(**values: Any) -> Settings:
        settings = Settings(**{"retries": 3, "timeout": 5, **values})
        write_settings(settings)
        return settings

    return write


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_tileseg.models.hubs.fetch._LONGEST_PAUSE", 0.02)


@pytest.fixture
def content() -> bytes:
    """Return 3 MB that no two places of share."""
    return b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(100_000))


@pytest.fixture
def bundle_index(server: Server) -> Callable[..., None]:
    """Return a function that offers an index of the MONAI Model Zoo through the mirror."""

    def offer(document: Any) -> None:
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        server.put("raw/Project-MONAI/model-zoo/dev/models/model_info.json", body)

    return offer
