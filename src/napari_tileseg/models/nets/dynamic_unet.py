"""The U-Nets that nnU-Net plans, with its names of parameters, so that its checkpoints load into them.

Source: F. Isensee et al., nnU-Net: a self-configuring method for deep learning-based biomedical image segmentation, Nature Methods 18,
2021; the residual blocks are those of T. He et al., Bag of tricks for image classification with convolutional neural networks, CVPR
2019. Names and order of modules are those of the package dynamic-network-architectures; several modules stand under two names in
its checkpoints, hence here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["PlainConvUNet", "ResidualEncoderUNet", "ResidualUNet"]

_LAYERS = ("Dropout", "Dropout2d", "Dropout3d", "ELU", "GELU", "Identity", "LeakyReLU", "Mish", "PReLU", "ReLU", "SiLU")
"""Activations and dropouts that plans may name."""

_DEFAULT: dict[str, Any] = {
    "n_stages": 4,
    "features_per_stage": (32, 64, 128, 256),
    "conv_op": "torch.nn.modules.conv.Conv2d",
    "kernel_sizes": 3,
    "strides": (1, 2, 2, 2),
    "n_conv_per_stage": 2,
    "n_blocks_per_stage": (1, 3, 4, 6),
    "n_conv_per_stage_decoder": 2,
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm2d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
"""What is built where no plan is given: a small network for planes."""

_NORMS = ("BatchNorm2d", "BatchNorm3d", "InstanceNorm2d", "InstanceNorm3d")


@dataclass(frozen=True)
class _Parts:
    """What all blocks of a network are made of."""

    ndim: int
    bias: bool
    norm: Any
    norm_arguments: Mapping[str, Any]
    dropout: Any
    dropout_arguments: Mapping[str, Any]
    nonlin: Any
    nonlin_arguments: Mapping[str, Any]
    nonlin_first: bool = False

    @property
    def conv(self) -> Any:
        return (nn.Conv2d, nn.Conv3d)[self.ndim - 2]

    @property
    def transposed(self) -> Any:
        return (nn.ConvTranspose2d, nn.ConvTranspose3d)[self.ndim - 2]

    @property
    def pool(self) -> Any:
        return (nn.AvgPool2d, nn.AvgPool3d)[self.ndim - 2]

    def activation(self) -> nn.Module:
        return cast("nn.Module", self.nonlin(**self.nonlin_arguments)) if self.nonlin else nn.Identity()


@dataclass(frozen=True)
class _Design:
    """Sizes of each stage, the finest first."""

    features: Sequence[int]
    kernels: Sequence[Sequence[int]]
    strides: Sequence[Sequence[int]]
    counts: Sequence[int]
    decoder_counts: Sequence[int]
    bottlenecks: Sequence[int | None] = field(default=())


class _Conv(nn.Module):
    """Convolution, dropout, normalisation and activation, as far as each is wanted."""

    def __init__(
        self,
        parts: _Parts,
        channels: tuple[int, int],
        kernel: Sequence[int],
        stride: Sequence[int],
        *,
        bias: bool | None = None,
        dropout: bool = True,
        nonlin: bool = True,
    ) -> None:
        super().__init__()
        padding = [(size - 1) // 2 for size in kernel]
        self.conv = parts.conv(*channels, list(kernel), list(stride), padding, bias=parts.bias if bias is None else bias)
        layers = [self.conv]
        if dropout and parts.dropout is not None:
            self.dropout = parts.dropout(**parts.dropout_arguments)
            layers.append(self.dropout)
        if parts.norm is not None:
            self.norm = parts.norm(channels[1], **parts.norm_arguments)
            layers.append(self.norm)
        if nonlin and parts.nonlin is not None:
            self.nonlin = parts.activation()
            layers.append(self.nonlin)
            if parts.nonlin_first and parts.norm is not None:
                layers[-2:] = layers[:-3:-1]
        self.all_modules = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.all_modules(x))


class _Convs(nn.Module):
    """Several of them, the first with a stride."""

    def __init__(self, parts: _Parts, count: int, channels: tuple[int, int], kernel: Sequence[int], stride: Sequence[int]) -> None:
        super().__init__()
        before, after = channels
        ones = [1] * parts.ndim
        steps = [_Conv(parts, (after if index else before, after), kernel, ones if index else stride) for index in range(count)]
        self.convs = nn.Sequential(*steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.convs(x))


class _Residual(nn.Module):
    """Two convolutions, or three around a bottleneck, beside a shortcut that pools and projects where it must."""

    def __init__(
        self, parts: _Parts, channels: tuple[int, int], kernel: Sequence[int], stride: Sequence[int], bottleneck: int | None = None
    ) -> None:
        super().__init__()
        before, after = channels
        ones = [1] * parts.ndim
        if bottleneck is None:
            self.conv1 = _Conv(parts, (before, after), kernel, stride)
            self.conv2 = _Conv(parts, (after, after), kernel, ones, dropout=False, nonlin=False)
            self.nonlin2 = parts.activation()
        else:
            self.conv1 = _Conv(parts, (before, bottleneck), ones, ones, dropout=False)
            self.conv2 = _Conv(parts, (bottleneck, bottleneck), kernel, stride)
            self.conv3 = _Conv(parts, (bottleneck, after), ones, ones, dropout=False, nonlin=False)
            self.nonlin3 = parts.activation()
        self._deep = bottleneck is not None
        shortcut: list[nn.Module] = []
        if any(step != 1 for step in stride):
            shortcut.append(parts.pool(list(stride), list(stride)))
        if before != after:
            shortcut.append(_Conv(parts, (before, after), ones, ones, bias=False, dropout=False, nonlin=False))
        if shortcut:
            self.skip = nn.Sequential(*shortcut)
        self._plain = not shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x if self._plain else self.skip(x)
        out = self.conv2(self.conv1(x))
        if self._deep:
            out = self.conv3(out)
        out += shortcut
        return cast("torch.Tensor", self.nonlin3(out) if self._deep else self.nonlin2(out))


class _Residuals(nn.Module):
    """Several of them, the first with a stride."""

    def __init__(
        self,
        parts: _Parts,
        count: int,
        channels: tuple[int, int],
        kernel: Sequence[int],
        stride: Sequence[int],
        bottleneck: int | None = None,
    ) -> None:
        super().__init__()
        before, after = channels
        ones = [1] * parts.ndim
        blocks = [
            _Residual(parts, (after if index else before, after), kernel, ones if index else stride, bottleneck) for index in range(count)
        ]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return cast("torch.Tensor", self.blocks(x))


class _Encoder(nn.Module):
    """Stages that halve the image; the results of all of them are returned, the finest first."""

    def __init__(self, stages: Sequence[nn.Module], stem: nn.Module | None = None) -> None:
        super().__init__()
        if stem is not None:
            self.stem = stem
        self.stages = nn.Sequential(*stages)
        self._stemmed = stem is not None

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        if self._stemmed:
            x = self.stem(x)
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


class _Decoder(nn.Module):
    """Stages that bring the image back; each could give scores, for training, and the last one does."""

    def __init__(self, encoder: _Encoder, parts: _Parts, design: _Design, classes: int, *, residual: bool) -> None:
        super().__init__()
        self.encoder = encoder
        features = list(design.features)[::-1]
        strides, kernels = list(design.strides)[::-1], list(design.kernels)[::-1]
        self.transpconvs = nn.ModuleList(
            parts.transposed(below, above, list(stride), list(stride), bias=parts.bias)
            for (below, above), stride in zip(pairwise(features), strides, strict=False)
        )
        stage = _Residuals if residual else _Convs
        ones = [1] * parts.ndim
        self.stages = nn.ModuleList(
            stage(parts, count, (2 * width, width), kernel, ones)
            for count, width, kernel in zip(design.decoder_counts, features[1:], kernels[1:], strict=True)
        )
        self.seg_layers = nn.ModuleList(parts.conv(width, classes, 1, 1, 0, bias=True) for width in features[1:])

    def forward(self, skips: list[torch.Tensor]) -> torch.Tensor:
        x = skips[-1]
        for up, stage, skip in zip(self.transpconvs, self.stages, skips[-2::-1], strict=True):
            x = stage(torch.cat((up(x), skip), 1))
        return cast("torch.Tensor", self.seg_layers[-1](x))


class _UNet(nn.Module):
    encoder: _Encoder
    decoder: _Decoder

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return raw scores (B, K, *spatial) of images (B, C, *spatial)."""
        return cast("torch.Tensor", self.decoder(self.encoder(x)))


