"""What the Train dock says in each state, which config its fields make, and how pairs are found: without a viewer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from napari.layers import Image, Labels

from napari_tileseg.errors import AxesError, OptionsError
from napari_tileseg.io.registry import read_volume
from napari_tileseg.models.nets import NETWORKS as KNOWN
from napari_tileseg.models.registry import list_models
from napari_tileseg.training.config import Strengths, TrainConfig
from napari_tileseg.training.events import EpochEnded, Noted, StepEnded, TrainingEnded, TrainingStarted
from napari_tileseg.training.losses import LOSSES as KNOWN_LOSSES
from napari_tileseg.widgets.course import press
from napari_tileseg.widgets.states import Action, Phase, Prospect
from napari_tileseg.widgets.train import choices
from napari_tileseg.widgets.train.choices import FOLDS, Choices, config_of, default_name, read_value, startable, words_of
from napari_tileseg.widgets.train.curves import Curves
from napari_tileseg.widgets.train.pairs import LayerFiles, examples_of, natural_pairs, possible_pairs
from napari_tileseg.widgets.train.results import ResultView, score_of
from napari_tileseg.widgets.train.shown import read_shown
from napari_tileseg.widgets.train.states import Training, advance, view
from napari_tileseg.worker.messages import CancelledRun, Died, Done, Evented, Failed, Loading, Queued, from_line, to_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STARTED = TrainingStarted(4, 1, ("4 images.",), (), {"task": "classes"}, 50)


def after(*events: Any, begin: Training | None = None) -> Training:
    """Return the training after these events, or messages."""
    state = begin or Training(Phase.LOADING, name="mine", title="4 pairs → mine")
    for event in events:
        state = advance(state, event if type(event).__module__.endswith("messages") else Evented(event))
    return state


def ended(epoch: int, score: float, *, best: bool = True) -> EpochEnded:
    return EpochEnded(epoch, 50, 0.5, score, {"dice": score}, best, seconds_left=240.0)


def finished(reason: str, epoch: int = 8) -> TrainingEnded:
    return TrainingEnded("/models/mine", epoch, 0.89, reason, 100.0)


def test_ready_and_not() -> None:
    assert view(Prospect(box="x"), Training()).button == "Train"
    assert not view(Prospect(), Training()).enabled
    shown = view(Prospect(ready=True, box="50 epochs."), Training())
    assert shown.enabled and shown.primary and not shown.folded and shown.second == ""


def test_while_it_goes_on() -> None:
    state = after(STARTED, StepEnded(111, 500, 0.4, 1e-3, 60.0, 240.0))
    shown = view(Prospect(), state)
    assert (shown.button, shown.second, shown.folded) == ("Pause", "Stop and keep", True)
    assert shown.bar is not None and shown.bar.text == "Epoch 12 of 50, 4 min left"
    assert press(Prospect(), state) == "pause"
    noted = view(Prospect(), after(Noted("The batch was halved."), begin=state))
    assert noted.message is not None and noted.message.text == "The batch was halved."
    queued = view(Prospect(), after(Queued(1))).bar
    assert queued is not None and queued.text == "Waiting for another run"
    loading = view(Prospect(), after(Loading("mine"))).bar
    assert loading is not None and loading.text == "Looking at the images"


def test_paused_and_stopping() -> None:
    state = after(STARTED, StepEnded(111, 500, 0.4, 1e-3, 60.0, 240.0))
    paused = view(Prospect(), Training(**{**vars(state), "pausing": True}))
    assert paused.button == "Resume" and paused.bar is not None and paused.bar.text == "Paused in epoch 12 of 50"
    stopping = Training(**{**vars(state), "phase": Phase.CANCELLING})
    shown = view(Prospect(), after(StepEnded(112, 500, 0.4, 1e-3, 60.0, 240.0), begin=stopping))
    assert (shown.second, shown.second_enabled, shown.enabled) == ("Stopping...", False, False), "it keeps saying so"


@pytest.mark.parametrize(
    ("messages", "text", "links", "button"),
    [
        ([finished("done"), Done({}, {}, 1.0)], "mine is ready, Dice 0.89.", (Action.USE, Action.CARD), "New training"),
        (
            [finished("early"), Done({}, {}, 1.0)],
            "mine is ready, Dice 0.89. It did not get better any more.",
            (Action.USE, Action.CARD),
            "New training",
        ),
        (
            [finished("stopped"), Done({}, {}, 1.0)],
            "Stopped. Epoch 8 is kept, Dice 0.89. Continue goes on from there.",
            (Action.USE, Action.CARD),
            "Continue",
        ),
        ([CancelledRun(0, 0)], "Stopped. Epoch 8 is kept, Dice 0.80. Continue goes on from there.", (), "Continue"),
        (
            [finished("failed"), Failed("RunError", "Loss became NaN in epoch 9.", "trace")],
            "Loss became NaN in epoch 9. Epoch 8 is kept, Dice 0.89.",
            (Action.USE, Action.HELP, Action.COPY),
            "New training",
        ),
        ([Died("The process ended.", 8, 50, "log")], "The process ended.", (Action.COPY,), "Continue"),
    ],
)
def test_how_it_ends(messages: list[Any], text: str, links: tuple[Action, ...], button: str) -> None:
    state = after(STARTED, ended(8, 0.8), ended(9, 0.7, best=False), *messages)
    shown = view(Prospect(), state)
    assert shown.message is not None
    assert (shown.message.text, shown.message.links, shown.button) == (text, links, button)


def test_a_failure_before_anything_was_learnt_gives_the_form_back() -> None:
    state = after(Failed("OptionsError", "There is no network x."))
    shown = view(Prospect(ready=True), state)
    assert not shown.folded and shown.button == "Train" and shown.enabled


def test_events_of_a_training_travel() -> None:
    image = {"name": "a", "scores": {"dice": 0.5}, "image": "a.tif", "truth": "b.tif", "labels": "0.npy", "box": None}
    for event in (STARTED, ended(3, 0.5), finished("done"), Noted("x"), EpochEnded(1, 2, 0.1, None, images=(image,))):
        assert from_line(to_line(Evented(event), 3)).body == Evented(event)


def test_every_field_stands_under_one_fold() -> None:
    folded = [name for names in FOLDS.values() for name in names]
    assert len(set(folded)) == len(folded)
    elsewhere = {"kind", "images", "labels", "output", "name", "start", "augmentation"}
    left_to_commands = {
        "val_images",
        "val_labels",
        "accumulation",
        "normalization",
        "momentum",
        "clip",
        "average",
        "log",
        "preview",
        "memory_limit",
    }
    strengths = {f"augmentation.{name}" for name in Strengths.model_fields}
    assert set(folded) | elsewhere | left_to_commands == set(TrainConfig.model_fields) | strengths


def test_what_is_offered_exists() -> None:
    import monai.networks.nets as nets

    assert set(choices.LOSSES) - {"auto"} == set(KNOWN_LOSSES)
    for name in choices.NETWORKS:
        assert name in KNOWN or hasattr(nets, name.removeprefix("monai.")), name


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("window", "256, 128", ("256", "128")),
        ("window", "256 x 128", ("256", "128")),
        ("classes", "background, cell", ("background", "cell")),
        ("arguments", "channels=[4, 8], stem=4", {"channels": [4, 8], "stem": 4}),
        ("arguments", '{"a": 1}', {"a": 1}),
        ("arguments", "norm=batch,", {"norm": "batch"}),
        ("arguments", "channels", "channels"),
        ("epochs", " 12 ", "12"),
    ],
)
def test_lines_become_values(name: str, text: str, value: Any) -> None:
    assert read_value(name, text) == value


def test_fields_become_a_config() -> None:
    values = {"window": ("64", "64"), "epochs": "3", "augmentation.noise": "0.5", "network": "vnet2d", "freeze": "encoder"}
    config = config_of(Choices(name="mine", values=values))
    assert (config.window, config.epochs, config.augmentation.noise, config.network) == ((64, 64), 3, 0.5, "vnet2d")
    assert config.freeze == "none", "a new model has nothing to freeze"
    started = config_of(Choices(name="mine", start="nuclei-2d", values=values))
    assert (started.start, started.freeze) == ("nuclei-2d", "encoder")
    assert "network" not in started.model_fields_set, "the model's own counts"
    assert config_of(Choices(source="sparse", name="mine")).unlabelled == 0
    folder = config_of(Choices(source="folder", images="a", labels="b", name="mine"))
    assert (folder.images, folder.labels) == ("a", "b")
    with pytest.raises(OptionsError, match="epochs"):
        config_of(Choices(name="mine", values={"epochs": "many"}))


def test_names_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path))
    assert default_name("nuclei-2d") == "nuclei-2d-mine"
    (tmp_path / "nuclei-2d-mine").mkdir()
    assert default_name("nuclei-2d") == "nuclei-2d-mine-2"


def test_bundled_models_can_be_started_from() -> None:
    assert {"nuclei-2d", "hippocampus-3d"} <= {spec.name for spec in startable(list_models())}


def test_headers_say_what_is_inside() -> None:
    settings = {"network": "residual_unet", "window": [256, 256], "batch": 8, "epoch_steps": 24, "loss": "ce_dice", "task": "classes"}
    picked = Choices(values={"epochs": "50", "augmentation.noise": "0"})
    said = {fold: words_of(fold, picked, {**settings, "classes": ["background", "cell"]}) for fold in FOLDS}
    assert said == {
        "Network": "residual_unet, window 256 x 256, batch 8",
        "Loss": "ce_dice",
        "Augment": "noise 0",
        "Steps": "50 epochs of 24 steps",
        "Labels": "classes: background, cell",
    }


def pair(name: str, shape: tuple[int, ...] = (20, 30), **more: Any) -> tuple[Image, Labels]:
    image = Image(np.random.default_rng(0).random(shape), name=name, **more)
    return image, Labels(np.zeros(shape[: 2 if more.get("rgb") else None], int), name=f"{name}_labels")


def test_pairs_go_by_name_and_place() -> None:
    (a, a_labels), (b, b_labels), (other, _) = pair("a"), pair("b"), pair("other", (7, 8))
    layers = [a, b, other, a_labels, b_labels]
    assert natural_pairs(layers) == [(b, b_labels), (a, a_labels)]
    assert len(possible_pairs(layers)) == 4
    unnamed = Labels(np.zeros((20, 30), int), name="drawn")
    assert natural_pairs([a, b, unnamed]) == [(b, unnamed)], "the image below it"
    colours, truth = pair("rgb", (20, 30, 3), rgb=True)
    assert natural_pairs([colours, truth]) == [(colours, truth)]


@pytest.fixture
def files() -> Iterator[LayerFiles]:
    made = LayerFiles()
    yield made
    made.close()


def test_layers_become_files(files: LayerFiles) -> None:
    image, labels = pair("cell: 1", scale=(0.5, 0.5), units=("um", "um"))
    labels.data[3:6, 4:9] = 300
    examples = examples_of([(image, labels), pair("cell: 1")], None)
    assert [example.name for example in examples] == ["cell_ 1", "cell_ 1 2"]
    saved = files.save(examples)
    volume, truth = read_volume(saved[0][0]), read_volume(saved[0][1])
    np.testing.assert_array_equal(np.asarray(volume.data), image.data)
    np.testing.assert_array_equal(np.asarray(truth.data), labels.data)
    assert volume.spacing["Y"] == 0.5
    assert files.save(examples) == saved, "what is there is not written again"
    labels.data[0, 0] = 7
    again = files.save(examples_of([(image, labels)], None))
    assert again[0][0] == saved[0][0] and again[0][1] != saved[0][1]


def test_axes_that_nobody_knows_are_asked_for() -> None:
    with pytest.raises(AxesError, match="Name them under Labels, Axes"):
        examples_of([pair("stack", (5, 20, 30))], None)
    assert examples_of([pair("stack", (5, 20, 30))], None, "t y x")[0].image.axes == "TYX"


def test_a_region_is_shown_where_it_lies(tmp_path: Path) -> None:
    image, labels = pair("a", scale=(2.0, 2.0))
    example = examples_of([(image, labels)], None)[0]
    np.save(tmp_path / "0.npy", np.ones((5, 30), np.uint8))
    row = {"name": "a (validation part)", "image": "/scratch/a.ome.tif", "labels": str(tmp_path / "0.npy"), "box": [[15, 20], [0, 30]]}
    shown = read_shown(row, {"a": example})
    data, meta, kind = shown.prediction
    assert (kind, data.shape, shown.image) == ("labels", (5, 30), [])
    layer = Labels(data, **meta)
    np.testing.assert_allclose(layer.data_to_world((0, 0)), (30, 0))


def test_the_worst_are_first(qtbot: Any) -> None:
    table = ResultView()
    qtbot.addWidget(table)
    rows = {"good": {"dice cell": 0.9, "iou cell": 0.1}, "bad": {"dice cell": 0.2}, "none": {"dice cell": math.nan}}
    table.show_results([{"name": name, "scores": scores} for name, scores in rows.items()], "Dice")
    assert table.names == ["bad", "good", "none"]
    assert score_of({"ap50": 0.5, "dice": 0.9}, "AP") == 0.5


def test_curves_are_painted_and_said(qtbot: Any) -> None:
    curves = Curves()
    qtbot.addWidget(curves)
    curves.set_colors("#ffffff", "#444444")
    curves.resize(280, 80)
    empty = curves.grab().toImage()
    losses = [(step / 100, 1 / (1 + step) if step % 50 else math.nan) for step in range(1000)]
    curves.show_curves(losses, [(1, 0.5), (2, 0.8)], epochs=10, measure="Dice")
    assert curves.grab().toImage() != empty
    assert curves.accessibleDescription() == "Loss 0.001; Dice 0.800, best 0.800 in epoch 2"


def test_a_model_that_finds_nothing_right_is_no_success() -> None:
    found = [view(Prospect(), Training(phase=Phase.DONE, name="m", measure="Dice", epochs=2, score=score)).message for score in (0.0, 0.4)]
    assert [message.kind for message in found if message is not None] == ["warning", "done"]
    assert found[0] is not None and "train longer" in found[0].text
