"""Models that find objects as StarDist and Cellpose do: trained further, and from nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from scenes import config, scene

from napari_tileseg import load_model, train
from napari_tileseg.errors import OptionsError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.registry import find_spec
from napari_tileseg.pipeline import segment
from napari_tileseg.training.object_networks import diameter_of
from napari_tileseg.training.plan import make_plan
from napari_tileseg.training.prepare import prepare_items
from napari_tileseg.training.refusal import refusal
from napari_tileseg.training.report import inspect
from napari_tileseg.training.result import fit_decoder
from napari_tileseg.training.sampling import Sampler
from napari_tileseg.training.start import start_network

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from napari_tileseg.training.config import TrainConfig

MODELS = Path(__file__).parents[1] / "models" / "loaders"
STARTS = {
    "stardist": f"stardist:{MODELS / 'stardist' / 'plane'}",
    "stardist, batch norm": f"stardist:{MODELS / 'stardist' / 'norms'}",
    "stardist, volume": f"stardist:{MODELS / 'stardist' / 'volume'}",
    "cellpose 3": f"cellpose:{MODELS / 'cellpose' / 'small3'}?diameter=12",
    "cellpose 4": f"cellpose:{MODELS / 'cellpose' / 'small4'}?diameter=30",
}
SHORT: dict[str, Any] = {"epochs": 1, "epoch_steps": 2, "batch": 2, "arguments": {}, "task": "instances", "val_share": 0.5}
NEW: dict[str, dict[str, Any]] = {
    "stardist_unet": {"filters": 4, "depth": 1, "rays": 8, "features": 8},
    "cellpose_unet": {"channels": [4, 8]},
}


def skip_without(start: str) -> None:
    if start.startswith("stardist"):
        pytest.importorskip("h5py")


def pairs(count: int = 2, shape: tuple[int, ...] = (48, 48)) -> list[tuple[NDArray[Any], NDArray[Any]]]:
    return [scene(number, shape, objects=True) for number in range(count)]


def further(output: Path, start: str, **changes: Any) -> TrainConfig:
    if "volume" in start:
        changes = {"window": (8, 32, 32), "axes": "ZYX", **changes}
    return config(output, **{**SHORT, "start": STARTS[start], **changes})


def shape_of(start: str) -> tuple[int, ...]:
    return (8, 32, 32) if "volume" in start else (48, 48)


@pytest.mark.parametrize("start", STARTS)
def test_a_model_is_trained_further(start: str, tmp_path: Path) -> None:
    skip_without(start)
    data = pairs(shape=shape_of(start))
    before = find_spec(STARTS[start])
    assert refusal(before) == ""
    spec = train(further(tmp_path / "m", start), data)
    told = {"name", "title", "description", "version", "training", "weights_sha256", "unknown", "loader", "source", "source_options"}
    kept = before.model_dump(exclude={*told, "decoder_parameters"})
    assert spec.model_dump(exclude={*told, "decoder_parameters"}) == kept
    assert spec.decoder_parameters.keys() >= before.decoder_parameters.keys()
    after, old = load_model(str(tmp_path / "m"), device="cpu"), load_model(STARTS[start], device="cpu")
    assert after.module is not None
    assert old.module is not None
    moved = {name for name, value in after.module.state_dict().items() if not torch.equal(value, old.module.state_dict()[name])}
    assert len(moved) > 4
    # What is no weight stays as it is.
    assert not moved & {"diam_mean", "diam_labels", "W2"}
    image = data[0][0]
    found = segment(image, after, axes="ZYX"[-image.ndim :], options=SegmentOptions(device="cpu"))
    assert np.asarray(found.labels).shape == image.shape


@pytest.mark.parametrize("start", ["stardist", "cellpose 3"])
def test_it_begins_with_what_the_model_knows(start: str, tmp_path: Path) -> None:
    skip_without(start)
    settings = further(tmp_path / "m", start)
    plan = make_plan(settings, inspect(settings, pairs()), "m")
    network, notes = start_network(settings, plan.spec)
    assert notes == ()
    image = torch.rand(1, 1, 64, 64)
    before = load_model(STARTS[start], device="cpu").module
    assert before is not None
    with torch.inference_mode():
        torch.testing.assert_close(network.eval()(image), before(image), rtol=0, atol=0)


@pytest.mark.parametrize("start", ["stardist", "cellpose 3", "cellpose 4"])
def test_a_crop_has_the_channels_that_the_network_is_given_in_a_run(start: str, tmp_path: Path) -> None:
    skip_without(start)
    settings = further(tmp_path / "m", start)
    report = inspect(settings, pairs())
    plan = make_plan(settings, report, "m")
    examples = prepare_items(report.train, report, plan.spec, folder=tmp_path)
    drawn = Sampler(examples, plan.augmentation, channels=plan.channels, batch=1).batch(0)
    assert drawn.image.shape[1] == 1  # the other channels of Cellpose are 0, and its network fills them in
    assert drawn.maps.shape[1] == (1 if start == "stardist" else 2)


def test_objects_are_seen_as_large_as_cellpose_knows_them(tmp_path: Path) -> None:
    data = pairs()
    for reference, expected in ((STARTS["cellpose 3"], 12.0), (STARTS["cellpose 3"].partition("?")[0], None)):
        settings = further(tmp_path / "m", "cellpose 3").model_copy(update={"start": reference})
        report = inspect(settings, data)
        spec = make_plan(settings, report, "m").spec
        diameter = expected or diameter_of(report)
        assert diameter is not None
        assert spec.zoom is not None
        trained = find_spec(reference).training["diameter"]
        assert spec.zoom[0] * diameter == pytest.approx(trained, rel=0.01)
        assert spec.decoder_parameters["steps"] == int(200 / spec.zoom[0])
    # A disc of 100 pixels is 11.3 pixels across.
    disc = np.zeros((48, 48), np.uint8)
    disc[10:20, 10:20] = 1
    assert diameter_of(inspect(settings, [(data[0][0], disc), (data[1][0], disc)])) == pytest.approx(11.28, abs=0.01)


def test_crops_are_small_where_tiles_are_large(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    settings = further(tmp_path / "m", "stardist", window=(32, 24))
    plan = make_plan(settings, inspect(settings, pairs()), "m")
    assert (plan.size, plan.spec.window, plan.loss) == ((32, 24), (1024, 1024), "stars")
    for window in ((30, 24), (32, 24, 24)):
        wrong = settings.model_copy(update={"window": window})
        with pytest.raises(OptionsError, match="multiples of 8 x 8"):
            make_plan(wrong, inspect(settings, pairs()), "m")


@pytest.mark.parametrize("start", ["stardist", "cellpose 3"])
def test_what_cannot_be_learnt_gets_a_sentence(start: str, tmp_path: Path) -> None:
    skip_without(start)
    with pytest.raises(OptionsError, match="finds objects one by one"):
        train(further(tmp_path / "m", start, task="classes"), pairs())
    with pytest.raises(OptionsError, match="for classes"):
        train(further(tmp_path / "m", start, loss="dice"), pairs())
    with pytest.raises(OptionsError, match="cannot be made"):
        train(further(tmp_path / "m", start, loss_arguments={"border_weight": 2}), pairs())


@pytest.mark.parametrize("start", ["stardist", "cellpose 3"])
def test_unlabelled_pixels_are_no_objects(start: str, tmp_path: Path) -> None:
    skip_without(start)
    data = [(image, np.where(np.arange(48) < 24, labels, 255).astype(np.uint8)) for image, labels in pairs()]
    settings = further(tmp_path / "m", start, unlabelled=255)
    report = inspect(settings, data)
    plan = make_plan(settings, report, "m")
    (example,) = prepare_items(report.train, report, plan.spec, folder=tmp_path, unlabelled=255)
    unknown = example.labels < 0
    assert unknown.any()
    assert not example.maps[:, unknown].any()
    assert example.maps[:, example.labels > 0].any()


@pytest.mark.parametrize("network", NEW)
def test_a_new_network_is_fitted_to_the_objects(network: str, tmp_path: Path) -> None:
    settings = config(tmp_path / "m", **{**SHORT, "network": network, "arguments": NEW[network], "window": (48, 48)})
    spec = train(settings, pairs())
    assert (spec.architecture, spec.output) == (network, "instances")
    assert load_model(str(tmp_path / "m"), device="cpu").spec.decoder == network.partition("_")[0]
    if network == "cellpose_unet":
        diameter = diameter_of(inspect(settings, pairs()))
        assert diameter is not None
        assert spec.zoom is not None
        assert spec.zoom[0] * diameter == pytest.approx(30, rel=0.01)
    with pytest.raises(OptionsError, match="one by one"):
        train(settings.model_copy(update={"task": "classes", "output": str(tmp_path / "n")}), pairs())


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ("stardist_unet", {"grid": [3, 3]}),
        ("stardist_unet", {"grid": 2}),
        ("stardist_unet", {"rays": 2}),
        ("stardist_unet", {"filters": "many"}),
        ("cellpose_unet", {"channels": []}),
        ("cellpose_unet", {"channels": "32"}),
    ],
)
def test_arguments_that_make_no_network_get_a_sentence(network: str, arguments: dict[str, Any], tmp_path: Path) -> None:
    settings = config(tmp_path / "m", **{**SHORT, "network": network, "arguments": arguments})
    with pytest.raises(OptionsError, match="was given"):
        make_plan(settings, inspect(settings, pairs()), "m")


def test_the_thresholds_of_shapes_are_fitted(tmp_path: Path) -> None:
    settings = config(tmp_path / "m", **{**SHORT, "network": "stardist_unet", "arguments": {**NEW["stardist_unet"], "grid": [1, 1]}})
    report = inspect(settings, pairs())
    plan = make_plan(settings, report, "m")
    torch.manual_seed(0)
    network, _ = start_network(settings, plan.spec)
    # Nothing is likely enough for the usual threshold, and everything is the same disc.
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.startswith(("prob", "dist")):
                value.zero_()
        network.prob.bias.fill_(float(np.log(0.35 / 0.65)))  # type: ignore[union-attr, operator]
        network.dist.bias.fill_(4.0)  # type: ignore[union-attr, operator]
    examples = prepare_items(report.val, report, plan.spec, folder=tmp_path)
    labels = np.zeros_like(examples[0].labels)
    labels[20:29, 20:29] = 1
    fitted = fit_decoder(plan.spec, network.state_dict(), [replace(examples[0], labels=labels)])
    assert fitted["prob_thresh"] in (0.3, 0.5)
    assert fitted.keys() == plan.spec.decoder_parameters.keys()