class PlainConvUNet(_UNet):
    """The U-Net of most nnU-Net plans.

    Parameters
    ----------
    input_channels, num_classes : int
        Channels in and out.
    **plan
        What nnU-Net's plans hold as ``arch_kwargs``; a small network for planes by default.
    """

    def __init__(self, input_channels: int = 1, num_classes: int = 2, **plan: Any) -> None:
        super().__init__()
        plan = plan or _DEFAULT
        parts, design = _read(plan, "n_conv_per_stage")
        widths = [input_channels, *design.features]
        self.encoder = _Encoder(
            [
                nn.Sequential(_Convs(parts, count, channels, kernel, stride))
                for count, channels, kernel, stride in zip(design.counts, pairwise(widths), design.kernels, design.strides, strict=True)
            ]
        )
        self.decoder = _Decoder(self.encoder, parts, design, num_classes, residual=False)


class ResidualEncoderUNet(_UNet):
    """The U-Net with a residual encoder of nnU-Net's "ResEnc" plans; parameters as `PlainConvUNet`."""

    _residual_decoder = False

    def __init__(self, input_channels: int = 1, num_classes: int = 2, **plan: Any) -> None:
        super().__init__()
        plan = plan or _DEFAULT
        parts, design = _read(plan, "n_blocks_per_stage")
        stem = plan.get("stem_channels") or design.features[0]
        widths = [stem, *design.features]
        self.encoder = _Encoder(
            [
                _Residuals(parts, count, channels, kernel, stride, bottleneck)
                for count, channels, kernel, stride, bottleneck in zip(
                    design.counts, pairwise(widths), design.kernels, design.strides, design.bottlenecks, strict=True
                )
            ],
            _Convs(parts, 1, (input_channels, stem), design.kernels[0], [1] * parts.ndim),
        )
        self.decoder = _Decoder(self.encoder, parts, design, num_classes, residual=self._residual_decoder)


