"""Which models there are, and what is said when one is not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from napari_tileseg.errors import ModelNotFoundError, OptionsError
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import write_package
from napari_tileseg.models.predictor import load_model, pick_device
from napari_tileseg.models.registry import card, find_spec, list_models, resolve
from napari_tileseg.models.spec import ModelSpec

if TYPE_CHECKING:
    from pathlib import Path

ARGUMENTS = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 6], "stem_channels": 4}
SPEC = ModelSpec(
    name="mine",
    title="Mine",
    axes="CYX",
    channels=1,
    classes=["background", "cell"],
    window=(8, 8),
    multiple_of=4,
    architecture="residual_unet",
    arguments=ARGUMENTS,
    description="A model of one's own.",
)


@pytest.fixture
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path))
    write_package(tmp_path / "mine", SPEC, build_network("residual_unet", **ARGUMENTS).state_dict())
    return tmp_path


def test_own_models_are_listed_after_the_bundled_ones(own_models: Path) -> None:
    names = [spec.name for spec in list_models()]
    assert names[-1] == "mine"
    assert {"nuclei-2d", "hippocampus-3d"} <= set(names[:-1])


def test_a_model_is_found_by_name_and_by_path(own_models: Path) -> None:
    assert resolve("mine") == own_models / "mine"
    assert find_spec(str(own_models / "mine")).name == "mine"


def test_a_damaged_package_does_not_hide_the_others(own_models: Path) -> None:
    (own_models / "broken").mkdir()
    (own_models / "broken" / "model.json").write_text("{")
    names = [spec.name for spec in list_models()]
    assert "mine" in names
    assert "broken" not in names


def test_a_rewritten_package_is_read_again(own_models: Path) -> None:
    assert find_spec("mine").description == "A model of one's own."
    changed = SPEC.model_copy(update={"description": "Better."})
    write_package(own_models / "mine", changed, build_network("residual_unet", **ARGUMENTS).state_dict())
    assert find_spec("mine").description == "Better."


def test_an_unknown_name_gets_the_nearest_and_all_others(own_models: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r'no model "nuclei2d"\. Did you mean nuclei-2d\? Known models: .*mine'):
        resolve("nuclei2d")


def test_a_model_without_a_card_shows_its_description(own_models: Path) -> None:
    assert card("mine") == "# Mine\n\nA model of one's own.\n"


def test_a_loaded_model_predicts_raw_scores(own_models: Path) -> None:
    predictor = load_model("mine", device="cpu")
    scores = predictor(torch.zeros(2, 1, 8, 12))
    assert scores.shape == (2, 2, 8, 12)
    assert predictor.device == "cpu"
    assert predictor.size == sum(value.numel() * value.element_size() for value in predictor.module.state_dict().values())


@pytest.mark.parametrize(
    ("built", "chosen"),
    [
        (["sm_75", "sm_80", "sm_90", "compute_90"], "cuda:1"),
        (["sm_50", "sm_60", "sm_80"], "cuda:0"),
        (["sm_70", "compute_80"], "cuda:1"),
        (["sm_90a", "sm_100"], "cpu"),
        (["gfx90a"], "cuda:0"),
    ],
)
def test_auto_passes_over_gpus_that_torch_was_not_built_for(built: list[str], chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = [(6, 1), (8, 6)]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(versions))
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: versions[device.index])
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto") == chosen
    assert pick_device("cuda") == "cuda:0"  # who names it gets it


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(OptionsError, match=r'no device "cuda:99" here\. Choose one of: auto, .*cpu'):
        pick_device("cuda:99")
    assert pick_device("cpu") == "cpu"
