"""What is found in folders before anything is learnt: what does not fit, what is divided how, and what is planned from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from scenes import folders, scene

from napari_tileseg import Volume
from napari_tileseg.errors import InputError, OptionsError
from napari_tileseg.training.config import TrainConfig
from napari_tileseg.training.plan import make_plan
from napari_tileseg.training.report import inspect

if TYPE_CHECKING:
    from numpy.typing import NDArray


def look(data: list[tuple[Any, Any]], **fields: Any) -> Any:
    return inspect(TrainConfig(**fields), data)


def lots(count: int = 5, **kind: Any) -> list[tuple[Any, Any]]:
    return [scene(number, **kind) for number in range(count)]


def test_folders_are_counted_and_files_without_a_partner_named(tmp_path: Path) -> None:
    places = folders(tmp_path, 4)
    (tmp_path / "labels" / "scene_2.png").unlink()
    Image.fromarray(scene(0)[0]).save(tmp_path / "labels" / "other.png")
    report = inspect(TrainConfig(**places))
    assert len(report.train) == 2
    assert len(report.val) == 1
    assert any("scene_2.png has no labels, other.png has no image" in warning for warning in report.warnings)
    assert report.lines[0] == "2 images to learn from, 1 to validate on."


def test_the_balance_of_classes_is_that_of_the_pixels() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[:5] = 1
    report = look([(scene(0, (20, 20))[0], labels), (scene(1, (20, 20))[0], labels)], classes=("ground", "cell"))
    assert "Classes: ground 75 %, cell 25 % of the labelled pixels." in report.lines


LEFT_OUT: dict[str, tuple[NDArray[Any], str]] = {
    "shape": (np.ones((40, 48), np.uint8), r"the labels have the shape \(40, 48\), the image \(48, 48\)"),
    "transposed": (np.ones((30, 48, 48), np.uint8), "AxesError|the labels have|has"),
    "fractions": (np.full((48, 48), 0.3), "float64 with fractions"),
    "complex": (np.ones((48, 48), complex), "complex128"),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_labels_that_do_not_fit_are_left_out_and_named(case: str) -> None:
    labels, reason = LEFT_OUT[case]
    data = [*lots(3), (Volume(scene(3)[0], "YX", name="odd"), labels)]
    report = look(data)
    assert len(report.facts) == 3
    told = [warning for warning in report.warnings if '"odd" is left out' in warning]
    assert len(told) == 1
    assert __import__("re").search(reason, told[0])


def test_labels_with_another_pixel_size_are_left_out(tmp_path: Path) -> None:
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number, size in enumerate((1.0, 1.0, 2.0)):
        image, labels = scene(number, (10, 12, 14))
        for kind, array, step in (("images", image, 1.0), ("labels", labels, size)):
            made = nibabel.Nifti1Image(array.T, np.diag([step, step, step, 1.0]))
            made.header.set_xyzt_units("mm")
            nibabel.save(made, tmp_path / kind / f"brain_{number}.nii.gz")
    report = inspect(TrainConfig(images=str(tmp_path / "images"), labels=str(tmp_path / "labels")))
    assert [fact.item.name for fact in report.facts] == ["brain_0", "brain_1"]
    assert any("pixel size" in warning and "brain_2" in warning for warning in report.warnings)
    plan = make_plan(TrainConfig(), report, "m")
    assert plan.spec.axes == "CZYX"
    assert plan.spec.spacing == (1.0, 1.0, 1.0)
    assert plan.spec.spacing_unit == "millimeter"
    assert plan.spec.normalization.kind == "zscore"


def colours(number: int, channels: int = 3, axes: str = "YXC") -> tuple[Any, Any]:
    image, labels = scene(number)
    return Volume(np.stack([image] * channels, axis=axes.index("C")), axes, name=f"colour {number}"), labels


def test_images_with_other_channels_are_left_out_in_one_sentence() -> None:
    report = look([*lots(3), colours(3, 2)])
    assert any('"colour 3" is left out: it has 2 channels, most have 1.' in warning for warning in report.warnings)
    report = look([*lots(8), *(colours(number, 2) for number in range(8, 15))])
    [told] = [warning for warning in report.warnings if "left out" in warning]
    assert (
        told == "7 images are left out: they have 2 channels, most have 1 (colour 8, colour 9, colour 10, colour 11, colour 12 and 2 more)."
    )
    assert len(report.facts) == 8


@pytest.mark.parametrize("grey_ones", [1, 4])
def test_grey_images_among_colours_are_repeated(grey_ones: int) -> None:
    deep = [(image.astype(np.uint16) * 100, labels) for image, labels in lots(grey_ones)]
    data = [*deep, *(colours(number) for number in range(5, 8)), colours(8, 4)]
    report = look(data)
    assert len(report.facts) == len(data)
    assert not any("left out" in warning for warning in report.warnings)
    assert report.lines[1].startswith("Axes YX or YXC, 48 x 48, 1 or 3 or 4 channels, uint16 or uint8, ")
    [told] = [line for line in report.lines if "grey" in line]
    assert told.startswith(
        f"{grey_ones} of the {len(data)} images {'is grey: its' if grey_ones == 1 else 'are grey: their'} one channel is "
    )
    assert f"The transparency of 1 of the {len(data)} images is not used." in report.lines
    spec = make_plan(TrainConfig(), report, "m").spec
    assert spec.grey == "repeat"
    assert spec.channels == ["red", "green", "blue"]
    assert spec.arguments["in_channels"] == 3
    assert spec.normalization.joint


def test_grey_images_are_not_repeated_where_channels_are_no_colours() -> None:
    report = look([*lots(3), colours(3, 3, "CYX")])
    assert any('"colour 3" is left out: it has 3 channels, most have 1.' in warning for warning in report.warnings)
    assert make_plan(TrainConfig(), report, "m").spec.grey == "refuse"
    report = look([*lots(3), colours(3), colours(4, 3, "CYX")])
    assert any('"colour 4" is left out: it has 3 channels that are no colours' in warning for warning in report.warnings)
    alone = look([colours(number) for number in range(3)])
    assert make_plan(TrainConfig(), alone, "m").spec.grey == "refuse"


def test_nothing_usable_is_an_error() -> None:
    with pytest.raises(InputError, match="None of the images can be used"):
        look([(scene(0)[0], np.full((48, 48), 0.5))])
    with pytest.raises(InputError, match="no other value than"):
        look([(image, labels * 0) for image, labels in lots()])
    with pytest.raises(InputError, match="list of images is empty"):
        look([])
    with pytest.raises(OptionsError, match="a folder of images and a folder of labels"):
        inspect(TrainConfig())


def test_numbers_with_holes_become_classes() -> None:
    report = look([(image, labels * 100) for image, labels in lots()], task="classes")
    assert report.values == (0, 100, 200)
    assert any("100 is class 1, 200 is class 2" in warning for warning in report.warnings)


def test_a_class_beyond_the_list_is_named_with_its_image() -> None:
    data = [(Volume(image, "YX", name=f"s{number}"), labels) for number, (image, labels) in enumerate(lots())]
    with pytest.raises(InputError, match=r'hold 2 \(in "s\d"\), which is none of the values 0, 1'):
        look(data, values=(0, 1))
    with pytest.raises(OptionsError, match="2 classes were given, but the labels hold the values 0, 1, 2"):
        look(data, classes=("background", "cell"))


def test_an_empty_class_is_said() -> None:
    report = look(lots(), classes=("background", "dim", "bright", "absent"))
    assert report.values == (0, 1, 2, 3)
    assert any('The class "absent" is in none of the labels' in warning for warning in report.warnings)


@pytest.mark.parametrize(("objects", "task"), [(True, "instances"), (False, "classes")])
def test_objects_and_classes_are_told_apart(objects: bool, task: str) -> None:
    data = []
    for number in range(3):
        image, labels = np.zeros((40, 40), np.uint8), np.zeros((40, 40), np.uint8)
        for index in range(8 + number):
            row, column = divmod(index, 4)
            labels[row * 10 : row * 10 + 6, column * 10 : column * 10 + 6] = index + 1 if objects else 1 + index % 2
        data.append((image + labels, labels))
    assert look(data).task == task


def test_no_image_is_in_both_parts_and_the_split_is_the_same_each_time() -> None:
    first, second = look(lots(10)), look(lots(10))
    names = [{item.name for item in part} for part in (first.train, first.val)]
    assert names[0].isdisjoint(names[1])
    assert [len(part) for part in names] == [8, 2]
    assert names == [{item.name for item in part} for part in (second.train, second.val)]
    assert names != [{item.name for item in part} for part in (lambda report: (report.train, report.val))(look(lots(10), seed=1))]


def test_groups_stay_together() -> None:
    data = [(Volume(scene(number)[0], "YX", name=f"mouse{number // 3}_{number}"), scene(number)[1]) for number in range(9)]
    report = look(data, split="group", val_share=0.3)
    groups = [{item.group for item in part} for part in (report.train, report.val)]
    assert groups[0].isdisjoint(groups[1])
    assert len(groups[1]) == 1
    with pytest.raises(InputError, match="only one group of images"):
        look([(image, labels) for (image, labels) in data[:3]], split="group")


def test_the_same_image_in_both_parts_is_a_leak() -> None:
    image, labels = scene(0)
    report = look([(image, labels), (image.copy(), labels)], val_share=0.5)
    assert any("The same image is learnt and validated" in warning for warning in report.warnings)


def test_one_image_is_divided_where_no_object_is_cut() -> None:
    labels = np.zeros((40, 100), np.uint8)
    labels[10:20, 70:84] = 1  # across the line at 80
    labels[10:20, 5:20] = 1
    labels[10:20, 92:98] = 1
    report = look([(labels * 100, labels)])
    train, val = report.train[0].box, report.val[0].box
    assert train is not None
    assert val is not None
    line = train[1][1]
    assert line == val[1][0]
    assert not (labels[:, line - 1].any() and labels[:, line].any())
    assert any("one image only" in warning for warning in report.warnings)


def test_objects_across_every_line_are_left_out_or_said() -> None:
    labels = np.zeros((40, 100), np.uint8)
    labels[10:20, 68:92] = 1
    report = look([(labels * 100, labels)])
    assert report.train[0].box[1] == (0, 68)
    assert report.val[0].box[1] == (92, 100)
    labels[10:20, :] = 1
    report = look([(labels * 100, labels)])
    assert any("lie in both regions" in warning for warning in report.warnings)


def test_no_validation_is_allowed_and_said() -> None:
    report = look(lots(2), val_share=0)
    assert not report.val
    assert any("Nothing is kept for validation" in warning for warning in report.warnings)


def plan(data: list[tuple[Any, Any]], **fields: Any) -> Any:
    config = TrainConfig(**fields)
    return make_plan(config, inspect(config, data), "m")


def test_windows_follow_images_and_networks() -> None:
    large = [(np.zeros((600, 500), np.uint8), np.eye(600, 500, dtype=np.uint8)) for _ in range(2)]
    assert plan(large).spec.window == (256, 256)
    valid = plan(large, network="unet2015").spec
    assert valid.output_offset == (92, 92)
    assert all(side % 16 == 12 and side > 2 * 92 for side in valid.window)
    small = [(np.zeros((50, 70), np.uint8), np.eye(50, 70, dtype=np.uint8)) for _ in range(2)]
    assert plan(small).spec.window == (64, 80)
    with pytest.raises(OptionsError, match="must be made of positive multiples"):
        plan(small, window=(50, 50))


def test_volumes_of_a_few_planes_are_learnt_as_planes() -> None:
    def stack(depth: int) -> list[tuple[Any, Any]]:
        return [(Volume(image, "ZYX"), labels) for image, labels in lots(2, shape=(depth, 32, 32))]

    assert plan(stack(5)).spec.axes == "CYX"
    assert plan(stack(16)).spec.axes == "CZYX"
    assert plan(stack(16), dimensions="2").spec.axes == "CYX"
    assert plan(stack(16), network="vnet2d").spec.axes == "CYX"
    with pytest.raises(OptionsError, match="cannot be learnt as volumes"):
        plan(lots(2), dimensions="3")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss": "hinge"}, 'no loss "hinge"'),
        ({"loss": "lovasz_hinge"}, "For three or more classes use lovasz_softmax"),
        ({"network": "vae"}, "learns from images alone"),
        ({"task": "instances", "loss": "dice"}, "Objects have their own"),
        ({"start": "nuclei-2d", "network": "vnet2d"}, "has the network residual_unet"),
    ],
)
def test_choices_that_do_not_go_together_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionsError, match=message):
        plan(lots(3), **fields)


def test_a_config_is_read_from_toml_and_its_paths_are_those_of_its_folder(tmp_path: Path) -> None:
    file = tmp_path / "cells.toml"
    file.write_text('images = "images"\nlabels = "labels"\nepochs = 7\n[augmentation]\nelastic = 1.0\n')
    config = TrainConfig.read(file, epochs=3)
    assert Path(config.images) == tmp_path / "images"
    assert config.epochs == 3
    assert config.augmentation.elastic == 1.0
    assert TrainConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 0", "epochs = 0 is not accepted"),
        ("epoch = 5", "epoch = 5 is not accepted"),
        ("[network", "is no TOML file"),
        ("values = [1, 1]", "stands twice"),
        ("val_images = 'a'", "belong together"),
    ],
)
def test_a_config_that_cannot_be_used_is_explained(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(text)
    with pytest.raises(OptionsError, match=message):
        TrainConfig.read(file)


def test_every_field_has_a_title_and_a_description() -> None:
    for name, field in TrainConfig.model_fields.items():
        if name != "kind":
            assert field.title, name
            assert field.description, name
