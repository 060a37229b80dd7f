"""``AnomalyMap``, ``FAnoGAN`` and ``PairedGenerator``: networks that know images of one kind, as models of the engine.

The first two know what is normal and return how strange each pixel is; the third one knows images together with their masks. Whatever
has a `decode` can make new images; all have `codes`, a few numbers in which tiles that look alike lie close together.

Sources: C. Baur et al., Autoencoders for unsupervised anomaly segmentation in brain MR images, Medical Image Analysis 69, 2021
(arXiv:2004.03271); P. Bergmann et al., Improving unsupervised defect segmentation by applying structural similarity to autoencoders,
VISAPP 2019 (arXiv:1807.02011); D. Zimmerer et al., Context-encoding variational autoencoder for unsupervised anomaly detection, 2018
(arXiv:1812.05941), for the gradient of the divergence; T. Schlegl et al., f-AnoGAN, Medical Image Analysis 54, 2019; D. Li et al.,
Semantic segmentation with generative models, CVPR 2021 (arXiv:2104.05833), for masks out of a code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from napari_tileseg.models.nets.autoencoders import AutoEncoder, ConvAutoEncoder, VariationalAutoEncoder
from napari_tileseg.models.nets.gan import DCGANDiscriminator, DCGANGenerator, GANDiscriminator, GANGenerator

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["AUTOENCODERS", "GENERATORS", "RESIDUALS", "AnomalyMap", "FAnoGAN", "PairedGenerator", "dissimilarity"]

AUTOENCODERS: dict[str, type[AutoEncoder | ConvAutoEncoder | VariationalAutoEncoder]] = {
    "autoencoder": AutoEncoder,
    "conv_autoencoder": ConvAutoEncoder,
    "vae": VariationalAutoEncoder,
}

GENERATORS: dict[str, tuple[type[GANGenerator | DCGANGenerator], type[GANDiscriminator | DCGANDiscriminator]]] = {
    "gan": (GANGenerator, GANDiscriminator),
    "dcgan": (DCGANGenerator, DCGANDiscriminator),
}

RESIDUALS = ("absolute", "ssim", "kl")
"""What is taken for strange: what does not come back, what comes back in another texture, what makes a code improbable."""

_RANGE = 2.0
_SSIM_WINDOW = 7


class AnomalyMap(nn.Module):
    """How far an image is from what an autoencoder brings back of it.

    Parameters
    ----------
    network : {"conv_autoencoder", "autoencoder", "vae"}
    residual : {"absolute", "ssim", "kl"}
        ``absolute``: differences, the mean of all channels. ``ssim``: 1 less the structural similarity. ``kl``, of a VAE: how fast the
        divergence of its code from the prior changes with each pixel.
    **arguments
        Of the autoencoder.

    Raises
    ------
    ValueError
        If there is no such network or residual.
    """

    def __init__(self, *, network: str = "conv_autoencoder", residual: str = "absolute", **arguments: Any) -> None:
        super().__init__()
        if network not in AUTOENCODERS:
            raise ValueError(f'network must be one of {", ".join(AUTOENCODERS)}, not "{network}"')
        if residual not in RESIDUALS or (residual == "kl" and network != "vae"):
            raise ValueError(f'residual must be absolute, ssim or, of a vae, kl, not "{residual}"')
        self.residual = residual
        self.model = AUTOENCODERS[network](**arguments)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, Y, X) on [-1, 1] to scores (B, 1, Y, X), 0 or more."""
        if self.residual == "kl":
            return self._divergence_gradient(x).abs().mean(1, keepdim=True)
        back = self.model(x)
        return dissimilarity(x, back) if self.residual == "ssim" else (x - back).abs().mean(1, keepdim=True)

    def codes(self, x: Tensor) -> Tensor:
        """Map images (B, C, Y, X) to codes (B, D); of a VAE, the means."""
        found = self.model.encode(x)
        return (found[0] if isinstance(found, tuple) else found).flatten(1)

    @property
    def noise(self) -> int | None:
        """How many numbers an image can be made of; None where the codes follow no known distribution."""
        return self.model.latent if isinstance(self.model, VariationalAutoEncoder) else None

    def spread(self, normal: Tensor) -> Tensor:
        """Map numbers that are normally distributed to numbers as `decode` wants them."""
        return normal

    def decode(self, code: Tensor) -> Tensor:
        """Map codes (B, noise) of a VAE to images (B, C, Y, X)."""
        assert isinstance(self.model, VariationalAutoEncoder), "only a VAE makes images"
        return self.model.decode(code)

    def _divergence_gradient(self, x: Tensor) -> Tensor:
        # By hand: the engine computes without gradients, and there is one hidden layer only.
        model = self.model
        assert isinstance(model, VariationalAutoEncoder)
        layer = model.encoder[0]
        assert isinstance(layer, nn.Linear)
        hidden = model.encoder(x.flatten(1))
        mean, log_variance = model.mean(hidden), model.log_variance(hidden)
        back = mean @ model.mean.weight + (log_variance.exp() - 1) / 2 @ model.log_variance.weight
        gradient: Tensor = (back * (hidden > 0)) @ layer.weight
        return gradient.reshape(x.shape)


