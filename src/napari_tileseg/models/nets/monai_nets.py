"""Networks of MONAI that are made of other objects than numbers and words, from plain arguments, or that have a second task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from monai.networks.nets.dints import DiNTS, TopologyInstance
from monai.networks.nets.segresnet import SegResNetVAE as _SegResNetVAE
from monai.networks.nets.vista3d import VISTA3D, vista3d132

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["SegResNetVAE", "Vista3D", "dints", "vista3d"]


def dints(
    *,
    arch_code: Sequence[Any],
    in_channels: int,
    num_classes: int,
    channel_mul: float = 1.0,
    num_blocks: int = 12,
    num_depths: int = 4,
    spatial_dims: int = 3,
    use_downsample: bool = True,
) -> DiNTS:
    """Build the network that a search for architectures has found (He et al., arXiv:2103.15954).

    Parameters
    ----------
    arch_code : pair of nested lists
        Which paths are open in each block, and which operation is on each path: what the search wrote down.
    in_channels, num_classes : int
    channel_mul, num_blocks, num_depths, spatial_dims, use_downsample
        As in the search.
    """
    codes = [np.asarray(arch_code[0]), np.asarray(arch_code[1])]
    space = TopologyInstance(
        arch_code=codes,
        channel_mul=channel_mul,
        num_blocks=num_blocks,
        num_depths=num_depths,
        spatial_dims=spatial_dims,
        use_downsample=use_downsample,
    )
    node = torch.ones((num_blocks + 1, num_depths))
    return DiNTS(
        dints_space=space,
        in_channels=in_channels,
        num_classes=num_classes,
        spatial_dims=spatial_dims,
        use_downsample=use_downsample,
        node_a=node,
    )


class SegResNetVAE(_SegResNetVAE):
    """SegResNet with a branch that draws the image again (Myronenko, arXiv:1810.11654); that task is not learnt here.

    So the branch is not computed in training either, where it would change what normalisation has measured on the way up, and cannot be
    in the memory layout that is fastest for the rest.
    """

    def _get_vae_loss(self, net_input: torch.Tensor, vae_input: torch.Tensor) -> None:
        return None


class Vista3D(VISTA3D):
    """VISTA3D (He et al., arXiv:2406.05285) without clicks: one score for each class that is asked for.

    Attributes
    ----------
    class_numbers : tuple of int
        Its numbers of the classes, of which it knows 1 to 132.
    """

    class_numbers: tuple[int, ...] = ()

    def forward(self, input_images: torch.Tensor, *args: Any, **prompts: Any) -> torch.Tensor:
        """Map (B, 1, Z, Y, X) to raw scores (B, K, Z, Y, X), of which each is one class against the rest."""
        if args or prompts:
            found: torch.Tensor = super().forward(input_images, *args, **prompts)
            return found
        asked = torch.tensor(self.class_numbers, device=input_images.device)[:, None]
        # It takes one image at a time, and answers with one image for each class.
        return torch.cat([super(Vista3D, self).forward(image[None], class_vector=asked).transpose(0, 1) for image in input_images])


def vista3d(*, classes: Sequence[int], encoder_embed_dim: int = 48, in_channels: int = 1) -> Vista3D:
    """Build VISTA3D for the classes of these numbers."""
    network: Any = vista3d132(encoder_embed_dim=encoder_embed_dim, in_channels=in_channels)
    network.__class__ = Vista3D  # the same weights under the same names
    network.class_numbers = tuple(int(number) for number in classes)
    served: Vista3D = network
    return served
