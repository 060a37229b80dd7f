"""``OnnxModule``: a network in ONNX that is called like a torch module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import torch
from torch import nn

from napari_tileseg.errors import WeightsError
from napari_tileseg.models.archive import printable

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["OnnxModule"]


class OnnxModule(nn.Module):
    """Runs an ONNX file on the CPU, or on a CUDA device where onnxruntime was built for one.

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    WeightsError
        If onnxruntime cannot read it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        there = onnxruntime.get_available_providers()
        providers = [name for name in ("CUDAExecutionProvider", "CPUExecutionProvider") if name in there]
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads would take the processor
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), options, providers=providers)
        except Exception as error:  # onnxruntime raises kinds of its own
            reason = printable(" ".join(str(error).split()))
            raise WeightsError(f"{printable(path.name)} cannot be read as ONNX: {reason}. Get the model again.") from None
        self._input = self._session.get_inputs()[0].name

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs in their order, on the device of `batch`."""
        answers = self._session.run(None, {self._input: np.ascontiguousarray(batch.detach().cpu().numpy())})
        return tuple(torch.from_numpy(np.asarray(answer)).to(batch.device) for answer in answers)
