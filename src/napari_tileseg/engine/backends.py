"""Faster ways to compute the same network; whether they may be used is decided in ``precision``."""

from __future__ import annotations

import copy
from collections import Counter
from contextlib import nullcontext
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from napari_tileseg.engine.compiled import Compiled, can_compile
from napari_tileseg.engine.convolutions import quick_convolutions
from napari_tileseg.engine.exported import Exported, can_export
from napari_tileseg.engine.graphs import Graphs, can_record
from napari_tileseg.engine.norms import FORMATS, quick_norms
from napari_tileseg.engine.packing import pack_convolutions
from napari_tileseg.engine.relus import quick_relus

if TYPE_CHECKING:
    from napari_tileseg.engine.protocols import Predictor

__all__ = [
    "AUTOCAST",
    "COMPILED",
    "HALF",
    "ONNX",
    "RECORDED",
    "backends",
    "call",
    "computes_bfloat16",
    "fold_batch_norms",
    "is_short",
    "release",
    "starts_slowly",
]

AUTOCAST = "bfloat16"
"""The one way that needs nothing but the predictor's own call."""

HALF = "float16"
"""The same on GPUs in another type: nearer to exact arithmetic, but what is beyond 65,504 becomes infinite."""

COMPILED = "compiled"
"""End of the names of ways that were compiled."""

RECORDED = "recorded"
"""End of the names of ways that a GPU is told as one piece."""

ONNX = "ONNX Runtime"
"""The way of another library, in float32."""

_LAST = "channels last"
_MOST_SCORES = 32
_AMPERE = 8
"""First version of NVIDIA's GPUs that computes in bfloat16."""
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)

_prepared: WeakKeyDictionary[nn.Module, nn.Module] = WeakKeyDictionary()
_exported: WeakKeyDictionary[nn.Module, Exported] = WeakKeyDictionary()
_compiled: WeakKeyDictionary[nn.Module, Compiled] = WeakKeyDictionary()
_recorded: WeakKeyDictionary[nn.Module, dict[str, Graphs]] = WeakKeyDictionary()


def backends(predictor: Predictor) -> list[str]:
    """Return the ways that are worth trying for a predictor on its device; the first needs nothing but the predictor's own call.

    "bfloat16" computes products and convolutions in that type, "float16" in that one: on a GPU, where many know no other.
    "channels last" works on a copy of the module whose weights and pixels hold all channels of a place side by side, whose batch
    normalisations are part of the convolutions before them, and whose other normalisations know that order; it needs a predictor with a
    `module`, and not so many scores that bringing their channels back to the front costs more than was gained. "recorded" is that copy
    as a graph, on GPUs of NVIDIA; "compiled" is it compiled for this computer where there is a compiler. "ONNX Runtime" computes what
    the module was exported to, where that package is there.
    """
    if len(predictor.spec.score_names) > _MOST_SCORES:
        return _types(predictor.device)
    members = getattr(predictor, "members", (predictor,))
    if predictor.device == "mps" or not all(isinstance(getattr(_unturned(member), "module", None), nn.Module) for member in members):
        return _types(predictor.device)
    device = predictor.device
    prepared = [_LAST, *([RECORDED] if can_record(device) else []), *([COMPILED] if can_compile(device) else [])]
    short = [", ".join(way) for kind in _types(predictor.device) for way in [(kind,), *((kind, one) for one in prepared)]]
    return [*short, *prepared, *([ONNX] if can_export(predictor.device) else [])]


def is_short(backend: str) -> bool:
    """Tell whether a way computes in a type shorter than float32."""
    return backend.startswith((AUTOCAST, HALF))


def starts_slowly(backend: str) -> bool:
    """Tell whether a way takes seconds to prepare."""
    return backend.endswith((COMPILED, ONNX))


def computes_bfloat16(device: str) -> bool:
    """Say whether a GPU of NVIDIA computes in bfloat16 by itself; torch's own answer counts those for which cuDNN has no convolution."""
    return torch.cuda.get_device_capability(torch.device(device))[0] >= _AMPERE


def _types(device: str) -> list[str]:
    """Return the short types that a device is fast with, as far as that is known before it is measured."""
    if device.startswith("cuda"):
        return [AUTOCAST, HALF] if computes_bfloat16(device) else [HALF]
    return [HALF] if device == "mps" else [AUTOCAST]


