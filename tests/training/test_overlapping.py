"""Classes that overlap: read from channels, folders, polygons and sets of numbers, learnt each by itself, found though they overlap."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from scenes import config, scene

from napari_tileseg import SegmentOptions, Volume, load_model, save_segmentation, segment, train
from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.training.augment import Augmentation, cut
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.data import Example
from napari_tileseg.training.items import Item
from napari_tileseg.training.losses import LOSSES, get_loss
from napari_tileseg.training.masks import IGNORED, MaskRule, open_masks
from napari_tileseg.training.places import places_of
from napari_tileseg.training.plan import make_plan
from napari_tileseg.training.prepare import prepare_items
from napari_tileseg.training.report import inspect
from napari_tileseg.training.sampling import Sampler

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = ("band", "cell", "nucleus")


def drawn(number: int, shape: tuple[int, ...] = (48, 48)) -> tuple[NDArray[np.uint8], dict[str, NDArray[np.uint8]]]:
    """Return an image of three colours, and masks: nuclei lie in cells, a band lies across both."""
    generator = np.random.default_rng(number)
    grid = np.indices(shape)
    masks = {name: np.zeros(shape, bool) for name in CLASSES}
    for _ in range(3):
        centre = [generator.integers(side // 5, side - side // 5) for side in shape]
        far = np.sqrt(sum((axis - middle) ** 2 for axis, middle in zip(grid, centre, strict=True)))
        masks["cell"] |= far < 9
        masks["nucleus"] |= far < 5
    masks["band"] |= np.abs(grid[-2] - generator.integers(8, shape[-2] - 8)) < 5
    image = np.stack([masks[name] * 120 for name in CLASSES], axis=-1) + 40 + generator.normal(0, 6, (*shape, 3))
    return image.clip(0, 255).astype(np.uint8), {name: mask.astype(np.uint8) for name, mask in masks.items()}


def folders(root: Path, count: int = 4, *, without: tuple[str, ...] = ()) -> dict[str, str]:
    """Write ``labels/CLASS/NAME``, without the files that are named."""
    (root / "images").mkdir(parents=True)
    for number in range(count):
        image, masks = drawn(number)
        Image.fromarray(image).save(root / "images" / f"im_{number}.png")
        for name, mask in masks.items():
            (root / "labels" / name).mkdir(parents=True, exist_ok=True)
            if f"{name}/{number}" not in without:
                Image.fromarray(mask * 255).save(root / "labels" / name / f"im_{number}_mask.png")
    return {"images": str(root / "images"), "labels": str(root / "labels")}


def data(count: int = 4) -> list[tuple[Any, Any]]:
    return [(Volume(image, "YXC", name=f"im {number}"), masks) for number, (image, masks) in enumerate(map(drawn, range(count)))]


def test_a_folder_for_each_class_is_recognised_and_said(tmp_path: Path) -> None:
    report = inspect(TrainConfig(**folders(tmp_path)))
    assert (report.task, report.classes, report.values) == ("overlapping", CLASSES, ())
    assert len(report.train) == 3
    said = next(line for line in report.lines if line.startswith("Classes that may overlap: band "))
    several = sum((sum(mask.astype(int) for mask in drawn(number)[1].values()) > 1).sum() for number in range(4)) / (4 * 48 * 48)
    assert said.endswith(f"{100 * several:.3g} % belong to several.")
    spec = make_plan(TrainConfig(), report, "m").spec
    assert (spec.output, spec.classes, spec.arguments["out_channels"]) == ("sigmoid", list(CLASSES), 3)


def test_a_mask_that_nobody_drew_is_unknown_and_said(tmp_path: Path) -> None:
    places = folders(tmp_path, without=("nucleus/1",))
    report = inspect(TrainConfig(**places))
    assert any('1 of 4 images have no labels of "nucleus"' in warning for warning in report.warnings)
    item = next(fact.item for fact in report.facts if fact.item.name == "im_1")
    image = Volume(drawn(1)[0], "YXC")
    assert report.rule is not None
    masks = np.asarray(open_masks(item, image, report.rule).data)
    assert (masks[2] == IGNORED).all()
    assert np.array_equal(masks[:2], [drawn(1)[1]["band"], drawn(1)[1]["cell"]])


def test_folders_of_cases_are_no_classes(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        for case in ("a", "b"):
            (tmp_path / kind / case).mkdir(parents=True)
            image, labels = scene(ord(case))
            Image.fromarray(image if kind == "images" else labels).save(tmp_path / kind / case / "x.png")
    places = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "labels")}
    assert inspect(TrainConfig(**places, val_share=0)).task == "classes"


def channels(path: Path, masks: dict[str, NDArray[np.uint8]]) -> Any:
    """Write masks as one file, or return them as an array, as the path's suffix says."""
    stacked = np.stack(list(masks.values()))
    if path.suffix == ".tif":
        tifffile.imwrite(path, stacked, metadata={"axes": "CYX", "Channel": {"Name": list(masks)}}, ome=True)
    elif path.suffix == ".png":
        Image.fromarray(np.moveaxis(stacked, 0, -1) * 255).save(path)
    elif path.suffix == ".nii":
        nibabel.save(nibabel.Nifti1Image(stacked[:, None].transpose(3, 2, 1, 0), np.eye(4)), path)
    else:
        return stacked
    return path


