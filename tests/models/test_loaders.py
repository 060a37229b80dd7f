"""Models of other worlds: described by what their files say, and equal to the network they were made of."""

from __future__ import annotations

import json
import sys
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from napari_tileseg.errors import ModelError, ModelNotFoundError, OptionsError, PredictorError, TrustError, WeightsError
from napari_tileseg.job import SegmentOptions
from napari_tileseg.models.loaders import registry as kinds
from napari_tileseg.models.loaders.registry import Loader, parse
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.predictor import from_module, load_model
from napari_tileseg.models.registry import absolute, find_spec, list_models, locate, stamp
from napari_tileseg.models.spec import ModelSpec
from napari_tileseg.models.trust import trust
from napari_tileseg.pipeline import segment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import SimpleNamespace

    from numpy.typing import NDArray

CPU = SegmentOptions(device="cpu")
NAMES = {"torchscript": "net.ts", "pt2": "net.pt2", "onnx": "net.onnx"}

pytestmark = pytest.mark.usefixtures("own_folder")


def labels_of(model: Any, image: NDArray[np.float32]) -> NDArray[Any]:
    return np.asarray(segment(image, model, axes="CYX", options=CPU).labels)


@pytest.fixture
def expected(small: torch.nn.Module, image: NDArray[np.float32], tools: SimpleNamespace) -> NDArray[Any]:
    """Return the labels of the original."""
    spec = ModelSpec.model_validate({"name": "small", **tools.SAID})
    labels = labels_of(from_module(small, spec, device="cpu"), image)
    assert len(np.unique(labels)) == 3
    return labels


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("with_scheme", [True, False])
def test_an_exported_network_gives_the_labels_of_the_original(
    kind: str,
    with_scheme: bool,
    small: torch.nn.Module,
    image: NDArray[np.float32],
    tmp_path: Path,
    tools: SimpleNamespace,
    expected: NDArray[Any],
) -> None:
    name, write = NAMES[kind], tools.write[kind]
    path = write(small, tmp_path / name)
    tools.say(path)
    if kind != "onnx":
        with pytest.raises(TrustError, match=f"{name} can run any program .* tileseg models trust"):
            load_model(str(path), device="cpu")
        trust(path)
    ref = f"{kind}:{path}" if with_scheme else str(path)
    found = labels_of(ref, image)
    assert np.mean(found == expected) >= 0.9999
    spec = find_spec(ref)
    assert spec.classes == ["background", "one", "two"]
    assert spec.unknown == ["normalization", "spacing", "licence"] or kind == "onnx"
    assert len(spec.weights_sha256) == 64


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_what_the_file_says_needs_no_answer(kind: str, small: torch.nn.Module, tmp_path: Path, tools: SimpleNamespace) -> None:
    name, write = NAMES[kind], tools.write[kind]
    spec = find_spec(str(write(small, tmp_path / name)))
    assert (spec.axes, len(spec.channels), len(spec.classes)) == ("CYX", 2, 3)
    assert {"axes", "channels"}.isdisjoint(spec.unknown)
    assert {"classes", "window", "normalization"} <= set(spec.unknown)
    assert spec.window[0] % spec.multiple_of == 0
    if kind == "pt2":
        assert spec.multiple_of == 4


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_a_network_of_one_size_and_one_tile_at_a_time(
    kind: str, small: torch.nn.Module, image: NDArray[np.float32], tmp_path: Path, tools: SimpleNamespace, expected: NDArray[Any]
) -> None:
    name, write = NAMES[kind], tools.write[kind]
    path = write(small, tmp_path / name, fixed=True)
    trust(path)
    spec = find_spec(str(path))
    assert spec.window == (32, 32)
    assert "window" not in spec.unknown
    found = segment(image, str(path), axes="CYX", options=SegmentOptions(device="cpu", batch=3)).labels
    assert np.mean(np.asarray(found) == expected) >= 0.9999
    with pytest.raises(PredictorError):
        segment(image, str(path), axes="CYX", options=SegmentOptions(device="cpu", window=(48, 48)))


def test_a_torchscript_archive_is_guessed_from_its_weights_and_marked(
    small: torch.nn.Module, tmp_path: Path, tools: SimpleNamespace
) -> None:
    path = tools.write_torchscript(small, tmp_path / "net.pt")
    spec = find_spec(str(path))
    assert locate(str(path)).loader.scheme == "torchscript"
    assert (spec.axes, len(spec.channels), len(spec.classes)) == ("CYX", 2, 3)
    assert {"axes", "channels", "classes", "window"} <= set(spec.unknown)
    assert "torch" in sys.modules  # here; the sub-process below shows that it is not needed


