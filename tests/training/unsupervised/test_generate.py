"""New images out of trained models: the same for the same seed, marked as synthetic, and never in the place of another file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_tileseg import cli, read_volume
from napari_tileseg.errors import InputError, ModelError, OptionsError, OutputError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.pipeline import segment
from napari_tileseg.training.unsupervised import UnsupervisedConfig, train_unsupervised
from napari_tileseg.training.unsupervised.generate import generate, save_samples
from napari_tileseg.training.unsupervised.tiles import one_hot
from napari_tileseg.volume import Volume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_tileseg.models.spec import ModelSpec

    Train = Callable[..., ModelSpec]


@pytest.fixture
def masks(make_volumes: Any) -> list[Volume]:
    """Return masks of the four textures: what is bright, and what is very bright."""
    return [Volume((volume.data > 150).astype(np.uint8) + (volume.data > 170), "YX", name="mask") for volume in make_volumes()]


@pytest.mark.parametrize("network", ["vae", "gan", "dcgan"])
def test_the_same_seed_gives_the_same_images(train: Train, tmp_path: Path, network: str) -> None:
    train(network=network, steps=1)
    model = str(tmp_path / "model")
    samples = generate(model, 5, seed=3)
    assert samples.images.shape == (5, 1, 28, 28)
    assert samples.images.dtype == np.float32
    assert 0 <= samples.images.min() < samples.images.max() <= 1
    assert samples.labels is None
    np.testing.assert_allclose(generate(model, 2, seed=3).images, samples.images[:2], atol=1e-6)
    np.testing.assert_array_equal(generate(model, 5, seed=3).images, samples.images)
    assert np.abs(generate(model, 5, seed=4).images - samples.images).max() > 1e-3
    assert np.abs(samples.images[0] - samples.images[1]).max() > 1e-3


@pytest.mark.parametrize("network", ["gan", "dcgan"])
def test_pairs_have_masks(train: Train, tmp_path: Path, masks: list[Volume], network: str, make_texture: Any) -> None:
    spec = train(masks=masks, network=network, classes=("ground", "bright", "very bright"), steps=2)
    assert spec.output == "softmax"
    assert spec.classes == ["ground", "bright", "very bright"]
    samples = generate(str(tmp_path / "model"), 4)
    assert samples.labels is not None
    assert samples.labels.shape == (4, 28, 28)
    assert samples.labels.max() <= 2
    paths = save_samples(samples, tmp_path / "out")
    assert [path.parent.name for path in paths] == ["images"] * 4
    labels = read_volume(tmp_path / "out" / "labels" / paths[0].name)
    np.testing.assert_array_equal(labels.data, samples.labels[0])
    assert labels.metadata["provenance"]["synthetic"] is True
    found = segment(make_texture(5), str(tmp_path / "model"), axes="YX", options=SegmentOptions(device="cpu"))
    assert found.labels.shape == (96, 96)
    assert found.labels.max() <= 2


def test_files_say_that_they_are_synthetic_and_replace_none(train: Train, tmp_path: Path) -> None:
    train(steps=1)
    samples = generate(str(tmp_path / "model"), 2, seed=7)
    paths = save_samples(samples, tmp_path / "out")
    assert [path.name for path in paths] == ["synthetic_normal_seed7_00000.png", "synthetic_normal_seed7_00001.png"]
    note = json.loads(Image.open(paths[0]).text["Description"])
    assert note["synthetic"] is True
    assert "nothing real" in note["description"]
    assert (note["model"], note["seed"], note["number"]) == ("normal", 7, 0)
    np.testing.assert_allclose(read_volume(paths[1]).data / 255, samples.images[1, 0], atol=0.5 / 255 + 1e-6)
    paths[0].unlink()
    with pytest.raises(OutputError, match="is there already"):
        save_samples(samples, tmp_path / "out")
    assert not paths[0].exists(), "none is written if one cannot be"
    (path, _) = save_samples(samples, tmp_path / "out", format="tif", first=10)
    with tifffile.TiffFile(path) as file:
        assert json.loads(file.pages[0].description)["number"] == 10
    volume = read_volume(path)
    assert volume.axes == "YX"
    np.testing.assert_array_equal(volume.data, samples.images[0, 0])


def test_what_cannot_be_made_is_said(train: Train, tmp_path: Path, make_volumes: Any, masks: list[Volume]) -> None:
    train(network="conv_autoencoder", steps=1)
    with pytest.raises(ModelError, match="makes no images"):
        generate(str(tmp_path / "model"), 1)
    with pytest.raises(ModelError, match="makes no images"):
        generate("nuclei-2d", 1)
    for count, seed in ((0, 0), (1, -1), (10**9, 0)):
        with pytest.raises(OptionsError, match=r"not accepted|cannot be made"):
            generate(str(tmp_path / "model"), count, seed=seed)
    train([Volume(np.stack([volume.data] * 2), "CYX", name=volume.name) for volume in make_volumes()], steps=1)
    samples = generate(str(tmp_path / "model"), 1)
    with pytest.raises(OptionsError, match="Use the format tif"):
        save_samples(samples, tmp_path)
    with pytest.raises(OptionsError, match="png or tif"):
        save_samples(samples, tmp_path, format="jpg")
    (path,) = save_samples(samples, tmp_path, format="tif")
    assert read_volume(path).shape == (2, 28, 28)
    with pytest.raises(OptionsError, match="Masks are learnt by"):
        train(masks=masks)
    for wrong in (3, -1):
        with pytest.raises(InputError, match=f"holds the class {wrong}; there are 3 classes, 0 to 2"):
            one_hot(np.full((2, 2), wrong, np.float32), 3, "a")


def test_the_command(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(steps=1)
    arguments = ["generate", str(tmp_path / "model"), "-n", "3", "--seed", "5", "-o", str(tmp_path / "out"), "--device", "cpu"]
    for status, told in ((0, "3 synthetic images"), (1, "is there already")):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == status
        out, err = capsys.readouterr()
        assert told in (err if status else out)
    assert len(list((tmp_path / "out").iterdir())) == 3
    with pytest.raises(SystemExit) as ended:
        cli.main([*arguments[:-4], "--json", "-o", str(tmp_path / "more")])
    assert not ended.value.code
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["synthetic"] for record in records] == [True] * 3
    with pytest.raises(SystemExit) as ended:
        cli.main(["generate", "no-such-model", "-o", str(tmp_path / "out")])
    assert ended.value.code == 2


def test_pairs_are_read_from_folders(tmp_path: Path, make_volumes: Any) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number, volume in enumerate(make_volumes(2)):
        Image.fromarray(volume.data).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray((volume.data > 150).astype(np.uint8) * 255).save(tmp_path / "masks" / f"{number}_mask.png")
    options = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "masks"), "output": str(tmp_path / "model")}
    config = UnsupervisedConfig.parse(**options, network="gan", steps=2, batch=4, device="cpu")
    assert train_unsupervised(config).architecture == "paired_generator"
    (tmp_path / "masks" / "1_mask.png").unlink()
    with pytest.raises(InputError, match=r'1 images? .*no mask in .*"1\.png"'):
        train_unsupervised(config, overwrite=True)
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "masks" / "1_mask.png")
    with pytest.raises(InputError, match="They must be equal"):
        train_unsupervised(config, overwrite=True)


def test_training_from_the_command_line(tmp_path: Path, make_volumes: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    for number, volume in enumerate(make_volumes(2)):
        Image.fromarray(volume.data).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "train.toml").write_text('images = "images"\nnetwork = "vae"\nbatch = 4\nsteps = 2\ndevice = "cpu"\n')

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            cli.main(["train", *arguments])
        return (int(ended.value.code or 0), *capsys.readouterr())

    config = str(tmp_path / "train.toml")
    status, out, _ = run(config, "-o", str(tmp_path / "mine"))
    assert status == 0
    assert "2 images, 1 of them held out" in out
    assert 'The model is in "' in out
    assert json.loads((tmp_path / "mine" / "model.json").read_text())["name"] == "mine"
    assert "at" in run(config, "-o", str(tmp_path / "mine"))[2], "it is there already"
    options = ["--images", str(tmp_path / "images"), "--arch", "gan", "--batch", "4", "--device", "cpu", "--seed", "2"]
    status, out, _ = run(*options, "--window", "20,16", "--set", "steps=2", "-o", str(tmp_path / "other"), "--json")
    assert status == 0
    records = [json.loads(line) for line in out.splitlines()]
    assert [record["event"] for record in records] == ["training started", *["step", "checkpoint"] * 2, "training ended"]
    assert json.loads((tmp_path / "other" / "model.json").read_text())["window"] == [20, 16]
    status, out, _ = run(*options, "--dry-run")
    assert "tile = [28, 28]" in out
    assert out.startswith("1 image to learn from, 1 held out to set the threshold.")
    status, _, err = run(*options, "--epochs", "3")
    assert (status, err.count("\n")) == (2, 1)
    assert "steps=2000" in err
