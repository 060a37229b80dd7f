"""Files that would harm whoever opened them carelessly; each is made here, so that none lies in the repository."""

from __future__ import annotations

import io
import json
import os
import pickle
import stat
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from pathlib import Path

HUGE = 25_000_000_000
"""So many float32 are 100 GB."""

CARD: dict[str, Any] = {
    "name": "evil",
    "axes": "CYX",
    "channels": ["grey"],
    "classes": ["background", "thing"],
    "window": [32, 32],
    "architecture": "residual_unet",
    "arguments": {"in_channels": 1, "out_channels": 2, "channels": [4, 6], "stem_channels": 2},
}


class Reduced:
    """Calls a function when it is unpickled."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.told = (function, arguments)

    def __reduce__(self) -> Any:
        return self.told


def short(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


def old_text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def storage(kind: str, count: int) -> bytes:
    """Return the opcodes of a reference to a storage of so many numbers."""
    number = b"\x8a\x08" + struct.pack("<q", count)
    return b"(" + old_text("storage") + f"ctorch\n{kind}\n".encode() + old_text("0") + old_text("cpu") + number + b"tQ"


def torch_zip(path: Path, pickled: bytes, *, packed: int = zipfile.ZIP_STORED, data: bytes = b"\0" * 64) -> None:
    with zipfile.ZipFile(path, "w", packed) as archive:
        archive.writestr("net/data.pkl", pickled)
        archive.writestr("net/byteorder", "little")
        archive.writestr("net/data/0", data)
        archive.writestr("net/version", "3\n")


def pickles(folder: Path, canary: Path) -> None:
    call = f"touch {canary}"
    harm = short(call) + b"\x85R."
    plain = {
        "reduce.pth": pickle.dumps(Reduced(os.system, call), protocol=2),
        "stack-global.pth": pickle.dumps(Reduced(os.system, call), protocol=4),
        "nested.pth": pickle.dumps({"state_dict": {"a.weight": [Reduced(os.system, call)]}}, protocol=4),
        "eval.pth": pickle.dumps(Reduced(eval, f"__import__('os').system({call!r})"), protocol=2),
        "inst.pth": b"\x80\x02(" + old_text(call) + b"ios\nsystem\n.",
        "memo.pth": b"\x80\x04" + short("os") + b"\x94" + short("system") + b"\x940h\x00h\x01\x93" + harm,
        "computed.pth": b"\x80\x04cbuiltins\ngetattr\ncos\npath\n\x8c\x03sep\x86R\x8c\x06system\x93" + harm,
        "extension.pth": b"\x80\x02\x82\x01.",
        "dotted.pth": b"\x80\x04" + short("torch._utils") + short("os.system") + b"\x93" + harm,
        "endless.pth": b"\x80\x02" + b"]q\x00(" + b"h\x00" * 50 + b"e.",
        "truncated.pth": pickle.dumps({"a": 1})[:-3],
        "long-name.pth": b"\x80\x02c" + b"a" * 100_000 + b"\nb\n.",
        "laughs.pth": b"\x80\x02cpathlib\nPosixPath\n]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(60)) + b"\x85R.",
    }
    for name, content in plain.items():
        (folder / name).write_bytes(content)
    torch.save(Reduced(os.system, call), folder / "torch.pth")
    torch.save({"state_dict": {"x.weight": Reduced(os.system, call)}}, folder / "torch-nested.pt")
    torch.save(Reduced(os.system, call), folder / "torch-old.pth", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Conv2d(1, 1, 1), folder / "whole-module.pth")
    torch_zip(folder / "deflated.pth", plain["reduce.pth"], packed=zipfile.ZIP_DEFLATED)


def sizes(folder: Path) -> None:
    rebuild = b"ctorch._utils\n_rebuild_tensor_v2\n("
    size = b"\x8a\x08" + struct.pack("<q", HUGE)
    tensor = rebuild + storage("FloatStorage", HUGE) + b"K\x00" + size + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
    torch_zip(folder / "declared.pth", b"\x80\x02}" + old_text("a.weight") + tensor + b"s.")
    wide = rebuild + storage("FloatStorage", 16) + b"K\x00" + size + b"\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR"
    torch_zip(folder / "wider-than-stored.pth", b"\x80\x02}" + old_text("a.weight") + wide + b"s.")
    torch_zip(folder / "bytearray.pth", b"\x80\x02cbuiltins\nbytearray\n\x8a\x05" + (4 * 10**9).to_bytes(5, "little") + b"\x85R.")
    torch_zip(folder / "storage-call.pth", b"\x80\x02ctorch\nFloatStorage\n\x8a\x08" + struct.pack("<q", HUGE) + b"\x85R.")
    old = b"".join(pickle.dumps(value, protocol=2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    old += b"\x80\x02}" + old_text("a.weight") + tensor + b"s." + pickle.dumps(["0"], protocol=2) + struct.pack("<q", HUGE)
    (folder / "declared-old.pth").write_bytes(old)
    header = json.dumps({"a.weight": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}).encode()
    (folder / "declared.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 64)
    (folder / "header.safetensors").write_bytes(struct.pack("<Q", 4 * HUGE) + b"{}")
    deep = b"[" * 10_000 + b"]" * 10_000
    (folder / "deep.safetensors").write_bytes(struct.pack("<Q", len(deep)) + deep)


def onnx_files(folder: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    def model(weight: Any, *, nodes: Any = None) -> Any:
        add = [helper.make_node("Add", ["x", "w"], ["y"])]
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "h", "w"]) for name in ("x", "y")]
        graph = helper.make_graph(nodes or add, "net", ports[:1], ports[1:], [weight])
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def outside(location: str, length: int = 4) -> Any:
        weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
        for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
            weight.external_data.add(key=key, value=value)
        return weight

    secret = folder.parent / "secret.bin"
    secret.write_bytes(b"\0" * 64)
    (folder / "link.bin").symlink_to(secret)
    (folder / "few.bin").write_bytes(b"\0" * 4)
    files = {
        "declared.onnx": model(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[HUGE], raw_data=b"\0" * 64)),
        "dotdot.onnx": model(outside("../secret.bin")),
        "absolute.onnx": model(outside(str(secret))),
        "link.onnx": model(outside("link.bin")),
        "few.onnx": model(outside("few.bin", 4 * HUGE)),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content.SerializeToString())
    whole = model(helper.make_tensor("w", TensorProto.FLOAT, [1], [0.0])).SerializeToString()
    (folder / "truncated.onnx").write_bytes(whole[:-9])
    (folder / "empty.onnx").write_bytes(b"")

    def field(number: int, content: bytes) -> bytes:
        length, rest = len(content), b""
        while length > 0x7F:
            rest += bytes([length & 0x7F | 0x80])
            length >>= 7
        return bytes([number << 3 | 2]) + rest + bytes([length]) + content

    deep = b""
    for _ in range(2_000):  # a graph in an attribute of a node in a graph, and so on
        deep = field(1, field(5, field(6, deep)))
    (folder / "deep.onnx").write_bytes(field(7, deep))
    assert onnx.__version__


def packages(folder: Path) -> None:
    card = json.dumps(CARD).encode()
    zeros = io.BytesIO(bytes(300 * 2**20))

    def package(name: str, files: dict[str, bytes], packed: int = zipfile.ZIP_DEFLATED) -> None:
        with zipfile.ZipFile(folder / name, "w", packed) as archive:
            for entry, content in files.items():
                archive.writestr(entry, content)

    package("bomb.tileseg.zip", {"model.json": card, "weights.safetensors": zeros.getvalue()})
    package("card-bomb.tileseg.zip", {"model.json": zeros.getvalue(), "weights.safetensors": b""})
    package("deep.tileseg.zip", {"model.json": b'{"training":' + b"[" * 10_000 + b"]" * 10_000 + b"}"})
    package("numbers.tileseg.zip", {"model.json": b'{"version":' + b"9" * 100_000 + b"}"})
    wrapped = {**CARD, "architecture": "", "arguments": {}, "loader": "checkpoint"}
    for name, place in (("dotdot", "../../secret.bin"), ("absolute", "/etc/hostname"), ("control", "source/a\x1b[2Jb")):
        told = json.dumps({**wrapped, "source": place}).encode()
        package(f"source-{name}.tileseg.zip", {"model.json": told, "source/x.pth": b"\x80"})
    inner = json.dumps({**wrapped, "source": "source/x.pth"}).encode()
    for name, entry in (
        ("dotdot", "../evil.txt"),
        ("absolute", "/tmp/evil.txt"),
        ("control", "source/\x1b[2J\n.txt"),
        ("drive", "C:evil.txt"),
    ):
        package(f"entry-{name}.tileseg.zip", {"model.json": inner, entry: b"evil", "source/x.pth": b"\x80"})
    with zipfile.ZipFile(folder / "entry-link.tileseg.zip", "w") as archive:
        archive.writestr("model.json", inner)
        link = zipfile.ZipInfo("source/x.pth")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/hostname")
    package("source-bomb.tileseg.zip", {"model.json": inner, "source/x.pth": zeros.getvalue()})
    package("members.tileseg.zip", {"model.json": inner, **{f"source/{number}": b"" for number in range(10_050)}})
    for name, change in (
        ("wide", {"arguments": {"channels": [200_000, 200_000], "in_channels": 1, "out_channels": 2}}),
        ("many", {"arguments": {"channels": [2] * 30_000}}),
        ("fetching", {"architecture": "monai.FlexibleUNet", "arguments": {"pretrained": True, "backbone": "efficientnet-b0"}}),
        ("window", {"window": [2**30, 2**30]}),
    ):
        package(
            f"{name}.tileseg.zip", {"model.json": json.dumps({**CARD, **change}).encode(), "weights.safetensors": b"\2\0\0\0\0\0\0\0{}"}
        )


def side_cars(folder: Path) -> None:
    module = torch.nn.Conv2d(1, 2, 1)
    for name, content in (("deep", b"[" * 10_000 + b"]" * 10_000), ("list", b"[1]"), ("field", b'{"os.system": 1}')):
        torch.save(module.state_dict(), folder / f"side-{name}.pth")
        (folder / f"side-{name}.tileseg.json").write_bytes(content)


def programs(folder: Path) -> None:
    """Write files that run a program by their nature: they are well-formed, and wait for trust."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(torch.nn.Conv2d(1, 2, 1), torch.zeros(1, 1, 8, 8)).save(folder / "program.ts")
    torch.export.save(torch.export.export(torch.nn.Conv2d(1, 2, 1), (torch.zeros(1, 1, 8, 8),)), folder / "program.pt2")
    with zipfile.ZipFile(folder / "program.pt2") as archive, zipfile.ZipFile(folder / "deep.pt2", "w") as changed:
        for info in archive.infolist():
            deep = b"[" * 10_000 + b"]" * 10_000
            changed.writestr(info.filename, deep if info.filename.endswith("models/model.json") else archive.read(info))


def write_all(folder: Path, canary: Path) -> list[Path]:
    """Write them all; return those that are models."""
    folder.mkdir(parents=True)
    pickles(folder, canary)
    sizes(folder)
    onnx_files(folder)
    packages(folder)
    side_cars(folder)
    programs(folder)
    (folder / "name\x1b[31m.onnx").write_bytes(b"\x08")
    return sorted(path for path in folder.iterdir() if path.suffix not in (".bin", ".json"))