def test_what_is_assumed_is_told_in_the_result(
    small: torch.nn.Module, image: NDArray[np.float32], tmp_path: Path, tools: SimpleNamespace
) -> None:
    path = tools.write_onnx(small, tmp_path / "net.onnx")
    result = segment(image, str(path), axes="CYX", options=CPU)
    assert any("does not say its classes" in sentence and "tileseg models answer" in sentence for sentence in result.warnings)
    tools.say(path, normalization={"kind": "none"}, spacing=None)
    assert not any("does not say" in sentence for sentence in segment(image, str(path), axes="CYX", options=CPU).warnings)


def test_a_wrong_guess_is_a_sentence_before_the_run(tmp_path: Path, tools: SimpleNamespace) -> None:
    class Odd(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = torch.nn.Conv2d(2, 4, 1)
            self.two = torch.nn.Conv2d(4, 5, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.two(self.one(x))[:, :4]

    path = tools.write_torchscript(Odd().eval(), tmp_path / "odd.pt")
    trust(path)
    with pytest.raises(ModelError, match=r"odd\.pt returns 4 scores for each place; 5 were assumed\. Say its classes once: tileseg models"):
        load_model(str(path), device="cpu")


# Checkpoints


def checkpoint_forms(state: dict[str, torch.Tensor]) -> Iterator[tuple[str, Any]]:
    yield "plain", state
    yield "ordered", OrderedDict(state)
    yield "state_dict", {"state_dict": state, "epoch": 3}
    yield (
        "lightning",
        {
            "state_dict": {f"net.{key}": value for key, value in state.items()} | {"loss.weight": torch.ones(3)},
            "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(2)}}}],
            "pytorch-lightning_version": "2.5",
        },
    )
    yield "nnunet", {"network_weights": {f"module.{key}": value for key, value in state.items()}, "trainer_name": "x", "init_args": {}}
    yield "compiled", {"model_state_dict": {f"_orig_mod.module.{key}": value for key, value in state.items()}}
    yield "ema", {"ema": state, "step": 7}
    yield "nested", {"checkpoint": {"model": {"state_dict": state}}}
    yield "half", {key: value.half() if value.is_floating_point() else value for key, value in state.items()}


FORMS = ["plain", "ordered", "state_dict", "lightning", "nnunet", "compiled", "ema", "nested", "half"]


@pytest.mark.parametrize("form", FORMS)
def test_a_checkpoint_of_any_habit_is_recognised(
    form: str, small: torch.nn.Module, image: NDArray[np.float32], tmp_path: Path, tools: SimpleNamespace, expected: NDArray[Any]
) -> None:
    path = tmp_path / "net.pth"
    torch.save(dict(checkpoint_forms(small.state_dict()))[form], path)
    tools.say(path)
    spec = find_spec(str(path))
    assert (spec.architecture, spec.arguments) == ("residual_unet", tools.ARGUMENTS)
    found = labels_of(f"checkpoint:{path}", image)
    assert np.mean(found == expected) >= (0.9999 if form != "half" else 0.99)


@pytest.mark.parametrize("name", ["net.safetensors", "old.pth"])
def test_a_checkpoint_in_another_container(
    name: str, small: torch.nn.Module, image: NDArray[np.float32], tmp_path: Path, tools: SimpleNamespace, expected: NDArray[Any]
) -> None:
    path = tmp_path / name
    state = small.state_dict()
    if name.startswith("old"):
        torch.save(state, path, _use_new_zipfile_serialization=False)
    else:
        save_file({key: value.clone() for key, value in state.items()}, path)
    tools.say(path)
    assert np.array_equal(labels_of(str(path), image), expected)


def test_what_does_not_fit_is_listed(small: torch.nn.Module, tmp_path: Path, tools: SimpleNamespace) -> None:
    state = small.state_dict()
    del state["head.bias"]
    state["extra.weight"] = torch.zeros(1)
    state["head.weight"] = torch.zeros(7, 4, 1, 1)
    path = tmp_path / "net.pth"
    torch.save(state, path)
    with pytest.raises(ModelError, match=r"was not recognised from the names of its \d+ weights .*--architecture monai.UNet"):
        find_spec(str(path))
    ref = f"checkpoint:{path}?architecture=residual_unet&arguments={json.dumps(tools.ARGUMENTS)}"
    with pytest.raises(
        WeightsError, match=r"1 missing \(head\.bias\); 1 unexpected \(extra\.weight\); 1 of another shape \(head\.weight: 7 x 4"
    ):
        find_spec(ref)


def test_a_checkpoint_whose_network_is_named(
    small: torch.nn.Module, image: NDArray[np.float32], tmp_path: Path, tools: SimpleNamespace
) -> None:
    path = tmp_path / "net.pth"
    torch.save(small.state_dict(), path)
    ref = f"checkpoint:{path}?architecture=residual_unet&arguments={json.dumps(tools.ARGUMENTS)}"
    assert len(find_spec(ref).classes) == 3
    assert absolute(ref) == ref
    assert load_model(ref, device="cpu").spec.arguments == tools.ARGUMENTS


@pytest.mark.parametrize("content", [{"epoch": 3, "loss": 0.5}, [1, 2], "text"])
def test_a_file_without_weights_says_what_it_holds(content: Any, tmp_path: Path) -> None:
    path = tmp_path / "net.pth"
    torch.save(content, path)
    with pytest.raises(WeightsError, match=r"net\.pth holds (no weights that were found, only epoch, loss|a builtins\.)"):
        find_spec(str(path))


def test_arguments_that_leave_no_trace_in_weights_are_marked(tmp_path: Path) -> None:
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8], "strides": [2]}
    path = tmp_path / "net.pth"
    torch.save(build_network("monai.UNet", **arguments).state_dict(), path)
    spec = find_spec(str(path))
    assert "arguments" in spec.unknown
    assert spec.training["assumed_arguments"] == ["strides"]
    assert "arguments" not in find_spec(f"checkpoint:{path}?architecture=monai.UNet&arguments={json.dumps(arguments)}").unknown