@pytest.mark.parametrize("suffix", [".ome.tif", ".png", ".array"])
def test_channels_are_masks(tmp_path: Path, suffix: str) -> None:
    image, masks = drawn(0)
    labels = channels(tmp_path / f"masks{suffix}", masks)
    found = open_masks(Item("a", image, labels), Volume(image, "YXC"), MaskRule())
    assert (found.axes, found.channel_names) == ("CYX", CLASSES if suffix == ".ome.tif" else ())
    assert np.array_equal(found.data, np.stack(list(masks.values())))


def test_named_channels_are_recognised_but_colours_are_not(tmp_path: Path) -> None:
    pairs = [(Volume(drawn(n)[0], "YXC", name=str(n)), channels(tmp_path / f"{n}.ome.tif", drawn(n)[1])) for n in range(3)]
    assert inspect(TrainConfig(), pairs).classes == CLASSES
    pairs = [(Volume(drawn(n)[0], "YXC", name=str(n)), channels(tmp_path / f"{n}.png", drawn(n)[1])) for n in range(3)]
    with pytest.raises(InputError, match="say that classes overlap"):
        inspect(TrainConfig(), pairs)
    assert inspect(TrainConfig(task="overlapping"), pairs).classes == ("class 1", "class 2", "class 3")
    assert inspect(TrainConfig(task="overlapping", classes=CLASSES), pairs).classes == CLASSES


def test_regions_are_sets_of_numbers() -> None:
    pairs = [(image, labels) for image, labels in (scene(number) for number in range(3))]
    chosen = {"ball": (1, 2), "bright": (2,)}
    report = inspect(TrainConfig(regions=chosen), pairs)
    assert report.classes == ("ball", "bright")
    assert report.rule is not None
    masks = np.asarray(open_masks(report.train[0], Volume(report.train[0].image, "YX"), report.rule).data)
    assert np.array_equal(masks, [report.train[0].labels > 0, report.train[0].labels == 2])
    with pytest.raises(OptionsError, match="egions are classes that may overlap"):
        TrainConfig.parse(regions=chosen, task="classes")
    with pytest.raises(OptionsError, match="region has no number"):
        TrainConfig.parse(regions={"ball": ()})


def square(kind: str, low: int, high: int) -> dict[str, Any]:
    ring = [[low, low], [high, low], [high, high], [low, high], [low, low]]
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation", "classification": {"name": kind}},
    }


def test_polygons_lie_beside_each_other_not_over(tmp_path: Path) -> None:
    image = Volume(np.zeros((40, 44), np.uint8), "YX")
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [square("cell", 2, 20), square("nucleus", 6, 12)]}))
    masks = open_masks(Item("a", image, path), image, MaskRule())
    assert masks.channel_names == ("cell", "nucleus")
    assert [int(np.asarray(mask).sum()) for mask in np.asarray(masks.data)] == [18 * 18, 6 * 6]
    assert masks.shape == (2, 40, 44)
    coco = {
        "images": [{"id": 1, "width": 44, "height": 40, "file_name": "a.png"}],
        "categories": [{"id": 7, "name": "cell"}, {"id": 9, "name": "nucleus"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 9, "segmentation": [[6, 6, 12, 6, 12, 12, 6, 12]]},
            {"id": 2, "image_id": 1, "category_id": 7, "segmentation": [[2, 2, 20, 2, 20, 20, 2, 20]]},
        ],
    }
    (tmp_path / "a.coco.json").write_text(json.dumps(coco))
    same = open_masks(Item("a", image, tmp_path / "a.coco.json"), image, MaskRule())
    assert same.channel_names == masks.channel_names
    assert np.array_equal(same.data, masks.data)
    path.write_text(json.dumps({"type": "FeatureCollection", "features": [square("cell", 2, 200)]}))
    with pytest.raises(InputError, match="reach 200 pixels far"):
        open_masks(Item("a", image, path), image, MaskRule())


