"""https: whose certificate counts, through a proxy too, and no way back to http."""

from __future__ import annotations

import contextlib
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import pytest

from napari_tileseg.errors import DownloadError
from napari_tileseg.models.hubs.fetch import fetch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the command openssl to make a certificate")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a certificate for this computer, with its key, that nobody knows."""
    path = tmp_path_factory.mktemp("certificate") / "both.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1,DNS:model.invalid"]
    command = ["openssl", "req", "-x509", *kind, *names, "-keyout", f"{path}.key", "-out", str(path)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    with path.open("ab") as stream:
        stream.write(path.with_name(f"{path.name}.key").read_bytes())
    return path


@pytest.fixture
def secure(certificate: Path, server: Any) -> Iterator[str]:
    """Return the address of a server that sends /a.zip, and sends /back on to the plain server."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/back":
                self.send_response(301)
                self.send_header("Location", server.put("a.zip", b"plain"))
                return self.end_headers()
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"secure")
            return None

        def log_message(self, *_: object) -> None:
            pass

    class Quiet(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass

        def get_request(self) -> tuple[socket.socket, Any]:
            plain, address = self.socket.accept()
            try:
                return context.wrap_socket(plain, server_side=True), address
            except OSError:
                plain.close()
                raise

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    running = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"https://127.0.0.1:{running.server_address[1]}"
    running.shutdown()
    running.server_close()
    thread.join()


@pytest.fixture
def known(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


def test_certificate_that_nobody_knows(secure: str, setting: Any, tmp_path: Path) -> None:
    setting(retries=5)
    with pytest.raises(DownloadError, match=r"certificate is not accepted: self.signed certificate.*SSL_CERT_FILE"):
        fetch(f"{secure}/a.zip", tmp_path / "a.zip")


def test_certificate_that_the_user_names(secure: str, known: None, setting: Any, tmp_path: Path) -> None:
    setting()
    fetch(f"{secure}/a.zip", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == b"secure"


def test_no_way_back_to_http(secure: str, known: None, setting: Any, tmp_path: Path, server: Any) -> None:
    setting()
    with pytest.raises(DownloadError, match="sends on to http:, which is not followed"):
        fetch(f"{secure}/back", tmp_path / "a.zip")
    assert server.log == []


class Tunnel(threading.Thread):
    """A proxy that asks for a login, and connects whatever name it is asked for with one port of this computer."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self.asked: list[str] = []
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += near.recv(4096)
            self.asked.append(head.decode().splitlines()[0])
            if b"Proxy-Authorization: Basic bWU6c2VjcmV0" not in head:
                near.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
            near.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            with socket.create_connection(("127.0.0.1", self._port)) as far:
                back = threading.Thread(target=self._pass_on, args=(far, near), daemon=True)
                back.start()
                self._pass_on(near, far)
                back.join()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(2**16):
                target.sendall(block)
            target.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.join()


@pytest.fixture
def tunnel(secure: str) -> Iterator[Tunnel]:
    running = Tunnel(int(secure.rpartition(":")[2]))
    yield running
    running.close()


def test_https_through_a_proxy(tunnel: Tunnel, known: None, setting: Any, tmp_path: Path) -> None:
    setting(proxy=f"http://me:secret@{tunnel.address}")
    fetch("https://model.invalid/a.zip", tmp_path / "a.zip")
    assert (tmp_path / "a.zip").read_bytes() == b"secure"
    assert tunnel.asked == ["CONNECT model.invalid:443 HTTP/1.0"] or tunnel.asked == ["CONNECT model.invalid:443 HTTP/1.1"]


def test_proxy_that_asks_for_a_login(tunnel: Tunnel, known: None, setting: Any, tmp_path: Path) -> None:
    setting(proxy=f"http://{tunnel.address}")
    with pytest.raises(DownloadError, match="The proxy refuses: 407"):
        fetch("https://model.invalid/a.zip", tmp_path / "a.zip")
    assert len(tunnel.asked) == 1
