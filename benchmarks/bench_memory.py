"""Memory of whole runs on images that no memory holds: anonymous memory above that of the imported program.

Each case runs in a process of its own, so that none profits from what another has freed:

    python benchmarks/bench_memory.py                 all cases
    python benchmarks/bench_memory.py slide-tiff      some of them
    python benchmarks/bench_memory.py --list

The network has one layer: what is measured is reading, stitching and writing. Images are made on the first use and kept in the
folder that ``--folder`` names (the system's folder for temporary files by default).
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Case:
    """One run.

    Parameters
    ----------
    name, text : str
        For the command line, and for people.
    make : callable
        Writes the image into a folder and returns its path; a path that is there already is kept.
    out : str
        Name of the result.
    most : float
        Gigabytes that are allowed above the imported program.
    spec : dict
        Of the model.
    options : dict
        Of the run.
    layer : callable
        Makes the network from the `ModelSpec`; a convolution of one pixel by default.
    """

    name: str
    text: str
    make: Callable[[Path], Path]
    out: str
    most: float
    spec: dict[str, Any]
    options: dict[str, Any] = field(default_factory=dict)
    layer: Callable[[Any], Any] | None = None


COLOUR = {
    "name": "one-layer",
    "axes": "CYX",
    "channels": ["red", "green", "blue"],
    "classes": ["background", "tissue"],
    "window": (512, 512),
    "overlap": 0.25,
    "normalization": {"kind": "percentile", "lower": 1, "upper": 99},
}
"""A model for slides: normalised by percentiles, so that the pass that measures the image is measured too."""


def texture(side: int) -> np.ndarray[Any, Any]:
    """Return smooth colours with some noise: they compress about as well as stained tissue."""
    random = np.random.default_rng(0)
    coarse = np.kron(random.integers(60, 220, (side // 32, side // 32, 3)), np.ones((32, 32, 1)))
    return np.clip(coarse + random.normal(0, 6, (side, side, 3)), 0, 255).astype(np.uint8)


def slide_tiff(folder: Path, *, side: int = 20_000, compression: str = "jpeg") -> Path:
    """Write a pyramid of tiles, each level from one repeated block of texture."""
    import tifffile

    path = folder / f"slide-{side}-{compression}.ome.tif"
    if path.exists():
        return path
    block = texture(512)

    def tiles(size: int) -> Any:
        count = -(-size // 512)
        for row in range(count):
            for column in range(count):
                yield block[: min(512, size - row * 512), : min(512, size - column * 512)]

    temporary = path.with_suffix(".part")
    sizes = [side, side // 2, side // 4, side // 8, side // 16]
    with tifffile.TiffWriter(temporary, bigtiff=True, ome=True) as writer:
        for index, size in enumerate(sizes):
            more = {"subifds": len(sizes) - 1, "metadata": {"axes": "YXS"}} if index == 0 else {"subfiletype": 1, "metadata": None}
            writer.write(
                tiles(size), shape=(size, size, 3), dtype=np.uint8, tile=(512, 512), photometric="rgb", compression=compression, **more
            )
    temporary.rename(path)
    return path


def slide_zarr(folder: Path, *, side: int = 20_000, filled: int = 1) -> Path:
    """Write an OME-Zarr with axes C, Y, X and five levels, of which every `filled`-th chunk along each axis holds something."""
    import shutil

    import zarr

    path = folder / f"slide-{side}-{filled}.ome.zarr"
    if path.exists():
        return path
    temporary = path.with_name("part.zarr")
    shutil.rmtree(temporary, ignore_errors=True)
    group = zarr.create_group(temporary)
    block = texture(1024).transpose(2, 0, 1)
    datasets = []
    for level in range(5):
        size = side >> level
        array = group.create_array(str(level), shape=(3, size, size), chunks=(3, 1024, 1024), dtype=np.uint8)
        for row in range(0, size, 1024 * filled):
            for column in range(0, size, 1024 * filled):
                part = block[:, : size - row, : size - column]
                array[:, row : row + part.shape[1], column : column + part.shape[2]] = part
        datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": [1, 2**level, 2**level]}]})
    axes = [{"name": "c", "type": "channel"}, {"name": "y", "type": "space"}, {"name": "x", "type": "space"}]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": datasets}]}
    temporary.rename(path)
    return path


CASES = (
    Case("slide-tiff", "20,000 x 20,000 RGB, tiled pyramidal TIFF (JPEG), to OME-Zarr", slide_tiff, "out.ome.zarr", 1.5, COLOUR),
    Case("slide-zarr", "20,000 x 20,000 RGB, OME-Zarr, to OME-Zarr", slide_zarr, "out.ome.zarr", 1.5, COLOUR),
    Case(
        "slide-to-tiff",
        "20,000 x 20,000 RGB, OME-Zarr, to OME-TIFF by way of the disk",
        slide_zarr,
        "out.ome.tif",
        1.5,
        COLOUR,
        {"memory_limit": 390_000_000},
    ),
    Case(
        "huge-zarr",
        "60,000 x 60,000 RGB, sparse OME-Zarr, to OME-Zarr",
        lambda folder: slide_zarr(folder, side=60_000, filled=8),
        "out.ome.zarr",
        3.0,
        COLOUR,
    ),
)
"""The cases; another one is another entry."""


class Peak:
    """Looks at the anonymous memory of this process twenty times a second; files that are mapped do not count."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def close(self) -> None:
        self._stop.set()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.bytes = max(self.bytes, anonymous())


