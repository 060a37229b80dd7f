"""``pack_convolutions``: convolutions whose weights lie as oneDNN wants them, once, where torch turns them around for every tile."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from napari_tileseg.engine.exchange import exchange

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["pack_convolutions"]

_TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)
_KINDS = (nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


@cache
def _types() -> tuple[torch.dtype, ...]:
    """Return the types that oneDNN packs weights for on this processor: none on those of ARM, where torch has another library beneath."""
    if not torch.backends.mkldnn.is_available() or torch.ops.mkldnn._is_mkldnn_acl_supported():
        return ()
    return (torch.float32, torch.bfloat16) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else (torch.float32,)


class _Packed(nn.Module):
    """A convolution by what torch's compiler calls for one with frozen weights.

    Where that cannot be, and where the compiler itself is at work, the original is called.
    """

    def __init__(self, original: nn.Module) -> None:
        super().__init__()
        self.original = original
        self._own: tuple[Any] = (original,)  # itself, also where another part takes its place above
        self._packs: dict[torch.dtype, tuple[torch.Size, Tensor, Tensor | None]] = {}

    def forward(self, image: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        if torch.compiler.is_compiling():
            return self._unpacked(image, output_size)
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else image.dtype
        ndim = self._own[0].weight.ndim
        if output_size is not None or kind not in _types() or image.ndim != ndim or image.device.type != "cpu" or torch.is_grad_enabled():
            return self._unpacked(image, output_size)
        image = image.to(kind)
        return self._call(image, *self._pack(image))

    def _unpacked(self, image: Tensor, output_size: Sequence[int] | None) -> Tensor:
        result: Tensor = self.original(image) if output_size is None else self._own[0](image, output_size)
        return result

    def _pack(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return weights and bias in the type of an image, packed for its size; kept for the last size of each type."""
        own, size = self._own[0], image.shape[1:]
        if image.dtype not in self._packs or self._packs[image.dtype][0] != size:
            operators = torch.ops.mkldnn
            pack = operators._reorder_convolution_transpose_weight if self._transposed else operators._reorder_convolution_weight
            weight = pack(own.weight.detach().to(image.dtype), *self._places, list(image.shape))
            self._packs[image.dtype] = size, weight, None if own.bias is None else own.bias.detach().to(image.dtype)
        return self._packs[image.dtype][1:]

    def _call(self, image: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        operators = torch.ops.mkldnn
        convolve = operators._convolution_transpose_pointwise if self._transposed else operators._convolution_pointwise
        result: Tensor = convolve(image, weight, bias, *self._places, "none", [], "")
        return result

    @property
    def _transposed(self) -> bool:
        return isinstance(self._own[0], _TRANSPOSED)

    @property
    def _places(self) -> tuple[Any, ...]:
        """Which pixels belong to which weights, as these operators are told."""
        own = self._own[0]
        more = (own.output_padding,) if self._transposed else ()
        return own.padding, *more, own.stride, own.dilation, own.groups


def pack_convolutions(module: nn.Module) -> nn.Module:
    """Replace convolutions of planes and volumes, transposed ones too, in place; scores change by rounding.

    Weights are packed by the first tile of each type and size, and only on a processor, where nothing learns. Left alone are
    convolutions with other padding than zeros, with hooks, or of a class that is derived from torch's.

    Parameters
    ----------
    module : torch module
        In evaluation mode; its weights must not change any more. Any part of it that takes float tensors of shape (N, C, *spatial) and
        gives them back may be replaced.

    Returns
    -------
    torch module
        The same one.
    """
    return exchange(module, _changed) if _types() else module


def _changed(part: nn.Module) -> nn.Module | None:
    if type(part) not in _KINDS or part.padding_mode != "zeros" or isinstance(part.padding, str):
        return None
    return _Packed(part)
