"""From images to a model: it finds what was pasted, it can be stopped and goes on, and it says what it cannot do."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors.torch import load_file
from scipy import ndimage
from scipy.stats import rankdata

from napari_tileseg.errors import Cancelled, InputError, OptionsError, OutputError, RunError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.predictor import load_model
from napari_tileseg.models.registry import list_models
from napari_tileseg.pipeline import segment
from napari_tileseg.training.unsupervised import UNSUPERVISED, UnsupervisedConfig, train_unsupervised
from napari_tileseg.training.unsupervised.events import CheckpointSaved, Finished, Learned, Samples, Started
from napari_tileseg.training.unsupervised.loop import learn
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_tileseg.models.spec import ModelSpec

    Train = Callable[..., ModelSpec]


def auroc(scores: np.ndarray, inside: np.ndarray) -> float:
    ranks = rankdata(scores.ravel())
    count = int(inside.sum())
    return float((ranks[inside.ravel()].sum() - count * (count + 1) / 2) / (count * (inside.size - count)))


@pytest.fixture
def pasted(make_texture: Callable[..., np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return a texture with a square whose grey values stand in random order, and where that is."""
    image = make_texture(99)
    inside = np.zeros(image.shape, bool)
    inside[30:54, 40:64] = True
    image[inside] = np.random.default_rng(0).permutation(image[inside])
    return image, inside


