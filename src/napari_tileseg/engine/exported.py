"""Networks computed by ONNX Runtime instead of torch, where it is installed: no compiler is needed for it."""

from __future__ import annotations

import io
import logging
import warnings
import weakref
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

__all__ = ["Exported", "can_export"]

_OPSET = 17
_MOST_BYTES = 1 << 30
"""Larger networks are not exported: the format ends at 2 GB, and there would be two of them in memory."""


def can_export(device: str) -> bool:
    """Say whether there is what exporting a network needs; only for processors."""
    return device == "cpu" and all(find_spec(name) is not None for name in ("onnx", "onnxruntime"))


class Exported:
    """A module as ONNX Runtime computes it; each new size of tile is exported by its first call, which takes seconds.

    Nothing of the module is kept: a dictionary with weak keys can hold this.

    Parameters
    ----------
    module : torch module
        In evaluation mode, on the processor; must not change any more.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = weakref.ref(module)
        self._sessions: dict[tuple[tuple[int, ...], int], Any] = {}

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Return what the module returns for a batch, shape (N, C, *window), tile by tile.

        Raises
        ------
        Exception
            If the module cannot be exported, or computed; nothing is known of what the libraries raise.
        """
        found = []
        for tile in batch.split(1):
            session = self._session(tile)
            (scores,) = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(tile.numpy())})
            found.append(torch.from_numpy(scores))
        return torch.cat(found) if len(found) > 1 else found[0]

    def _session(self, tile: torch.Tensor) -> Any:
        key = (tuple(tile.shape), torch.get_num_threads())
        if key not in self._sessions:
            self._sessions.clear()  # another size or number of threads: another run
            self._sessions[key] = self._opened(tile)
        return self._sessions[key]

    def _opened(self, tile: torch.Tensor) -> Any:
        import onnxruntime

        module = self._module()
        if module is None or sum(tensor.numel() * tensor.element_size() for tensor in module.parameters()) > _MOST_BYTES:
            raise ValueError("the network is too large for the format")
        onnxruntime.disable_telemetry_events()  # nobody is told which models are used here
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 4
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads would take the processor
        content = io.BytesIO()
        with _quiet(), torch.inference_mode(False), torch.no_grad():
            # The exporter that needs no further package; it follows one tile through the module, and takes streams too.
            torch.onnx.export(module, (torch.zeros_like(tile),), content, dynamo=False, opset_version=_OPSET)  # type: ignore[arg-type]
        return onnxruntime.InferenceSession(content.getvalue(), options, providers=["CPUExecutionProvider"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what those who make the exporter warn each other of."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
