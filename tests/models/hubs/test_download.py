"""A model of a hub or an address becomes one of the user's own; nothing of it runs, and nothing that was fetched is lost."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest

from napari_tileseg.errors import Cancelled, DownloadError, ModelError, ModelNotFoundError, TrustError
from napari_tileseg.models.hubs.download import download, is_remote, obtain
from napari_tileseg.models.hubs.entry import Entry
from napari_tileseg.models.hubs.record import downloaded, read_record
from napari_tileseg.models.imports import remove_model, standing
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import find_spec, list_models, locate
from napari_tileseg.models.trust import trust

PACKAGES = Path(__file__).parents[1] / "bioimageio"
PACKAGE = (PACKAGES / "library-3d-v5.zip").read_bytes()
NAME = "affable-shark"


@pytest.fixture(autouse=True)
def _through_mirrors(server: Any, setting: Any) -> None:
    mirrored(server, setting)


def mirrored(server: Any, setting: Any, **more: Any) -> None:
    hosts = ("https://raw.githubusercontent.com", "https://hypha.aicell.io", "https://huggingface.co", "https://bioimage-io.github.io")
    setting(mirror=" ".join(f"{host}={server.address}/{host[8:]}" for host in hosts), **more)


@pytest.fixture
def hub(server: Any) -> Any:
    """Return a server with one model in the BioImage.IO collection, as the hub makes its zip: in chunks, with a name and no tag."""
    items = [{"id": f"bioimage-io/{NAME}", "type": "model", "manifest": {"name": "Nuclei", "license": "CC-BY-4.0"}, "versions": ["1.1"]}]
    root = "hypha.aicell.io/bioimage-io/artifacts"
    server.put(f"{root}/bioimage.io/children", json.dumps(items).encode())
    said = 'attachment; filename="package.zip"'
    server.put(f"{root}/{NAME}/create-zip-file", PACKAGE, chunked=True, etag="", disposition=said)
    server.zip = server.files[f"/{root}/{NAME}/create-zip-file"]
    return server


def downloads(folder: Path) -> list[Path]:
    """Return all files of downloads but the locks."""
    return [path for path in (folder / "cache" / "downloads").rglob("*") if path.is_file() and path.suffix != ".lock"]


def test_model_of_a_hub_becomes_an_own_one(hub: Any, places: Path) -> None:
    ref = f"hub:bioimageio/{NAME}"
    seen: list[int] = []
    place = download(ref, on_progress=lambda done, total: seen.append(done))
    assert place == places / "models" / NAME
    assert NAME in [spec.name for spec in list_models()]
    assert seen[-1] == len(PACKAGE)
    assert downloads(places) == []
    record = read_record(place)
    assert record is not None
    assert (record.ref, record.title, record.version, record.licence, record.checked) == (ref, "Nuclei", "1.1", "CC-BY-4.0", "")
    assert record.sha256 == hashlib.sha256(PACKAGE).hexdigest()
    assert downloaded(ref) == place
    # The next time nobody is asked, not even where offline mode is on.
    hub.log.clear()
    assert download(ref) == obtain(ref) == locate(ref).path == place
    assert find_spec(ref).name == NAME
    assert hub.log == []


def test_loading_a_reference_downloads_it_once(hub: Any, places: Path) -> None:
    predictor = load_model(f"hub:bioimageio/{NAME}", device="cpu")
    spec = predictor.spec
    import torch

    assert predictor(torch.zeros(1, len(spec.channels), *spec.window)).shape[0] == 1
    load_model(f"hub:bioimageio/{NAME}", device="cpu")
    assert len(hub.zip.requests) == 1


def test_bundle_of_the_model_zoo(server: Any, places: Path, tmp_path: Path) -> None:
    body = bundle(tmp_path / "bundle")
    name = "tiny_ct_segmentation"
    source = f"https://raw.githubusercontent.com/zips/{name}_v0.1.0.zip"
    index = {f"{name}_v0.1.0": {"checksum": hashlib.sha1(body).hexdigest(), "source": source}}
    server.put("raw.githubusercontent.com/Project-MONAI/model-zoo/dev/models/model_info.json", json.dumps(index).encode())
    server.put(f"raw.githubusercontent.com/zips/{name}_v0.1.0.zip", body[:-1] + b"x")
    with pytest.raises(DownloadError, match="its SHA-1 is"):
        download(f"hub:monai/{name}")
    assert list_models() == [spec for spec in list_models() if spec.name != name]
    server.put(f"raw.githubusercontent.com/zips/{name}_v0.1.0.zip", body)
    place = download(f"hub:monai/{name}")
    record = read_record(place)
    assert (place.name, record.checked if record else "") == (name, "sha1")
    assert standing(find_spec(name)).kind == "MONAI bundle"


def test_bundle_in_a_repository_comes_file_by_file(server: Any, places: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    bundle(folder)
    name, url = "tiny_ct_segmentation", "https://huggingface.co/MONAI/tiny_ct_segmentation"
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed: list[dict[str, Any]] = [{"type": "directory", "path": "configs", "oid": "1"}]
    for path in files:
        body, inside = path.read_bytes(), path.relative_to(folder).as_posix()
        listed.append({"type": "file", "path": inside, "size": len(body), "oid": "2"})
        if path.suffix == ".pt":
            listed[-1]["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body)}
        server.put(f"huggingface.co/MONAI/{name}/resolve/0.2.0/{inside}", body)
    server.put(f"huggingface.co/api/models/MONAI/{name}/tree/0.2.0", json.dumps(listed).encode())
    seen: list[tuple[int, int | None]] = []
    entry = Entry("monai", name, "Tiny", version="0.2.0", url=url)
    place = download(entry, on_progress=lambda *at: seen.append(at))
    total = sum(path.stat().st_size for path in files)
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert (place.name, load_model(str(place), device="cpu").spec.name) == (name, name)


@pytest.mark.parametrize("path", ["../../evil", "/etc/passwd", "a\\b", "con/x"])
def test_repository_whose_names_lead_outside(server: Any, places: Path, path: str) -> None:
    listed = [{"type": "file", "path": path, "size": 1}]
    server.put("huggingface.co/api/models/MONAI/x/tree/main", json.dumps(listed).encode())
    with pytest.raises(DownloadError, match="could lead outside"):
        download(Entry("monai", "x", "X", url="https://huggingface.co/MONAI/x"))
    assert not (places / "evil").exists()


def test_model_of_an_address(server: Any, places: Path) -> None:
    url = server.put("download", PACKAGE)  # no suffix says what it is
    place = download(f"{url}?download=1&key=secret", sha256=hashlib.sha256(PACKAGE).hexdigest().upper())
    record = read_record(place)
    assert record is not None
    assert (record.url, record.checked) == (url, "sha256")
    with pytest.raises(DownloadError, match=r"is here already, but was made of a file with SHA-256 \w{12}\.\.\."):
        download(f"{url}?download=1&key=secret", sha256="0" * 64)


@pytest.mark.parametrize("sha256", ["12", "x" * 64])
def test_checksum_that_is_none(sha256: str) -> None:
    with pytest.raises(DownloadError, match="Give 64 hexadecimal digits"):
        download("https://example.org/a.zip", sha256=sha256)


def test_wrong_checksum_leaves_nothing(server: Any, places: Path) -> None:
    with pytest.raises(DownloadError, match="its SHA-256 is"):
        download(server.put("a.zip", PACKAGE), sha256="0" * 64)
    assert downloads(places) == []
    assert not (places / "models").exists()


def test_what_could_run_code_needs_trust_as_a_local_file_does(server: Any, places: Path, tmp_path: Path) -> None:
    body = (PACKAGES / "script-2d-v5.zip").read_bytes()
    place = download(server.put("script.zip", body))
    assert standing(find_spec(place.name)).trust == "needed"
    with pytest.raises(TrustError) as caught:
        load_model(place.name, device="cpu")
    assert caught.value.path is not None
    trust(caught.value.path)
    load_model(place.name, device="cpu")


def test_file_that_must_be_trusted_first_is_not_fetched_twice(server: Any, places: Path, tools: Any, tmp_path: Path) -> None:
    import torch

    from napari_tileseg.models.nets import build_network

    path = tools.write_torchscript(build_network("residual_unet", **tools.ARGUMENTS).eval(), tmp_path / "net.pt")
    url = server.put("net.pt", path.read_bytes())
    try:
        place = download(url)
    except TrustError as error:
        assert error.path is not None
        trust(error.path)
        place = download(url)
    assert len(server.files["/net.pt"].requests) == 1
    assert place.is_dir()
    assert torch  # the network is one of torch


def test_hostile_pickle_is_not_run(server: Any, places: Path, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {tmp_path}/ran",)

    with pytest.raises(ModelError):
        download(server.put("weights.pth", pickle.dumps(Evil())))
    assert not (tmp_path / "ran").exists()


BROKEN = {"page": b"<html>no model</html>", "empty": b"", "zip": b"PK\3\4 damaged", "half": PACKAGE[: len(PACKAGE) // 2]}


@pytest.mark.parametrize("body", BROKEN.values(), ids=BROKEN)
def test_what_is_no_model_is_kept_and_its_place_told(server: Any, places: Path, body: bytes) -> None:
    url = server.put("model.zip", body)
    with pytest.raises(ModelError, match=r"What was fetched is kept: .*model\.zip"):
        download(url)
    (kept,) = downloads(places)
    assert kept.read_bytes() == body
    server.put("model.zip", PACKAGE)  # once the author has repaired it
    assert download(url).is_dir()
    assert downloads(places) == []


def test_cancelled_and_gone_on(hub: Any, server: Any, places: Path) -> None:
    url = server.put("a.zip", PACKAGE, pace=0.1)
    cancel = threading.Event()
    with pytest.raises(Cancelled, match="goes on from there"):
        download(url, cancel=cancel, on_progress=lambda done, total: cancel.set() if done else None)
    assert downloads(places)
    server.files["/a.zip"].pace = 0
    assert download(url).is_dir()
    assert server.files["/a.zip"].requests[-1]["range"].startswith("bytes=")


def test_offline_mode_says_what_to_do(server: Any, setting: Any, places: Path) -> None:
    url = server.put("a.zip", PACKAGE)
    setting(offline=True)
    with pytest.raises(DownloadError, match=r"offline mode is on.*import it \(tileseg models import FILE\)"):
        load_model(url)
    setting()
    place = download(url)
    setting(offline=True)
    assert locate(url).path == place


def test_name_that_is_taken(hub: Any, places: Path) -> None:
    shutil.copytree(download(f"hub:bioimageio/{NAME}"), places / "mine")
    (places / "mine" / "download.json").unlink()
    shutil.rmtree(places / "models" / NAME)
    shutil.move(places / "mine", places / "models" / NAME)
    assert download(f"hub:bioimageio/{NAME}").name == f"{NAME}-bioimageio"


def test_removed_model_is_downloaded_anew(hub: Any, places: Path) -> None:
    ref = f"hub:bioimageio/{NAME}"
    download(ref)
    remove_model(NAME)
    assert downloaded(ref) is None
    assert download(ref).is_dir()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"ref": 1}', "[" * 10_000])
def test_damaged_record_is_none(places: Path, text: str) -> None:
    folder = places / "models" / "x"
    folder.mkdir(parents=True)
    (folder / "download.json").write_text(text)
    assert read_record(folder) is None
    assert downloaded("hub:monai/x") is None


@pytest.mark.parametrize(
    ("ref", "words"),
    [
        ("hub:monai", "has no model"),
        ("hub:", "There is no hub"),
        ("hub:nowhere/x", "There is no hub"),
        ("https://", "cannot be fetched"),
        ("https://me:secret@example.org/a.zip", "holds a user name or password"),
    ],
)
def test_references_to_nothing(hub: Any, server: Any, ref: str, words: str) -> None:
    index = {"a_segmentation_v1": {"source": "https://x/y.zip"}}
    server.put("raw.githubusercontent.com/Project-MONAI/model-zoo/dev/models/model_info.json", json.dumps(index).encode())
    assert is_remote(ref)
    with pytest.raises((ModelNotFoundError, DownloadError), match=words) as caught:
        load_model(ref)
    assert "secret" not in str(caught.value)


def test_two_processes_share_one_download(server: Any, places: Path) -> None:
    url = server.put("a.zip", PACKAGE, pace=0.05)
    code = "import sys; from napari_tileseg.models.hubs.download import download; print(download(sys.argv[1]))"
    both = [subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {child.communicate(timeout=120)[0].strip() for child in both}
    assert [child.returncode for child in both] == [0, 0]
    assert len(said) == 1
    assert len(server.files["/a.zip"].requests) == 1
    assert len(list((places / "models").iterdir())) == 1


def test_waiting_for_another_download_can_be_stopped(server: Any, places: Path) -> None:
    url = server.put("a.zip", PACKAGE, faults=["silent"])
    first = threading.Event()

    def hold() -> None:
        with pytest.raises(Cancelled):
            download(url, cancel=first)

    thread = threading.Thread(target=hold)
    thread.start()
    while not server.log:
        time.sleep(0.01)
    began = time.monotonic()
    with pytest.raises(Cancelled):
        download(url, cancel=lambda: time.monotonic() - began > 0.3)
    assert time.monotonic() - began < 5
    first.set()
    thread.join()


def bundle(folder: Path) -> bytes:
    """Write a small MONAI bundle, and return it as a zip."""
    import torch
    from monai.networks.nets import UNet

    network = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
    steps = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
    config = {
        "network_def": {"_target_": "UNet", **network},
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32], "overlap": 0.5},
        "postprocessing": {"_target_": "Compose", "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}]},
    }
    image = {"type": "image", "format": "magnitude", "num_channels": 1, "spatial_shape": [32, 32], "channel_def": {"0": "image"}}
    output = {**image, "num_channels": 2, "channel_def": {"0": "background", "1": "spleen"}}
    metadata = {"name": "Tiny", "version": "0.1.0", "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": output}}}
    for name, content in {"inference": config, "metadata": metadata}.items():
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content))
    (folder / "models").mkdir()
    torch.manual_seed(1)
    torch.save(UNet(**network).state_dict(), folder / "models" / "model.pt")
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"tiny/{file.relative_to(folder).as_posix()}")
    return path.read_bytes()
