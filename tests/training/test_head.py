"""A model that is trained further keeps what it knows of the classes that stay, whatever their order and their kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scenes import config, scene

from napari_tileseg import Volume, list_models, load_model, segment, train
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.events import Noted
from napari_tileseg.training.head import keep_shared
from napari_tileseg.training.refusal import refusal
from napari_tileseg.training.report import inspect

if TYPE_CHECKING:
    from pathlib import Path

NETWORKS: dict[str, dict[str, Any]] = {
    "residual_unet": {"spatial_dims": 2, "in_channels": 1, "channels": [4, 8], "stem_channels": 4},
    "vnet2d": {"in_channels": 1, "stages": 2, "features": 4},
    "monai.UNet": {"spatial_dims": 2, "in_channels": 1, "channels": [4, 8], "strides": [2], "num_res_units": 1},
    "plain_conv_unet": {
        "input_channels": 1,
        "n_stages": 2,
        "features_per_stage": [4, 8],
        "conv_op": "Conv2d",
        "kernel_sizes": [3, 3],
        "strides": [1, 2],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
    },
}


def card(network: str, classes: list[str], output: str = "softmax", **more: Any) -> ModelSpec:
    heads = more.pop("heads", [])
    results = "num_classes" if "conv_unet" in network else "out_channels"
    arguments = NETWORKS[network] | {results: len(heads or classes)}
    told: dict[str, Any] = {
        "name": "m",
        "axes": "CYX",
        "channels": 1,
        "window": (16, 16),
        "output": output,
        "classes": classes,
        "heads": heads,
    }
    return ModelSpec.model_validate({**told, "architecture": network, "arguments": arguments, **more})


def moved(before: ModelSpec, after: ModelSpec) -> tuple[torch.Tensor, torch.Tensor, tuple[str, ...]]:
    """Return the scores of the old network, those of a new one that began with its weights, and what was kept."""
    torch.manual_seed(0)
    old, new = (build_network(spec.architecture, **spec.arguments).eval() for spec in (before, after))
    state = old.state_dict()
    new.load_state_dict({key: value for key, value in state.items() if value.shape == new.state_dict()[key].shape}, strict=False)
    kept = keep_shared(new, state, before, after)
    image = torch.randn((1, 1, 16, 16))
    with torch.inference_mode():
        return old(image)[0], new(image)[0], kept


@pytest.mark.parametrize("network", NETWORKS)
def test_classes_that_stay_keep_their_scores_in_another_order(network: str) -> None:
    old, new, kept = moved(card(network, ["ground", "a", "b"]), card(network, ["ground", "b", "new", "a"]))
    assert kept == ("b", "a")
    for place, before in ((0, 0), (1, 2), (3, 1)):
        torch.testing.assert_close(new[place], old[before])


def test_a_class_that_took_the_place_of_another_begins_anew() -> None:
    old, new, kept = moved(card("residual_unet", ["ground", "a", "b", "c"]), card("residual_unet", ["ground", "c", "new", "a"]))
    assert kept == ("c", "a")
    torch.testing.assert_close(new[[0, 1, 3]], old[[0, 3, 1]])
    assert not torch.allclose(new[2], old[2])
    assert (new[2] < new[0]).all(), "it is less likely than the background at first"


def test_two_classes_answer_the_same_as_one_mask_and_back() -> None:
    old, new, _ = moved(card("residual_unet", ["ground", "a"]), card("residual_unet", ["a", "b"], "sigmoid"))
    torch.testing.assert_close(new[0].sigmoid(), old.softmax(0)[1])
    old, new, _ = moved(card("residual_unet", ["a", "b"], "sigmoid"), card("residual_unet", ["ground", "a"]))
    torch.testing.assert_close(new.softmax(0)[1], old[0].sigmoid())


def test_where_objects_are_is_where_their_class_is() -> None:
    objects = card("residual_unet", ["ground", "cell"], "instances", heads=["foreground", "border", "distance"], decoder="watershed")
    old, new, kept = moved(objects, card("residual_unet", ["ground", "cell", "other"]))
    assert kept == ("cell",)
    torch.testing.assert_close(new[1] - new[0], old[0])


def test_nothing_shared_changes_nothing() -> None:
    assert moved(card("residual_unet", ["ground", "a"]), card("residual_unet", ["ground", "b", "c"]))[2] == ()
    old, new, kept = moved(card("residual_unet", ["ground", "a"]), card("residual_unet", ["ground", "a"]))
    assert kept == ()
    torch.testing.assert_close(old, new)


def test_a_model_learns_one_class_more_and_is_as_good_at_once(tmp_path: Path) -> None:
    pairs = [(Volume(image, "YX", name=str(number)), labels) for number, (image, labels) in enumerate(map(scene, range(5)))]
    names = ("background", "dim", "bright")
    train(config(tmp_path / "a", epochs=3, epoch_steps=15, learning_rate=1e-2, average=0.9, classes=names), pairs)
    events: list[Any] = []
    fields: dict[str, Any] = {"start": str(tmp_path / "a"), "epochs": 1, "epoch_steps": 1, "batch": 2, "device": "cpu"}
    more = [(image, np.where((labels == 2) & (np.arange(48) < 20), 3, labels)) for image, labels in pairs]
    train(TrainConfig(output=str(tmp_path / "b"), classes=(*names, "left"), learning_rate=1e-6, **fields), more, on_event=events.append)
    assert any("it begins with what a knows of dim, bright" in event.message for event in events if isinstance(event, Noted))
    image = pairs[0][0]
    old, new = (np.asarray(segment(image, load_model(str(tmp_path / name), device="cpu")).labels) for name in "ab")
    agree = (old == 1) & (new == 1)
    assert agree.sum() > 0.5 * (old == 1).sum()
    report = inspect(TrainConfig(start=str(tmp_path / "a")), pairs)
    assert report.classes == names, "names are those of the start where there are as many"


REFUSED: dict[str, dict[str, Any]] = {
    "brings no network": {"architecture": ""},
    "finds objects in a way": {"decoder": "mine"},
    "a form that is not learnt": {"output": "anomaly", "classes": ["normal", "odd"], "heads": [], "decoder_parameters": {"threshold": 1.0}},
    "prepares its images": {"crop": "nonzero"},
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_cannot_be_trained_further_says_why(reason: str) -> None:
    objects = card("residual_unet", ["ground", "cell"], "instances", heads=["foreground", "border", "distance"], decoder="watershed")
    assert refusal(objects) == ""
    assert reason in refusal(ModelSpec.model_validate(objects.model_dump() | REFUSED[reason]))


def test_every_bundled_model_can_be_trained_further() -> None:
    assert [refusal(spec) for spec in list_models()] == [""] * len(list_models())