class ResidualUNet(ResidualEncoderUNet):
    """The same with residual blocks on the way back too; parameters as `PlainConvUNet`."""

    _residual_decoder = True


def _read(plan: Mapping[str, Any], counts: str) -> tuple[_Parts, _Design]:
    """Take an architecture of nnU-Net's plans apart.

    Raises
    ------
    ValueError, KeyError
        If something is missing, or names a layer that is not on the list.
    """
    ndim = {"Conv2d": 2, "Conv3d": 3}[_last(plan["conv_op"])]
    stages = int(plan["n_stages"])
    parts = _Parts(
        ndim,
        bool(plan.get("conv_bias", False)),
        _layer(plan.get("norm_op"), _NORMS),
        plan.get("norm_op_kwargs") or {},
        _layer(plan.get("dropout_op"), _LAYERS),
        plan.get("dropout_op_kwargs") or {},
        _layer(plan.get("nonlin"), _LAYERS),
        plan.get("nonlin_kwargs") or {},
        bool(plan.get("nonlin_first", False)),
    )
    design = _Design(
        _each(plan["features_per_stage"], stages),
        [_each(size, ndim) for size in _each(plan["kernel_sizes"], stages)],
        [_each(size, ndim) for size in _each(plan["strides"], stages)],
        _each(plan[counts], stages),
        _each(plan["n_conv_per_stage_decoder"], stages - 1),
        _each(plan.get("bottleneck_channels"), stages),
    )
    if _last(plan.get("block", "BasicBlockD")) == "BasicBlockD":
        design = _Design(design.features, design.kernels, design.strides, design.counts, design.decoder_counts, [None] * stages)
    return parts, design


def _each(value: Any, count: int) -> list[Any]:
    """Return one value for each; a single one stands for all."""
    found = list(value) if isinstance(value, list | tuple) else [value] * count
    if len(found) != count:
        raise ValueError(f"{len(found)} values were given for {count}")
    return found


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _layer(name: str | None, known: Sequence[str]) -> Any:
    """Return the class of torch that a dotted name stands for, if it is on the list; nothing is imported."""
    if name is None:
        return None
    if not name.startswith("torch.nn.") or _last(name) not in known:
        raise ValueError(f'the layer "{name}" is none of {", ".join(known)}')
    return getattr(nn, _last(name))
