"""ONNX models: graphs without code, computed by ONNX Runtime on the processor or whatever it can use here."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError, OptionsError, PredictorError
from napari_tileseg.models.archive import printable
from napari_tileseg.models.loaders.describe import describe
from napari_tileseg.models.loaders.onnx_file import OnnxFile, Port, read_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["PROVIDERS", "detect", "files", "load", "read_spec"]

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "directml": "DmlExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
"""What ``onnx:FILE?provider=...`` may say, and what ONNX Runtime calls it."""

_TYPES = {1: "float32", 10: "float16", 11: "float64"}
_FEW = 16
"""A last axis of at most so many entries, with longer ones before it, holds channels."""


def detect(path: Path) -> bool:
    """Tell whether a file's name says ONNX; its content is checked when it is read."""
    return path.name.lower().endswith(".onnx") and path.is_file()


def files(path: Path) -> list[Path]:
    """Return the file and those beside it that hold its weights."""
    return [path, *(path.parent / name for name in sorted(read_onnx(path).external))]


def read_spec(path: Path, *, output: str = "", provider: str = "") -> ModelSpec:
    """Describe the network as its file does: axes, channels, sizes, number of scores."""
    _provider(provider)
    layout = _Layout(path, read_onnx(path), output)
    return describe(path, layout.known(), scores=layout.scores)


def load(path: Path, spec: ModelSpec, device: str, *, output: str = "", provider: str = "") -> Any:
    """Load the network.

    Parameters
    ----------
    output : str
        Name of the output that holds the scores; the first that can be, by default.
    provider : str
        A key of `PROVIDERS`; by default that of the device.

    Raises
    ------
    ModelError, WeightsError
        If it is damaged, or ONNX Runtime cannot compute it.
    OptionsError
        If ONNX Runtime was built without the provider.
    """
    import onnxruntime

    from napari_tileseg.models.loaders.call import CallPredictor, check_scores

    onnxruntime.disable_telemetry_events()  # nobody is told which models are used here
    layout = _Layout(path, read_onnx(path), output)
    wanted = _provider(provider)
    available = onnxruntime.get_available_providers()
    if wanted and wanted not in available:
        there = ", ".join(name for name, known in PROVIDERS.items() if known in available)
        raise OptionsError(f"ONNX Runtime here cannot use {provider}. Use one of {there}, or install another build of onnxruntime.")
    session = _Session(path, layout, _providers(wanted, available, device))
    size = sum(file.stat().st_size for file in files(path))
    predictor = CallPredictor(session, spec, device, size=size, batch=layout.batch)
    check_scores(predictor, path)
    return predictor


def _provider(name: str) -> str:
    if name and name.lower() not in PROVIDERS:
        raise OptionsError(f'There is no provider "{printable(name)}". Use one of {", ".join(PROVIDERS)}.')
    return PROVIDERS.get(name.lower(), "")


def _providers(wanted: str, available: list[str], device: str) -> list[Any]:
    """Return what ONNX Runtime may compute with, the best first; the processor takes what the others cannot."""
    cuda = ("CUDAExecutionProvider", {"device_id": int(device.partition(":")[2] or 0), "use_tf32": 0})
    by_device: dict[str, Any] = {"cuda": cuda, "mps": "CoreMLExecutionProvider"}
    first = by_device.get(device.partition(":")[0]) if not wanted else cuda if wanted == cuda[0] else wanted
    name = first[0] if isinstance(first, tuple) else first
    return [*([first] if name in available and name != PROVIDERS["cpu"] else []), PROVIDERS["cpu"]]


