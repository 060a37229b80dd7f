"""Which devices there are and how much memory is free, found without importing torch."""

from __future__ import annotations

import importlib.util
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from napari_tileseg.worker.interpreter import creation_flags

__all__ = ["Device", "choices", "parse_smi", "probe"]


@dataclass(frozen=True)
class Device:
    """Something a model can run on.

    Parameters
    ----------
    key : str
        What `SegmentOptions.device` takes.
    name : str
        For people.
    free, total : int or None
        Bytes.
    """

    key: str
    name: str
    free: int | None = None
    total: int | None = None

    @property
    def text(self) -> str:
        """``"H200, 139 GB"``."""
        return self.name if self.free is None else f"{self.name}, {_gigabytes(self.free)} free"


def probe() -> tuple[Device, ...]:
    """Look for devices, the best first; takes up to a few seconds where a driver answers slowly."""
    return (*_cuda(), *_metal(), _host())


def choices(devices: tuple[Device, ...]) -> list[tuple[str, str]]:
    """Return texts and keys for a combo box, Auto first with the device it stands for."""
    best = devices[0].text if devices else "the best there is"
    return [(f"Auto: {best}", "auto"), *((device.text, device.key) for device in devices)]


def parse_smi(answer: str) -> tuple[Device, ...]:
    """Read what ``nvidia-smi --query-gpu=name,memory.free,memory.total --format=csv,noheader,nounits`` prints (MiB)."""
    found = []
    for index, line in enumerate(line for line in answer.splitlines() if line.strip()):
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit():
            name = parts[0].removeprefix("NVIDIA ").removeprefix("GeForce ")
            found.append(Device(f"cuda:{index}", name, int(parts[1]) << 20, int(parts[2]) << 20))
    return tuple(found)


def _cuda() -> tuple[Device, ...]:
    command = shutil.which("nvidia-smi")
    if command is None or not _torch_has_cuda():
        return ()
    query = [command, "--query-gpu=name,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True, creationflags=creation_flags()).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_smi(answer)


def _torch_has_cuda() -> bool:
    """Look at the installed files: a torch for the CPU alone cannot use a GPU that is there."""
    spec = importlib.util.find_spec("torch")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return any(any(Path(folder, "lib").glob(pattern)) for folder in folders for pattern in ("*torch_cuda*", "*c10_cuda*", "*torch_hip*"))


def _metal() -> tuple[Device, ...]:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return (Device("mps", "Apple GPU", _free_memory()),)
    return ()


def _host() -> Device:
    return Device("cpu", "CPU", _free_memory())


def _free_memory() -> int | None:
    try:
        import psutil  # napari brings it along
    except ImportError:
        return None
    return int(psutil.virtual_memory().available)


def _gigabytes(size: int) -> str:
    number = size / 1e9
    return f"{number:.0f} GB" if number >= 9.95 else f"{number:.1f} GB"
