"""``tileseg models hub``, ``models download`` and ``settings``: what is said, how it ends, and what Ctrl-C leaves."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from napari_tileseg.cli import main
from napari_tileseg.models.settings import Settings, write_settings

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = (Path(__file__).parents[1] / "models" / "bioimageio" / "library-3d-v5.zip").read_bytes()


class Web:
    """A small server; what its address is for depends on the test."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.pace = 0.0
        web = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = web.files.get(self.path.partition("?")[0])
                if body is None:
                    return self.send_error(404)
                start = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
                self.send_response(206 if start else 200)
                self.send_header("ETag", '"1"')
                self.send_header("Content-Length", str(len(body) - start))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.end_headers()
                with contextlib.suppress(OSError):
                    for first in range(start, len(body), 1000):
                        self.wfile.write(body[first : first + 1000])
                        time.sleep(web.pace)
                return None

            def log_message(self, *_: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("TILESEG_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("TILESEG_SETTINGS", str(tmp_path / "settings.json"))
    running = Web()
    hosts = {"https://raw.githubusercontent.com": "monai", "https://hypha.aicell.io": "bio", "https://bioimage-io.github.io": "none"}
    write_settings(Settings(mirror=" ".join(f"{host}={running.address}/{name}" for host, name in hosts.items()), retries=0))
    source = {"source": f"{running.address}/y.zip", "checksum": ""}
    index = {"spleen_ct_segmentation_v0.5.3": source, "vista3d_v0.5.7": source}
    running.files["/monai/Project-MONAI/model-zoo/dev/models/model_info.json"] = json.dumps(index).encode()
    shark = {"type": "model", "alias": "affable-shark", "manifest": {"name": "Nuclei", "description": "\x1b[31mred", "tags": ["2d"]}}
    running.files["/bio/bioimage-io/artifacts/bioimage.io/children"] = json.dumps([shark]).encode()
    running.files["/bio/bioimage-io/artifacts/affable-shark/create-zip-file"] = PACKAGE
    thread = threading.Thread(target=running.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Return a function that runs a command and returns its status, stdout and stderr."""

    def command(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            main(list(arguments))
        said = capsys.readouterr()
        return int(end.value.code or 0), said.out, said.err

    return command


def test_hub(web: Web, run: Any) -> None:
    status, said, told = run("models", "hub")
    assert status == 0
    assert [line.split()[0] for line in said.splitlines()] == [
        "hub:monai/spleen_ct_segmentation",
        "hub:monai/vista3d",
        "hub:bioimageio/affable-shark",
    ]
    assert "\x1b" not in said
    assert "MONAI Model Zoo, as of " in told
    assert run("models", "hub", "--search", "2D nuclei")[1].startswith("hub:bioimageio/affable-shark")
    records = [json.loads(line) for line in run("models", "hub", "monai", "--json")[1].splitlines()]
    assert [record["ref"] for record in records] == ["hub:monai/spleen_ct_segmentation", "hub:monai/vista3d"]


def test_hub_that_is_none_and_words_that_match_nothing(web: Web, run: Any) -> None:
    assert run("models", "hub", "nowhere")[0] == 2
    status, said, told = run("models", "hub", "--search", "giraffe")
    assert (status, said) == (2, "")
    assert 'No model matches "giraffe"' in told


def test_hub_out_of_reach(web: Web, run: Any) -> None:
    del web.files["/bio/bioimage-io/artifacts/bioimage.io/children"]
    status, said, told = run("models", "hub")
    assert (status, len(said.splitlines())) == (0, 2)
    assert "The models of BioImage.IO are not known" in told
    status, said, told = run("models", "hub", "bioimageio", "--json")
    assert (status, json.loads(said)["error"]) == (1, "DownloadError")


def test_download(web: Web, run: Any) -> None:
    status, said, told = run("models", "download", "hub:bioimageio/affable-shark")
    assert (status, said.partition(":")[0]) == (0, "affable-shark is here now")
    assert "Neither the hub nor you gave a checksum" in told
    records = [json.loads(line) for line in run("models", "download", "hub:bioimageio/affable-shark", "--json")[1].splitlines()]
    assert [record["event"] for record in records] == ["downloaded"]
    assert "affable-shark" in run("models", "list")[1]


def test_download_that_fails(web: Web, run: Any) -> None:
    assert run("models", "download", f"{web.address}/nothing.zip")[0] == 1
    assert run("models", "download", "hub:monai/nothing")[0] == 2
    status, said, told = run(
        "models", "download", f"{web.address}/bio/bioimage-io/artifacts/affable-shark/create-zip-file", "--sha256", "0" * 64
    )
    assert (status, said) == (1, "")
    assert "is not what it should be" in told


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C of another process needs a console there")
def test_interrupted_and_gone_on(web: Web, tmp_path: Path, run: Any) -> None:
    web.files["/a.zip"], web.pace = PACKAGE, 0.05
    url = f"{web.address}/a.zip"
    command = [sys.executable, "-m", "napari_tileseg.cli", "models", "download", url, "--json"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ))
    assert child.stdout is not None
    while json.loads(child.stdout.readline())["bytes"] == 0:
        pass
    child.send_signal(signal.SIGINT)
    said, told = child.communicate(timeout=60)
    assert child.returncode == 130
    assert json.loads(said.splitlines()[-1])["error"] == "Cancelled"
    assert "the same command goes on from there" in told
    assert [path.stat().st_size for path in tmp_path.rglob("*.part")]
    web.pace = 0
    status, said, _ = run("models", "download", url, "--json")
    records = [json.loads(line) for line in said.splitlines()]
    assert status == 0
    assert records[0]["bytes"] > 0
    assert records[-1]["event"] == "downloaded"


def test_command_downloads_the_model_that_it_names(web: Web, run: Any, tmp_path: Path) -> None:
    import numpy as np
    import tifffile

    volume = np.random.default_rng(1).integers(0, 255, (16, 32, 32), dtype=np.uint8)
    tifffile.imwrite(tmp_path / "in.tif", volume, imagej=True, metadata={"axes": "ZYX"})
    command = ("segment", str(tmp_path / "in.tif"), "-o", str(tmp_path / "out.tif"), "--model", "hub:bioimageio/affable-shark", "--json")
    status, said, told = run(*command)
    assert (status, told.splitlines()[0]) == (0, "Downloading hub:bioimageio/affable-shark")
    assert all(json.loads(line) for line in said.splitlines())
    assert (tmp_path / "out.tif").is_file()
    web.files.clear()
    status, _, told = run(*command, "--overwrite")
    assert (status, "Downloading" in told) == (0, False)


def test_settings(web: Web, run: Any, tmp_path: Path) -> None:
    status, said, _ = run("settings", "show")
    assert status == 0
    assert {"cache", "mirror", "proxy", "offline", "retries", "timeout"} <= {line.split()[0] for line in said.splitlines()}
    assert run("settings", "set", "retries", "7")[1] == "retries is 7 now.\n"
    assert run("settings", "set", "offline", "yes")[1] == "offline is true now.\n"
    assert run("settings", "set", "cache", str(tmp_path / "c"))[0] == 0
    assert run("settings", "set", "proxy", "http://me:secret@host:3128")[1] == "proxy is http://me:***@host:3128 now.\n"
    record = json.loads(run("settings", "show", "--json")[1])
    assert (record["retries"], record["offline"], record["cache"]) == (7, True, str(tmp_path / "c"))
    assert "secret" not in run("settings", "show")[1] + json.dumps(record)
    assert run("settings", "unset", "retries")[1] == "retries is 5 again.\n"
    assert run("settings", "unset", "proxy")[1] == "proxy is empty again.\n"
    assert json.loads((tmp_path / "settings.json").read_text())["offline"] is True


@pytest.mark.parametrize("arguments", [("set", "nothing", "1"), ("unset", "nothing"), ("set", "retries", "many"), ("set", "timeout", "-1")])
def test_settings_that_are_not_accepted(web: Web, run: Any, arguments: tuple[str, ...]) -> None:
    status, said, told = run("settings", *arguments)
    assert (status, said) == (2, "")
    assert told.endswith(".\n")


def test_bar_on_a_terminal(web: Web, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert run("models", "download", "hub:bioimageio/affable-shark")[0] == 0