# ONNX


def test_onnx_runs_on_as_many_threads_as_the_engine(small: torch.nn.Module, tmp_path: Path, tools: SimpleNamespace) -> None:
    predictor: Any = load_model(str(tools.write_onnx(small, tmp_path / "net.onnx")), device="cpu")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if before == 1 else 1)
        predictor(torch.zeros(1, 2, 32, 32))
        assert predictor._function._threads == torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def test_onnx_providers_and_outputs_are_checked(small: torch.nn.Module, tmp_path: Path, tools: SimpleNamespace) -> None:
    path = tools.write_onnx(small, tmp_path / "net.onnx")
    assert find_spec(f"onnx:{path}?provider=cpu&output=scores").axes == "CYX"
    with pytest.raises(OptionsError, match="Use one of cpu, cuda, directml, coreml"):
        find_spec(f"onnx:{path}?provider=tpu")
    with pytest.raises(ModelError, match='has no output "other"'):
        find_spec(f"onnx:{path}?output=other")
    with pytest.raises(ModelError, match='has the option "folds", but onnx: takes output, provider'):
        find_spec(f"onnx:{path}?folds=1")
    with pytest.raises(OptionsError, match=r"cannot use directml\. Use one of cpu"):
        load_model(f"onnx:{path}?provider=directml", device="cpu")


def test_weights_beside_an_onnx_file_belong_to_it(
    small: torch.nn.Module, image: NDArray[np.float32], tmp_path: Path, tools: SimpleNamespace, expected: NDArray[Any]
) -> None:
    import onnx

    whole = tools.write_onnx(small, tmp_path / "whole.onnx")
    path = tmp_path / "net.onnx"
    onnx.save(onnx.load(whole), path, save_as_external_data=True, location="net.bin", size_threshold=0)
    tools.say(path)
    assert [file.name for file in locate(str(path)).loader.members(path)] == ["net.bin", "net.onnx"]
    assert np.mean(labels_of(str(path), image) == expected) >= 0.9999
    before = stamp(str(path))
    with (tmp_path / "net.bin").open("r+b") as stream:
        stream.write(b"\0\0\0\0")
    assert stamp(str(path)) != before
    (tmp_path / "net.bin").unlink()
    with pytest.raises(WeightsError, match=r'the file "net\.bin" that holds its weights is not beside it'):
        find_spec(str(path))


def onnx_of(path: Path, operator: str, shape: list[Any]) -> Path:
    """Write a network of one operator."""
    import onnx
    from onnx import TensorProto, helper

    node = helper.make_node(operator, ["x"], ["y"])
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)
    graph = helper.make_graph([node], "net", [given], [made])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def test_a_sigmoid_at_the_end_is_taken_back(tmp_path: Path) -> None:
    path = onnx_of(tmp_path / "net.onnx", "Sigmoid", ["n", 1, "h", "w"])
    spec = find_spec(str(path))
    assert (spec.output, spec.classes) == ("sigmoid", ["foreground"])
    image = np.linspace(-4, 4, 1600, dtype=np.float32).reshape(40, 40)
    labels = np.asarray(segment(image, str(path), axes="YX", options=CPU).labels)
    assert np.array_equal(labels.reshape(40, 40) > 0, image >= 0)


def test_channels_may_stand_last(tmp_path: Path) -> None:
    path = onnx_of(tmp_path / "net.onnx", "Identity", ["n", "h", "w", 3])
    spec = find_spec(str(path))
    assert (len(spec.channels), len(spec.classes)) == (3, 3)
    image = np.random.default_rng(0).random((3, 40, 50), np.float32)
    assert np.array_equal(labels_of(str(path), image), image.argmax(0))