@pytest.mark.parametrize(
    ("changed", "fields", "message"),
    [
        (lambda masks: np.stack(list(masks.values()))[:, :40], {"task": "overlapping"}, r"shape \(40, 48\), the image \(48, 48\)"),
        (lambda masks: masks["cell"], {"task": "overlapping"}, "no mask for each class"),
        (lambda masks: {**masks, "cell": masks["cell"][:30]}, {}, 'of the class "cell", the labels have the shape'),
        (lambda masks: np.stack(list(masks.values())) * 0, {"task": "overlapping"}, "Nothing is inside of any mask"),
        (lambda masks: np.stack(list(masks.values())) * 0.5, {"task": "overlapping"}, "with fractions"),
        (lambda masks: masks, {"classes": ("background", *CLASSES)}, "The labels hold no mask of background"),
    ],
    ids=["shape", "no channels", "one mask", "empty", "fractions", "background"],
)
def test_what_does_not_fit_is_said(changed: Any, fields: dict[str, Any], message: str) -> None:
    pairs = [(image, changed(masks)) for image, masks in data(3)]
    with pytest.raises((InputError, OptionsError), match=message):
        inspect(TrainConfig(**fields), pairs)


def test_a_crop_holds_every_mask_where_it_lies() -> None:
    image, masks = drawn(3)
    labels = np.stack(list(masks.values())).astype(np.int8)
    example = Example("a", "", np.moveaxis(image, -1, 0).astype(np.float16), labels, np.zeros((0, 48, 48), np.float16), outside=IGNORED)
    turned = np.array([[0.0, 1.0], [-1.0, 0.0]])
    crop = cut(example, turned, np.array([23.5, 23.5]), (48, 48))
    assert np.array_equal(crop.labels.numpy(), np.rot90(labels, 1, (1, 2)))
    beyond = cut(example, np.eye(2), np.array([0.0, 23.5]), (48, 48)).labels
    assert (beyond[:, :20] == IGNORED).all()


def test_each_class_has_its_share_of_the_crops(tmp_path: Path) -> None:
    labels = np.zeros((2, 64, 64), np.int8)
    labels[0, :, :32] = 1
    labels[1, 60:62, 60:62] = 1  # a thousandth of the pixels
    assert {key: len(value) for key, value in places_of(labels, instances=False, sparse=False, masks=True).items()} == {1: 2048, 2: 4}
    image = np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)
    pairs = [(Volume(image, "YX", name=str(number)), labels) for number in range(2)]
    report = inspect(TrainConfig(task="overlapping"), pairs)
    plan = make_plan(TrainConfig(window=(16, 16)), report, "m")
    examples = prepare_items(report.train, report, plan.spec, folder=tmp_path)
    sampler = Sampler(examples, Augmentation(size=(16, 16)), channels=1, batch=60, centred=1.0)
    share = float((sampler.batch(0).labels[:, 1].flatten(1) > 0).any(1).float().mean())
    assert 0.35 < share < 0.65


@pytest.mark.parametrize("name", [name for name in LOSSES if "hausdorff" not in name])
def test_every_loss_takes_masks_with_a_part_unknown(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand((2, 3, 6, 6), generator=generator) > 0.5).long()
    logits = torch.randn((2, 3, 6, 6), generator=generator)
    loss = get_loss(name, ignore_index=IGNORED, multi_label=True)
    unknown = target.clone()
    unknown[:, 1, :3] = IGNORED
    other = logits.clone()
    other[:, 1, :3] += 3
    assert torch.allclose(loss(logits, unknown), loss(other, unknown)), "what nobody knows of one class counts for nothing"
    moved = logits.clone()
    moved[:, 0, :3] += 3
    assert not torch.allclose(loss(logits, unknown), loss(moved, unknown)), "it counts for the others all the same"