def call(predictor: Predictor, batch: torch.Tensor, backend: str) -> Any:
    """Compute one batch in a faster way.

    Parameters
    ----------
    predictor : Predictor
        The model.
    batch : torch.Tensor of float32, shape (N, C, *window)
        On the predictor's device.
    backend : str
        One of `backends`.

    Returns
    -------
    torch.Tensor, shape (N, K, *output)
        Of the type that the network ends with; the last axis is contiguous.
    """
    if (through := getattr(predictor, "through", None)) is not None:  # a scan along another axis
        return through(lambda turned: call(_unturned(predictor), turned, backend), batch)
    if backend == ONNX:
        module: nn.Module = predictor.module  # type: ignore[attr-defined]  # `backends` has looked for it
        exported = _exported.get(module) or _exported.setdefault(module, Exported(module))
        return exported(batch)
    kind = torch.float16 if backend.startswith(HALF) else torch.bfloat16
    # A recording would go on reading short copies of the weights that autocast lets go at the end of this block.
    kept = not backend.endswith(RECORDED)
    with torch.autocast(batch.device.type, dtype=kind, cache_enabled=kept) if is_short(backend) else nullcontext():
        if not backend.endswith((_LAST, RECORDED, COMPILED)):
            return predictor(batch)
        original: nn.Module = predictor.module  # type: ignore[attr-defined]  # `backends` has looked for it
        forward: Any = _channels_last(original, batch.ndim)
        if backend.endswith(COMPILED):
            # Not by the copy, which the compiled form holds on to: neither would ever be let go.
            forward = _compiled.get(original) or _compiled.setdefault(original, Compiled(forward))
        elif backend.endswith(RECORDED):
            graphs = _recorded.setdefault(original, {})  # one for each type: it is part of what was recorded
            forward = graphs.get(backend) or graphs.setdefault(backend, Graphs(forward))
        scores = forward(_side_by_side(batch))
    return scores.contiguous() if isinstance(scores, torch.Tensor) else scores


def release(predictor: Predictor) -> None:
    """Let recordings go, with the memory of the device that they hold; the next call records anew."""
    for member in getattr(predictor, "members", (predictor,)):
        module = getattr(_unturned(member), "module", None)
        if isinstance(module, nn.Module):
            _recorded.pop(module, None)


def _unturned(predictor: Predictor) -> Predictor:
    inner: Predictor = getattr(predictor, "inner", predictor)
    return inner


def _channels_last(module: nn.Module, ndim: int) -> nn.Module:
    if module not in _prepared:
        twin = pack_convolutions(fold_batch_norms(copy.deepcopy(module).eval()))
        twin = quick_relus(quick_norms(quick_convolutions(twin)))
        for tensor in (*twin.parameters(), *twin.buffers()):
            if tensor.ndim == ndim:
                tensor.data = _side_by_side(tensor.data)
        _prepared[module] = twin
    return _prepared[module]


def _side_by_side(tensor: torch.Tensor) -> torch.Tensor:
    """Return a tensor, shape (N, C, *spatial), with all channels of a place side by side."""
    ordered = tensor.contiguous(memory_format=FORMATS[tensor.ndim])
    if ordered.shape[1] > 1:
        return ordered
    # Pixels of one channel lie in either order; a convolution goes by the strides, and slower in torch's usual order.
    strides = ordered.movedim(1, -1).contiguous().stride()
    return ordered.as_strided(ordered.shape, (strides[0], 1, *strides[1:-1]))


def fold_batch_norms(module: nn.Module) -> nn.Module:
    """Make batch normalisations part of the convolutions just before them, in place.

    Only where the order of calls is certain: neighbours in a plain ``Sequential`` that occur nowhere else in the module.
    Scores change by rounding.
    """
    uses = Counter(id(child) for _, child in module.named_modules(remove_duplicate=False))
    for sequence in [part for part in module.modules() if isinstance(part, nn.Sequential)]:
        if type(sequence).forward is not nn.Sequential.forward:
            continue
        names = list(sequence._modules)
        for name, following in pairwise(names):
            first, second = sequence._modules[name], sequence._modules[following]
            if isinstance(first, _CONVOLUTIONS) and isinstance(second, _NORMS) and uses[id(first)] == uses[id(second)] == 1:
                if second.running_mean is None or first._forward_hooks or second._forward_hooks:
                    continue
                setattr(sequence, name, fuse_conv_bn_eval(first, second))
                setattr(sequence, following, nn.Identity())
    return module
