"""Ensembles: the mean of their members, under a name that a job can hold, and only of models that fit each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_tileseg.engine.arrays import FunctionPredictor
from napari_tileseg.errors import Cancelled, ModelError, ModelNotFoundError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.ensemble import Ensemble, combine, join, split
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import write_package
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import card, find_spec, stamp
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from pathlib import Path

ARGUMENTS = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 6], "stem_channels": 4}


def spec_of(name: str = "fold-0", **changes: Any) -> ModelSpec:
    values: dict[str, Any] = {
        "name": name,
        "axes": "CYX",
        "channels": ["grey"],
        "classes": ["background", "cell"],
        "window": (8, 8),
        "multiple_of": 4,
        "architecture": "residual_unet",
        "arguments": ARGUMENTS,
        **changes,
    }
    return ModelSpec.model_validate(values)


@pytest.fixture
def folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path))
    for fold in range(3):
        torch.manual_seed(fold)
        write_package(tmp_path / f"fold-{fold}", spec_of(f"fold-{fold}"), build_network("residual_unet", **ARGUMENTS).state_dict())
    return tmp_path


@given(st.lists(st.text(st.characters(codec="ascii", exclude_categories=["Cc"]), min_size=1).map(str.strip).filter(bool), min_size=2))
def test_any_paths_survive_in_a_reference(refs: list[str]) -> None:
    assert split(join(refs)) == tuple(refs)


def test_other_references_are_no_ensembles() -> None:
    assert split("nuclei-2d") == ()
    assert split("/models/a,b") == ()
    for wrong in ("ensemble:", "ensemble:fold-0", "ensemble:fold-0,"):
        with pytest.raises(ModelError, match="Give two models or more"):
            split(wrong)


@pytest.mark.parametrize("tta", [False, "rotations"])
def test_the_scores_are_the_mean_of_the_members(folds: Path, tta: Any) -> None:
    image = np.random.default_rng(0).normal(size=(20, 13)).astype(np.float32)
    ref = join(["fold-0", str(folds / "fold-1"), "fold-2"])
    options = SegmentOptions(scores=True, tta=tta)
    single = [segment(image, f"fold-{fold}", axes="YX", options=options).scores for fold in range(3)]
    together = segment(image, ref, axes="YX", options=options)
    np.testing.assert_allclose(together.scores, np.mean(single, axis=0), rtol=0, atol=1e-5)  # type: ignore[arg-type]
    model = together.provenance["model"]
    shas = [find_spec(f"fold-{fold}").weights_sha256 for fold in range(3)]
    assert [member["weights_sha256"] for member in model["members"]] == shas
    assert len(set(shas)) == 3
    tile = torch.randn(1, 1, 8, 8)
    members = [load_model(f"fold-{fold}", device="cpu")(tile) for fold in range(3)]
    torch.testing.assert_close(load_model(ref, device="cpu")(tile), torch.stack(members).mean(0))


def test_cards_and_stamps_are_of_all_members(folds: Path) -> None:
    ref = join(["fold-0", "fold-2"])
    assert card(ref) == card("fold-0") + "\n" + card("fold-2")
    assert stamp(ref) == stamp("fold-0") + stamp("fold-2")
    assert find_spec(ref).weights_sha256 != find_spec(join(["fold-0", "fold-1"])).weights_sha256
    with pytest.raises(ModelNotFoundError, match="fold-9"):
        find_spec(join(["fold-0", "fold-9"]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": ["background", "nucleus"]}, r"classes \(background, cell and background, nucleus\)"),
        ({"axes": "CZYX", "window": (8, 8, 8)}, r"axes \(CYX and CZYX\)"),
        ({"channels": ["grey", "red"]}, "channels"),
        ({"spacing": (1.0, 1.0)}, r"pixel size \(none and 1.0, 1.0\)"),
        ({"normalization": {"kind": "zscore"}}, "normalisation"),
        ({"output": "sigmoid"}, "kind of output"),
    ],
)
def test_members_that_differ_are_refused_in_one_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelError, match=f"fold-0 and fold-1 cannot answer together: they differ in their {words}"):
        combine([spec_of(), spec_of("fold-1", **changes)])


def test_the_window_suits_every_member() -> None:
    both = combine([spec_of(window=(12, 20)), spec_of("fold-1", multiple_of=6, window=(12, 12))])
    assert (both.multiple_of, both.window) == (12, (12, 24))


def test_a_run_can_stop_between_members() -> None:
    calls: list[int] = []

    def member(number: int) -> Any:
        def function(batch: torch.Tensor) -> torch.Tensor:
            calls.append(number)
            return torch.cat([batch, -batch], 1)

        return FunctionPredictor(spec_of(f"fold-{number}"), function)

    with pytest.raises(Cancelled):
        segment(np.zeros((20, 20), np.float32), Ensemble([member(0), member(1)]), axes="YX", cancel=lambda: len(calls) == 3)
    assert calls == [0, 1, 0]