def test_the_sum_over_masks_is_that_of_the_masks_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    target = (torch.rand((2, 3, 8, 8), generator=generator) > 0.5).long()
    logits = torch.randn((2, 3, 8, 8), generator=generator)
    for name in ("ce", "dice", "focal", "tversky", "lovasz_sigmoid", "lovasz_hinge"):
        loss = get_loss(name, multi_label=True)
        alone = torch.stack([loss(logits[:, k : k + 1], target[:, k : k + 1]) for k in range(3)]).mean()
        assert torch.allclose(loss(logits, target), alone, rtol=1e-5), name


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["ce_dice", pytest.param("lovasz_sigmoid", marks=pytest.mark.slow)])
def test_each_class_is_found_though_they_overlap(tmp_path: Path, loss: str) -> None:
    fields = {"epochs": 3, "epoch_steps": 25, "learning_rate": 1e-2, "average": 0.9, "loss": loss}
    spec = train(config(tmp_path / "m", **fields), data(6))
    assert {name: spec.training["scores"][f"dice {name}"] > 0.85 for name in CLASSES} == dict.fromkeys(CLASSES, True)
    image, masks = drawn(20)
    found = segment(Volume(image, "YXC"), load_model(str(tmp_path / "m"), device="cpu"), options=SegmentOptions(device="cpu"))
    labels = np.asarray(found.labels)
    assert labels.shape == (3, 48, 48)
    assert ((labels > 0).sum(0) > 1).any()
    for name, mask in zip(CLASSES, labels > 0, strict=True):
        assert 2 * (mask & (masks[name] > 0)).sum() / (mask.sum() + masks[name].sum()) > 0.8, name


def test_what_segment_saves_can_be_learnt_from_again(tmp_path: Path) -> None:
    train(config(tmp_path / "m", epochs=1), data(3))
    found = segment(data(1)[0][0], load_model(str(tmp_path / "m"), device="cpu"), options=SegmentOptions(device="cpu", threshold=0.3))
    path = save_segmentation(found, tmp_path / "corrected.ome.tif")
    report = inspect(TrainConfig(val_share=0), [(data(1)[0][0], path)])
    assert (report.task, report.classes) == ("overlapping", CLASSES)


def test_one_image_is_divided_and_volumes_are_learnt(tmp_path: Path) -> None:
    image, masks = drawn(2, (12, 40, 40))
    volume = Volume(image, "ZYXC", name="stack")
    spec = train(config(tmp_path / "m", epochs=1, epoch_steps=2), [(volume, masks)])
    assert (spec.axes, spec.output) == ("CZYX", "sigmoid")
    assert "dice nucleus" in spec.training["scores"]


def test_validation_leaves_out_what_nobody_knows(tmp_path: Path) -> None:
    events: list[Any] = []
    pairs = data(3)
    half = {**pairs[2][1], "cell": np.full((48, 48), 9, np.uint8)}
    train(config(tmp_path / "m", epochs=1, unlabelled=9, val_share=0.34), [(image, half) for image, _ in pairs], on_event=events.append)
    assert not any("dice cell" in getattr(event, "scores", {}) for event in events)
    assert any("dice band" in getattr(event, "scores", {}) for event in events)


def test_a_discriminator_and_a_log_go_with_masks(tmp_path: Path) -> None:
    events: list[Any] = []
    settings = config(tmp_path / "m", epochs=2, adversarial=0.1, log=str(tmp_path / "log"), **folders(tmp_path / "data"))
    train(settings, on_event=events.append)
    losses = [event.losses for event in events if getattr(event, "losses", {})]
    assert losses[-1].keys() == {"segmentation", "adversarial", "discriminator"}
    assert losses[-1]["adversarial"] > 0
    assert list((tmp_path / "log" / "m" / "pictures").iterdir())


def test_what_is_shown_of_a_validation_is_one_image_of_labels(tmp_path: Path) -> None:
    events: list[Any] = []
    views = tmp_path / "views"
    views.mkdir()
    train(config(tmp_path / "m", epochs=1, **folders(tmp_path / "data")), on_event=events.append, views=views)
    shown = next(event for event in events if getattr(event, "images", ())).images[0]
    truth, labels = np.load(shown["truth"]), np.load(shown["labels"])
    masks = drawn(int(shown["name"][-1]))[1]
    assert truth.shape == labels.shape == (48, 48)
    assert np.array_equal(truth == 3, masks["nucleus"] > 0), "the last of its classes"
    assert np.array_equal(truth > 0, sum(mask.astype(int) for mask in masks.values()) > 0)
