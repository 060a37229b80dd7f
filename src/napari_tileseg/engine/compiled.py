"""Networks compiled for this computer: by torch's own compiler, where a C++ compiler is there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import warnings
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

from napari_tileseg.folders import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

__all__ = ["Compiled", "can_compile"]

_VOLTA = 7
"""First version of NVIDIA's GPUs that the compiler writes for."""

_STUB = "/usr/bin/clang++"
"""Stands on every Mac; without Apple's developer tools all it does is to ask the user to install them."""

_MOST_FORMS = 64
"""Sizes and types of one function that are compiled; torch's own limit, 8, is reached where blocks share their code (MONAI's BasicUNet)."""

_OPTIONS: dict[str, Any] = {
    "freezing": True,  # weights are laid out for the processor once; as an option of `torch.compile` it would not reach the tracer
    "compile_threads": 1,  # no pool of processes that outlives the run
}


def can_compile(device: str) -> bool:
    """Say whether there is what compiling a network for a device needs: a C++ compiler, for a GPU of NVIDIA's Triton as well."""
    if sys.platform == "win32":  # there a compiler works in its own console only
        return False
    if device.startswith("cuda"):
        if find_spec("triton") is None or torch.cuda.get_device_capability(torch.device(device))[0] < _VOLTA:
            return False
    elif device != "cpu":
        return False
    compiler = shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"))
    return compiler is not None and not (sys.platform == "darwin" and compiler == _STUB and not _has_developer_tools())


def _has_developer_tools() -> bool:
    return subprocess.run(["xcode-select", "-p"], capture_output=True, check=False).returncode == 0


class Compiled:
    """A module in compiled form; each new size of tile is compiled by its first call, which takes seconds.

    Parameters
    ----------
    module : torch module
        In evaluation mode; must not change any more.
    """

    def __init__(self, module: nn.Module) -> None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))
        with _compiling():
            self._forward: Any = torch.compile(module, dynamic=False, options=_guards())
        self._sizes: set[int] = set()

    def __call__(self, batch: torch.Tensor) -> Any:
        """Return what the module returns for a batch, shape (N, C, *window)."""
        with _compiling():
            if batch.device.type != "cpu":
                return self._together(batch)
            # One by one: every other number of tiles would be compiled anew.
            scores = [self._forward(tile) for tile in batch.split(1)]
        return torch.cat(scores) if len(scores) > 1 else scores[0]

    def _together(self, batch: torch.Tensor) -> Any:
        """Compute a batch at once, which fills a GPU; what is left at the end of a row is made as large as a whole batch."""
        count = len(batch)
        # Not one of half the size or less: it is small because memory was short.
        size = min((size for size in self._sizes if count <= size < 2 * count), default=count)
        self._sizes.add(size)
        if size > count:
            batch = torch.cat([batch, batch.new_zeros(size - count, *batch.shape[1:])])
        return self._forward(batch)[:count]


def _guards() -> dict[str, Any]:
    """Leave out the check before each call whether the module has changed, which takes half a millisecond."""
    keep = getattr(torch.compiler, "skip_guard_on_all_nn_modules_unsafe", None)  # newer than the oldest torch that will do
    return {"guard_filter_fn": keep} if keep else {}


@contextmanager
def _compiling() -> Iterator[None]:
    """Set the compiler and its tracer up, for this call only, and keep back what their makers warn each other of."""
    from torch._dynamo import config as tracer  # seconds to import
    from torch._inductor import config as compiler

    with warnings.catch_warnings(), tracer.patch(recompile_limit=_MOST_FORMS), compiler.patch(_OPTIONS):
        warnings.simplefilter("ignore")
        yield
