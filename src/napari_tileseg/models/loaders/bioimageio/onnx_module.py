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
    """Runs an ONNX file where its input is: on the processor, or on a CUDA device where onnxruntime was built for one.

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
        self._path = path
        self._sessions: dict[torch.device, Any] = {}
        self._session(torch.device("cpu"))  # which says at once what is wrong with the file

    def forward(self, batch: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the outputs in their order, on the device of `batch`."""
        session = self._session(batch.device)
        answers = session.run(None, {session.get_inputs()[0].name: np.ascontiguousarray(batch.detach().cpu().numpy())})
        return tuple(torch.from_numpy(np.asarray(answer)).to(batch.device) for answer in answers)

    def _session(self, device: torch.device) -> Any:
        if device in self._sessions:
            return self._sessions[device]
        cuda = ("CUDAExecutionProvider", {"device_id": device.index or 0, "use_tf32": 0})
        fast = [cuda] if device.type == "cuda" and cuda[0] in onnxruntime.get_available_providers() else []
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 4
        options.use_deterministic_compute = True
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads would take the processor
        try:
            found = onnxruntime.InferenceSession(str(self._path), options, providers=[*fast, "CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises kinds of its own
            reason = printable(" ".join(str(error).split()))
            raise WeightsError(f"{printable(self._path.name)} cannot be read as ONNX: {reason}. Get the model again.") from None
        self._sessions[device] = found
        return found