@pytest.mark.parametrize(
    "options",
    [{"network": "vae"}, {"network": "vae", "residual": "ssim"}, {"network": "autoencoder"}, {"network": "conv_autoencoder", "steps": 400}],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_what_was_pasted_is_stranger_than_the_rest(
    train: Train, tmp_path: Path, pasted: tuple[np.ndarray, np.ndarray], options: dict[str, Any]
) -> None:
    spec = train(**{"steps": 250, "batch": 32, "learning_rate": 3e-3, "normalization": "range", "seed": 1, **options})
    image, inside = pasted
    result = segment(image, str(tmp_path / "model"), axes="YX", options=SegmentOptions(scores=True, device="cpu"))
    assert result.scores is not None
    smooth = ndimage.median_filter(result.scores[0], 5, mode="reflect")
    assert auroc(smooth, inside) > 0.9
    found = smooth >= spec.decoder_parameters["threshold"]
    assert 0 < found[~inside].mean() < 0.15  # about the one per cent that the threshold leaves, and the rim of the square
    assert 2 * (result.labels[inside] > 0).sum() / ((result.labels > 0).sum() + inside.sum()) > 0.5


@pytest.mark.parametrize("network", sorted(UNSUPERVISED))
def test_a_model_is_a_model_like_any_other(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: str, make_texture: Any
) -> None:
    monkeypatch.setenv("TILESEG_MODELS", str(tmp_path))
    events: list[Any] = []
    spec = train(network=network, name="mine", output="", on_event=events.append, steps=2)
    assert spec in list_models()
    assert spec.output == "anomaly"
    assert spec.decoder_parameters["threshold"] > 0
    assert spec.training["options"]["network"] == network
    assert str(tmp_path) not in (tmp_path / "mine" / "model.json").read_text()
    assert "held-out images" in (tmp_path / "mine" / "CARD.md").read_text()
    assert isinstance(events[0], Started)
    assert {event.stage for event in events if isinstance(event, Learned)} == {name for name, _ in events[0].stages}
    assert all(event.images.shape[1:] == (1, 28, 28) and abs(event.images).max() <= 1 for event in events if isinstance(event, Samples))
    assert isinstance(events[-1], Finished)
    assert not list(tmp_path.glob(".*"))
    one, again = (segment(make_texture(7), "mine", axes="YX", options=SegmentOptions(scores=True, device="cpu")) for _ in range(2))
    np.testing.assert_array_equal(one.scores, again.scores)
    assert one.labels.max() <= 1


def test_a_package_gives_the_map_of_the_network_that_was_trained(train: Train, tmp_path: Path) -> None:
    train(network="dcgan", steps=2, tile=(16, 20))
    tiles = torch.rand(5, 1, 16, 20) * 2 - 1
    one, again = (load_model(str(tmp_path / "model"), device="cpu") for _ in range(2))
    assert torch.equal(one(tiles), again(tiles))
    assert load_file(tmp_path / "model" / "weights.safetensors").keys() == one.module.state_dict().keys()


@pytest.mark.parametrize("network", ["vae", "dcgan"])
def test_a_stopped_training_goes_on_as_if_nothing_had_been(train: Train, tmp_path: Path, network: str, make_volumes: Any) -> None:
    expected = train(network=network, steps=4).weights_sha256
    if network == "vae":
        assert train(network=network, steps=4).weights_sha256 == expected, "the same seed gives the same weights"
        assert train(network=network, steps=4, seed=1).weights_sha256 != expected
    for stop_after in (2, 3) if network == "vae" else (6,):  # in the second stage
        config = UnsupervisedConfig(output=str(tmp_path / "other"), network=network, steps=4, batch=4, report_every=2, device="cpu")
        asked = 0

        def stop(after: int = stop_after) -> bool:
            nonlocal asked
            asked += 1
            return asked == after

        events: list[Any] = []
        with pytest.raises(Cancelled, match="Start it again to go on"):
            train_unsupervised(config, volumes=make_volumes(), cancel=stop, on_event=events.append, overwrite=True)
        assert isinstance(events[-1], CheckpointSaved)
        assert events[-1].path.name == ".other.training.pt"
        with pytest.raises(OutputError, match="other images or with other options"):
            train_unsupervised(config.model_copy(update={"batch": 5}), volumes=make_volumes(), overwrite=True)
        again: list[Any] = []
        assert train_unsupervised(config, volumes=make_volumes(), on_event=again.append, overwrite=True).weights_sha256 == expected
        assert len([event for event in again if isinstance(event, Learned)]) <= len(events)
        assert not events[-1].path.exists()


def test_a_damaged_checkpoint_is_no_reason_to_begin_anew_unasked(tmp_path: Path, make_volumes: Any) -> None:
    config = UnsupervisedConfig(output=str(tmp_path / "model"), network="vae", steps=2, batch=4, device="cpu")
    (tmp_path / ".model.training.pt").write_bytes(b"nonsense")
    with pytest.raises(OutputError, match="Delete it to start anew"):
        train_unsupervised(config, volumes=make_volumes())
    train_unsupervised(config, volumes=make_volumes(), resume=False)
    with pytest.raises(OutputError, match="a model at"):
        train_unsupervised(config, volumes=make_volumes())


def test_a_loss_that_is_no_number_ends_the_training(make_tiles: Any) -> None:
    class Broken:
        name = "broken"

        def learn(self, batch: torch.Tensor) -> dict[str, float]:
            return {"loss": float("nan")}

    events = learn(torch.nn.Linear(1, 1), Broken(), make_tiles(2), UnsupervisedConfig(), steps=3)  # type: ignore[arg-type]
    with pytest.raises(RunError, match="no number any more at step 1 of the broken"):
        list(events)


def test_a_folder_is_read_and_what_cannot_be_used_is_left_out_with_its_reason(tmp_path: Path, make_texture: Any) -> None:
    folder = tmp_path / "images"
    (folder / "more").mkdir(parents=True)
    for number in range(3):
        Image.fromarray(make_texture(number)).save(folder / f"a{number}.png")
    tifffile.imwrite(folder / "more" / "a0.tif", make_texture(3))
    Image.fromarray(make_texture(4, 20)).save(folder / "small.png")
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("not an image")
    events: list[Any] = []
    config = UnsupervisedConfig(images=str(folder), output=str(tmp_path / "model"), network="vae", steps=2, batch=4, device="cpu")
    train_unsupervised(config, on_event=events.append)
    assert events[0].images == 4
    assert len(events[0].held_out) == 1
    left_out = dict(events[0].left_out)
    assert left_out.keys() == {"small", "broken"}
    assert "20 x 20 pixels, a tile 28 x 28" in left_out["small"]


def test_one_image_gives_its_lowest_rows_to_the_threshold(train: Train, make_volumes: Any) -> None:
    events: list[Any] = []
    train(make_volumes(1), on_event=events.append)
    assert events[0].held_out == ("image 0",)
    with pytest.raises(InputError, match="too few to learn from some"):
        train(make_volumes(1, side=40))


def test_colours_stacks_and_wide_numbers(train: Train, make_texture: Any) -> None:
    colour = [
        Volume(np.stack([make_texture(seed), make_texture(seed + 9), make_texture(seed)], -1), "YXC", name=str(seed)) for seed in range(2)
    ]
    spec = train(colour, network="conv_autoencoder", tile=28)
    assert spec.channels == ["red", "green", "blue"]
    assert spec.grey == "refuse"
    events: list[Any] = []
    spec = train([*colour, Volume(make_texture(5), "YX", name="grey")], network="conv_autoencoder", tile=28, on_event=events.append)
    assert (spec.channels, spec.grey, events[0].images) == (["red", "green", "blue"], "repeat", 3)
    stack = Volume(np.stack([make_texture(seed) for seed in range(6)]).reshape(2, 3, 96, 96).astype(np.uint16) * 100, "TZYX", name="stack")
    spec = train([stack], normalization="range")
    assert spec.normalization.high == stack.data.max()


@pytest.mark.parametrize(
    ("given", "options", "error", "sentence"),
    [
        ([], {}, InputError, "no images to learn from"),
        ([np.zeros((20, 90), np.uint8)], {}, InputError, "20 x 90 pixels, a tile 28 x 28"),
        ([np.zeros((40, 40), np.complex64)], {}, InputError, "complex64"),
        ([np.zeros((40, 40)), np.zeros((3, 40, 40))], {}, InputError, 'has 3 channels, "image 0" has 1 channel'),
    ],
)
def test_images_that_cannot_be_learnt_from(
    tmp_path: Path, given: list[np.ndarray], options: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    volumes = [Volume(array, "CYX"[-array.ndim :], name=f"image {number}") for number, array in enumerate(given)]
    config = UnsupervisedConfig(output=str(tmp_path / "model"), steps=1, batch=2, device="cpu", **options)
    with pytest.raises(error, match=sentence):
        train_unsupervised(config, volumes=volumes)
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_learnt_from(tmp_path: Path) -> None:
    for images, sentence in (("", "No images were given"), (tmp_path / "none", "no folder"), (tmp_path, "no image of a known format")):
        with pytest.raises(InputError, match=sentence):
            train_unsupervised(UnsupervisedConfig(images=str(images), output=str(tmp_path / "model")))
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(InputError, match="None of the images can be opened"):
        train_unsupervised(UnsupervisedConfig(images=str(tmp_path), output=str(tmp_path / "model")))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"network": "unet2015"}, "network = 'unet2015'"),
        ({"tile": 30}, "use 40 x 40"),
        ({"network": "dcgan", "tile": (28, 30)}, "use 28 x 32"),
        ({"network": "dcgan", "tile": 12}, "16 pixels or more"),
        ({"median": 4}, "odd number"),
        ({"residual": "kl"}, "vae only"),
        ({"network": "gan", "residual": "ssim"}, "autoencoders only"),
        ({"labels": "masks"}, "choose one of these, or give no masks"),
        ({"network": "vae", "arguments": {"size": (3, 3)}}, "may not hold size"),
        ({"classes": ["one"]}, "the background and at least one more"),
        ({"percentile": 100}, "percentile = 100"),
        ({"name": "a/b"}, "name = 'a/b'"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_options_that_are_refused(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(OptionsError, match=sentence) as caught:
        UnsupervisedConfig.parse(**values)
    assert len(str(caught.value).splitlines()) == 1


def test_the_configuration_survives_json() -> None:
    config = UnsupervisedConfig(network="dcgan", tile=32, arguments={"noise": 8}, classes=("ground", "cell"))
    assert UnsupervisedConfig.model_validate(json.loads(config.model_dump_json())) == config


def test_the_example_of_the_documentation_is_a_configuration() -> None:
    page = (Path(__file__).parents[3] / "docs" / "anomaly.md").read_text(encoding="utf-8")
    example = tomllib.loads(page.partition("```toml\n")[2].partition("```")[0])
    config = UnsupervisedConfig.parse(**example)
    usual = UnsupervisedConfig()
    for field in ("tile", "normalization", "steps", "batch", "held_out", "percentile", "median", "min_size", "residual", "seed"):
        assert getattr(config, field) == getattr(usual, field), f"{field} is not what it is by default"