def anonymous() -> int:
    """Return the anonymous memory of this process in bytes (Linux); its whole memory elsewhere."""
    status = Path("/proc/self/status")
    if not status.exists():
        import psutil

        return int(psutil.Process().memory_info().rss)
    return next(int(line.split()[1]) * 1024 for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("RssAnon"))


def run_case(case: Case, folder: Path) -> dict[str, Any]:
    """Run one case in this process."""
    import torch

    from napari_tileseg.engine import run as _engine  # noqa: F401  part of the program, and of the baseline
    from napari_tileseg.io import read_volume
    from napari_tileseg.io.zarr_store import ZarrLabels  # noqa: F401
    from napari_tileseg.job import SegmentOptions
    from napari_tileseg.models.predictor import from_module
    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.pipeline import segment

    path = case.make(folder)
    spec = ModelSpec.model_validate(case.spec)
    network = (case.layer or one_layer)(spec)
    predictor = from_module(network, spec, device="cpu")
    with torch.inference_mode():
        network(torch.zeros((1, len(spec.channels), *spec.window)))
    baseline = anonymous()
    peak = Peak()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=folder) as results:
        moments: list[float] = []
        options = SegmentOptions(**case.options)
        result = segment(
            read_volume(path), predictor, options=options, out=Path(results) / case.out, on_event=lambda _: moments.append(time.monotonic())
        )
        seconds = time.monotonic() - began
        counts = dict(result.counts)
    peak.close()
    return {
        "name": case.name,
        "text": case.text,
        "gigabytes": (peak.bytes - baseline) / 1e9,
        "most": case.most,
        "baseline": baseline / 1e9,
        "seconds": seconds,
        "first_tile": moments[1] - began if len(moments) > 1 else None,
        "pixels": int(sum(counts.values())),
    }


def one_layer(spec: Any) -> Any:
    """Return a convolution of one pixel whose last class is where the mean of the channels is high."""
    import torch

    kind = torch.nn.Conv2d if spec.spatial_ndim == 2 else torch.nn.Conv3d
    layer = kind(len(spec.channels), len(spec.score_names), 1)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
        layer.weight[-1] = 1 / len(spec.channels)
        layer.bias[-1] = -0.5
    return layer


def main() -> int:
    """Run the cases that were asked for and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="cases; all by default")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "tileseg-bench")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    chosen = [case for case in CASES if not arguments.names or case.name in arguments.names]
    if arguments.list:
        print("\n".join(f"{case.name:16} {case.text}" for case in CASES))
        return 0
    if arguments.child:
        print(json.dumps(run_case(chosen[0], arguments.folder)))
        return 0
    print(f"{platform.platform()}, Python {platform.python_version()}")
    over = 0
    for case in chosen:
        case.make(arguments.folder)
        command = [sys.executable, __file__, "--child", "--folder", str(arguments.folder), case.name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        over += found["gigabytes"] > case.most
        verdict = "over" if found["gigabytes"] > case.most else "ok"
        print(
            f"{found['gigabytes']:6.2f} GB of {case.most:.1f} {verdict:5} {found['seconds']:7.0f} s "
            f"(first tile after {found['first_tile'] or 0:.0f} s)  {case.text}",
            flush=True,
        )
    return 1 if over else 0


if __name__ == "__main__":
    raise SystemExit(main())
