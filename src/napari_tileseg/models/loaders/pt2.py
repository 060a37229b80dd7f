"""Archives of ``torch.export``: graphs of operators of torch, which run only where the user trusts the file."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError
from napari_tileseg.models.archive import Archive, is_zip, parse_json, printable
from napari_tileseg.models.loaders.describe import describe

if TYPE_CHECKING:
    from pathlib import Path

    from napari_tileseg.models.spec import ModelSpec

__all__ = ["detect", "load", "read_spec"]

_GRAPHS = ("/models/model.json", "serialized_exported_program.json")
"""Where newer and older archives describe their graph."""
_LARGEST = 2**28
_FACTOR = re.compile(r"^Mul\(Integer\((\d+)\), ")


def detect(path: Path) -> bool:
    """Tell whether a file is an archive of ``torch.export``."""
    return is_zip(path) and _graph_name(Archive(path)) is not None


def read_spec(path: Path) -> ModelSpec:
    """Describe the network as its graph does: axes, channels, sizes and number of scores."""
    if not is_zip(path):
        raise ModelError(f"{printable(path.name)} is no archive of torch.export. Give a file that torch.export.save wrote.")
    known, scores, _ = _facts(path)
    return describe(path, known, scores=scores)


def load(path: Path, spec: ModelSpec, device: str) -> Any:
    """Load the network.

    Raises
    ------
    TrustError
        Unless the user trusts exactly this file.
    ModelError
        If it is damaged, or does not take what its card says.
    """
    import torch
    from torch.export.passes import move_to_device_pass

    from napari_tileseg.models.loaders.call import CallPredictor, check_scores
    from napari_tileseg.models.trust import require_trust

    require_trust(path, "an archive of torch.export holds a program")
    _, _, batch = _facts(path)
    try:
        program = torch.export.load(path)
        if device != "cpu":
            program = move_to_device_pass(program, device)
        module = program.module()
    except Exception as error:
        reason = printable(str(error).strip().split("\n")[0]) or type(error).__name__
        raise ModelError(f"{path.name} cannot be opened as an archive of torch.export: {reason}. Export the model again.") from None
    size = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values() if isinstance(tensor, torch.Tensor))
    predictor = CallPredictor(module, spec, device, size=size, batch=batch)
    check_scores(predictor, path)
    return predictor


def _graph_name(archive: Archive) -> str | None:
    return next((name for name in archive.names if f"/{name}".endswith(_GRAPHS)), None)


def _facts(path: Path) -> tuple[dict[str, Any], int | None, int | None]:
    """Return what the graph says for the card, the number of scores, and the one size of batch that it takes, if one."""
    archive = Archive(path)
    name = _graph_name(archive)
    if name is None:
        raise ModelError(f"{printable(path.name)} is no archive of torch.export. Give a file that torch.export.save wrote.")
    what = f"{printable(name)} in {printable(path.name)}"
    told = parse_json(archive.read(name, largest=_LARGEST), what)
    try:
        graph = told["graph_module"]["graph"]
        tensors = graph["tensor_values"]
        signature = told["graph_module"]["signature"]
        inputs = [item["user_input"]["arg"]["as_tensor"]["name"] for item in signature["input_specs"] if "user_input" in item]
        outputs = [
            item["user_output"]["arg"]["as_tensor"]["name"]
            for item in signature["output_specs"]
            if "user_output" in item and "as_tensor" in item["user_output"]["arg"]
        ]
        shape = [_side(side) for side in tensors[inputs[0]]["sizes"]]
        results = [[_side(side) for side in tensors[output]["sizes"]] for output in outputs]
    except (KeyError, TypeError, IndexError, AttributeError, ValueError):
        raise ModelError(f"{what} is no graph that is known here. Export the model again with a newer torch.") from None
    if len(shape) not in (4, 5):
        raise ModelError(f"{printable(path.name)} takes an input of {len(shape)} axes; batch, channel and two or three axes are accepted.")
    known: dict[str, Any] = {"axes": "CYX" if len(shape) == 4 else "CZYX"}
    if isinstance(shape[1], int):
        known["channels"] = shape[1]
    sides = shape[2:]
    if all(isinstance(side, int) for side in sides):
        known["window"] = tuple(sides)
        known["multiple_of"] = 1
    else:
        factors = [int(found[1]) for side in sides if isinstance(side, str) and (found := _FACTOR.match(side))]
        known["multiple_of"] = math.lcm(*factors) if factors else 1
    fitting = [result[1] for result in results if len(result) == len(shape)]
    scores = next((side for side in fitting if isinstance(side, int)), None)
    return known, scores, shape[0] if isinstance(shape[0], int) else None


def _side(told: dict[str, Any]) -> int | str:
    """Return the length of an axis: a number, or the formula of one that varies."""
    return int(told["as_int"]) if "as_int" in told else str(told["as_expr"]["expr_str"])