class FAnoGAN(nn.Module):
    """How far an image is from the nearest one that a generator makes; an encoder finds it.

    Parameters
    ----------
    network : {"dcgan", "gan"}
    in_channels : int
    size : pair of int
        Height and width, which are fixed.
    noise : int
        Numbers that an image is made of, each from -1 to 1.

    Raises
    ------
    ValueError
        If there is no such network.
    """

    classes = 0

    def __init__(self, *, network: str = "dcgan", in_channels: int = 1, size: Sequence[int] = (28, 28), noise: int = 96) -> None:
        super().__init__()
        if network not in GENERATORS:
            raise ValueError(f'network must be one of {", ".join(GENERATORS)}, not "{network}"')
        make_generator, make_discriminator = GENERATORS[network]
        self.in_channels, self.noise = in_channels, noise
        self.generator = make_generator(out_channels=in_channels + self.classes, size=size, noise=noise)
        self.discriminator = make_discriminator(in_channels=in_channels + self.classes, size=size)
        looking = make_discriminator(in_channels=in_channels, size=size)
        # Noise is uniform on [-1, 1]: what the generator has never seen is not asked of it.
        self.encoder = nn.Sequential(looking.trunk, nn.Linear(looking.head.in_features, noise), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, Y, X) on [-1, 1] to scores (B, 1, Y, X), 0 or more."""
        return (x - self.decode(self.codes(x))).abs().mean(1, keepdim=True)

    def codes(self, x: Tensor) -> Tensor:
        """Map images (B, C, Y, X) to codes (B, noise)."""
        code: Tensor = self.encoder(x)
        return code

    def spread(self, normal: Tensor) -> Tensor:
        """Map numbers that are normally distributed to numbers as `decode` wants them: uniform on [-1, 1]."""
        return torch.erf(normal / 2**0.5)

    def decode(self, code: Tensor) -> Tensor:
        """Map codes (B, noise) to images (B, C, Y, X)."""
        image: Tensor = self.generator(code)
        return image


class PairedGenerator(FAnoGAN):
    """Makes images with their masks; of an image, gives the mask of the nearest one that it makes.

    Parameters
    ----------
    classes : int
        Classes of the masks, the background included. They are further channels of what the generator makes, 1 where the class is
        and -1 elsewhere.
    network, in_channels, size, noise
        As of `FAnoGAN`.
    """

    def __init__(
        self, *, classes: int = 2, network: str = "dcgan", in_channels: int = 1, size: Sequence[int] = (28, 28), noise: int = 96
    ) -> None:
        self.classes = classes
        super().__init__(network=network, in_channels=in_channels, size=size, noise=noise)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, C, Y, X) on [-1, 1] to scores (B, classes, Y, X)."""
        return self.decode(self.codes(x))[:, self.in_channels :]


def dissimilarity(x: Tensor, y: Tensor) -> Tensor:
    """Return 1 less the structural similarity around each pixel, from 0 to 2.

    Z. Wang et al., IEEE Transactions on Image Processing 13, 2004, with a square window, which is mirrored at the border.

    Parameters
    ----------
    x, y : Tensor, shape (B, C, Y, X)
        Images on [-1, 1].

    Returns
    -------
    Tensor, shape (B, 1, Y, X)
        The mean of the channels.
    """
    size = min(_SSIM_WINDOW, *(2 * ((side - 1) // 2) + 1 for side in x.shape[2:]))  # not wider than can be mirrored
    reach = size // 2

    def mean(values: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(values, (reach,) * 4, mode="reflect") if reach else values, size, stride=1)

    mean_x, mean_y = mean(x), mean(y)
    var_x, var_y = mean(x * x) - mean_x**2, mean(y * y) - mean_y**2
    covariance = mean(x * y) - mean_x * mean_y
    small, smaller = (0.03 * _RANGE) ** 2, (0.01 * _RANGE) ** 2
    similarity = (2 * mean_x * mean_y + smaller) * (2 * covariance + small)
    similarity = similarity / ((mean_x**2 + mean_y**2 + smaller) * (var_x.clamp(min=0) + var_y.clamp(min=0) + small))
    return (1 - similarity).clamp(0, 2).mean(1, keepdim=True)