class _Layout:
    """Which input is the image, which output the scores, and in which order their axes are."""

    def __init__(self, path: Path, file: OnnxFile, output: str) -> None:
        self.path = path
        if len(file.inputs) != 1:
            names = ", ".join(printable(port.name) for port in file.inputs) or "none"
            raise ModelError(f"{printable(path.name)} takes {len(file.inputs)} inputs ({names}); models with one image are accepted.")
        self.input = file.inputs[0]
        if len(self.input.shape) not in (4, 5) or self.input.kind not in _TYPES:
            raise ModelError(
                f"{printable(path.name)} takes an input of {len(self.input.shape)} axes and type {self.input.kind}; "
                "batch, channel and two or three axes of floating-point numbers are accepted."
            )
        self.last = _channels_last(self.input.shape)
        self.output = self._scores_of(file, output)
        self.results_last = self.last and _channels_last(self.output.shape) if self.output.shape else self.last
        self.activation = file.last.get(self.output.name, "")

    def _scores_of(self, file: OnnxFile, output: str) -> Port:
        if output:
            found = next((port for port in file.outputs if port.name == output), None)
            if found is None:
                names = ", ".join(printable(port.name) for port in file.outputs)
                raise ModelError(f'{printable(self.path.name)} has no output "{printable(output)}". Use one of {names}.')
            return found
        fitting = [port for port in file.outputs if port.kind in _TYPES and len(port.shape) in (0, len(self.input.shape))]
        if not fitting:
            raise ModelError(f"{printable(self.path.name)} has no output with a score for each place, so it segments nothing.")
        same = [port for port in fitting if _spatial(port.shape, self.last) == _spatial(self.input.shape, self.last)]
        return (same or fitting)[0]

    @property
    def scores(self) -> int | None:
        shape = self.output.shape
        side = (shape[-1] if self.results_last else shape[1]) if shape else None
        return side if isinstance(side, int) else None

    @property
    def batch(self) -> int | None:
        side = self.input.shape[0]
        return side if isinstance(side, int) else None

    def known(self) -> dict[str, Any]:
        shape = self.input.shape
        known: dict[str, Any] = {"axes": "CYX" if len(shape) == 4 else "CZYX"}
        channels = shape[-1] if self.last else shape[1]
        if isinstance(channels, int):
            known["channels"] = channels
        sides = _spatial(shape, self.last)
        if all(isinstance(side, int) for side in sides):
            known |= {"window": sides, "multiple_of": 1}
            results = _spatial(self.output.shape, self.results_last)
            if len(results) == len(sides) and all(isinstance(side, int) for side in results) and results != sides:
                lost = [(side - result) // 2 for side, result in zip(sides, results, strict=True)]
                if min(lost) >= 0 and all(2 * less == side - result for less, side, result in zip(lost, sides, results, strict=True)):
                    known["output_offset"] = tuple(lost)
        if self.activation == "Sigmoid":
            known["output"] = "sigmoid"
        return known


def _spatial(shape: tuple[Any, ...], last: bool) -> tuple[Any, ...]:
    return tuple(shape[1:-1] if last else shape[2:])


def _channels_last(shape: tuple[Any, ...]) -> bool:
    """Tell whether channels stand last, as in models of Keras: a short known axis there, and no short one in the usual place."""
    if len(shape) not in (4, 5):
        return False
    first, last = shape[1], shape[-1]
    return isinstance(last, int) and last <= _FEW and not (isinstance(first, int) and first <= _FEW)


class _Session:
    """A session of ONNX Runtime that computes with as many threads as torch does, and takes and gives torch's tensors."""

    def __init__(self, path: Path, layout: _Layout, providers: list[Any]) -> None:
        self._path = path
        self._layout = layout
        self._providers = providers
        self._lock = threading.Lock()
        self._session: Any = None
        self._threads = 0
        self._ready()

    def __call__(self, batch: Any) -> Any:
        import numpy as np
        import torch

        layout = self._layout
        fixed = _spatial(layout.input.shape, layout.last)
        given = tuple(batch.shape[2:])
        if any(isinstance(side, int) and side != there for side, there in zip(fixed, given, strict=True)):
            sizes = " x ".join(str(side) if isinstance(side, int) else "any" for side in fixed)
            raise PredictorError(f"{self._path.name} takes tiles of {sizes} only. Leave the window as the model has it.")
        array = batch.movedim(1, -1) if layout.last else batch
        array = np.ascontiguousarray(array.cpu().numpy(), dtype=_TYPES[layout.input.kind])
        (found,) = self._ready().run([layout.output.name], {layout.input.name: array})
        scores = torch.from_numpy(found)
        if layout.results_last:
            scores = scores.movedim(-1, 1)
        scores = scores.to(batch.device, torch.float32)
        if layout.activation == "Sigmoid":  # the engine takes what stands before it, so that it can average
            scores = torch.logit(scores, eps=1e-7)
        return scores.contiguous()

    def _ready(self) -> Any:
        import onnxruntime
        import torch

        with self._lock:
            threads = torch.get_num_threads()
            if self._session is not None and threads == self._threads:
                return self._session
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
            options.log_severity_level = 4
            options.use_deterministic_compute = True
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads would take the processor
            try:
                self._session = onnxruntime.InferenceSession(str(self._path), options, providers=self._providers)
            except Exception as error:
                reason = printable(str(error).strip().split("\n")[0])
                raise ModelError(f"ONNX Runtime cannot compute {self._path.name}: {reason}. Export the model again.") from None
            self._threads = threads
            return self._session
