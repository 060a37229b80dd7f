"""A network that knows axes in another order is called as if it knew them in the image's."""

from __future__ import annotations

import copy

import pytest
import torch

from napari_tileseg.errors import ModelError
from napari_tileseg.models.nets import build_network

SMALL = {"input_channels": 1, "n_stages": 2, "features_per_stage": [4, 8], "conv_op": "Conv3d", "kernel_sizes": [[1, 3, 5], [3, 3, 3]]}
SMALL |= {"strides": [1, [1, 2, 2]], "n_conv_per_stage": [1, 1], "n_conv_per_stage_decoder": [1], "num_classes": 2}


def test_tiles_are_turned_and_scores_turned_back() -> None:
    torch.manual_seed(0)
    plain = build_network("plain_conv_unet", **SMALL).eval()
    turned = build_network("plain_conv_unet", axis_order=[1, 2, 0], **SMALL).eval()
    turned.load_state_dict(plain.state_dict())
    tile = torch.randn(2, 1, 8, 6, 4)  # Z, Y, X; the network knows Y, X, Z
    with torch.inference_mode():
        expected = plain(tile.permute(0, 1, 3, 4, 2)).permute(0, 1, 4, 2, 3)
        assert torch.equal(turned(tile), expected)
        assert torch.equal(copy.deepcopy(turned)(tile), expected), "a copy is turned too, as the average of weights is"
    assert turned(tile).shape == (2, 2, 8, 6, 4)


@pytest.mark.parametrize("order", [[0, 0, 1], [1, 2, 3], "ZYX"])
def test_an_order_that_is_none_is_a_sentence(order: object) -> None:
    with pytest.raises(ModelError, match="cannot be built"):
        build_network("plain_conv_unet", axis_order=order, **SMALL)  # type: ignore[arg-type]