def test_without_onnx_runtime_the_line_to_type_is_told(
    small: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tools: SimpleNamespace
) -> None:
    path = tools.write_onnx(small, tmp_path / "net.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert find_spec(str(path)).axes == "CYX"
    with pytest.raises(ModelError, match=r'need the package onnxruntime, .* pip install "napari-tileseg\[onnx\]"'):
        load_model(str(path), device="cpu")


# References


def test_references_are_taken_apart() -> None:
    loader, path, options = parse('checkpoint:/a/b.pth?architecture=monai.UNet&arguments={"a": 1}')
    assert loader is not None
    assert (loader.scheme, path, options) == ("checkpoint", "/a/b.pth", {"architecture": "monai.UNet", "arguments": '{"a": 1}'})
    assert parse("C:/models/x.onnx") == (None, "C:/models/x.onnx", {})
    assert parse("nuclei-2d") == (None, "nuclei-2d", {})
    assert parse("onnx:what?.onnx")[1:] == ("what?.onnx", {})


def test_what_is_no_model_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("hello")
    with pytest.raises(ModelError, match=r'"note.txt" is no model that is known here\. Say what it is by one of tileseg:, .*onnx:'):
        find_spec(str(tmp_path / "note.txt"))
    with pytest.raises(ModelNotFoundError, match=r'There is no ONNX model at "missing\.onnx"'):
        find_spec("onnx:missing.onnx")
    with pytest.raises(ModelNotFoundError):
        find_spec("a" * 5000)


def test_a_model_in_the_own_folder_is_listed_and_a_broken_one_hides_none(
    small: torch.nn.Module, own_folder: Path, image: NDArray[np.float32], tools: SimpleNamespace
) -> None:
    own_folder.mkdir()
    tools.write_onnx(small, own_folder / "mine.onnx")
    (own_folder / "broken.onnx").write_bytes(b"\x00\x01")
    (own_folder / "broken.pth").write_bytes(b"\x80\x02nonsense")
    (own_folder / "broken.tileseg.zip").write_bytes(b"PK\x05\x06")
    names = [spec.name for spec in list_models()]
    assert "mine" in names
    assert {"nuclei-2d", "hippocampus-3d"} <= set(names)
    assert find_spec("mine").axes == "CYX"


# Extensions


class Entry:
    """An entry point as importlib.metadata gives it."""

    def __init__(self, value: Any, name: str = "x") -> None:
        self.value, self.name, self.dist = str(value), name, None
        self._loaded = value

    def load(self) -> Any:
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


def test_other_packages_bring_loaders_and_broken_ones_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    toy = tmp_path / "toy_models.py"
    toy.write_text(
        "import torch\n"
        "from napari_tileseg.models.loaders.describe import describe\n"
        "from napari_tileseg.models.predictor import from_module\n"
        "def detect(path): return path.name.endswith('.toy')\n"
        "KNOWN = {'axes': 'CYX', 'channels': 1, 'classes': ['background', 'bright'], 'window': [16, 16]}\n"
        "def read_spec(path): return describe(path, KNOWN)\n"
        "class Bright(torch.nn.Module):\n"
        "    def forward(self, x): return torch.cat([0.5 - x, x - 0.5], 1)\n"
        "def load(path, spec, device): return from_module(Bright(), spec, device=device)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    ours = Loader("toy", "Toy", (".toy",), "toy_models:detect", "toy_models:read_spec", "toy_models:load")
    entries = [Entry(ours), Entry(ImportError("no such thing")), Entry(Loader("onnx", "x", (), "a:b", "a:b", "a:b"))]
    monkeypatch.setattr(kinds, "entry_points", lambda group: entries)
    kinds.loaders.cache_clear()
    try:
        with pytest.warns(UserWarning, match="were left out") as told:
            assert "toy" in kinds.schemes()
        assert len(told) == 2
        (tmp_path / "x.toy").touch()
        image = np.random.default_rng(0).random((20, 30), np.float32)
        assert np.array_equal(np.asarray(segment(image, str(tmp_path / "x.toy"), axes="YX", options=CPU).labels), image > 0.5)
        monkeypatch.setenv("TILESEG_MODELS", str(tmp_path))
        assert "x" in {spec.name for spec in list_models()}
        kinds.loaders.cache_clear()
        entries[0] = Entry(Loader("toy", "Toy", (".toy",), "toy_models:detect", "toy_models:KNOWN", "toy_models:load"))
        with pytest.warns(UserWarning, match="were left out"):
            kinds.loaders()
        (tmp_path / "y.toy").touch()
        names = {spec.name for spec in list_models()}
        assert "y" not in names, "its loader raises TypeError"
        assert "nuclei-2d" in names, "which hides nothing else"
    finally:
        kinds.loaders.cache_clear()
