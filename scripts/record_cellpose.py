"""Train small Cellpose models and record what Cellpose itself answers, for tests/models/loaders/test_cellpose.py.

Run it once in an environment with version 3 and once in one with version 4, from the root of the repository; nothing of Cellpose is
needed to run the tests::

    python -m venv cellpose3-venv
    cellpose3-venv/bin/pip install torch numpy scipy tqdm tifffile imageio numba
    cellpose3-venv/bin/pip install --no-deps "cellpose<4" fastremap roifile natsort opencv-python-headless fill-voids imagecodecs
    cellpose3-venv/bin/python scripts/record_cellpose.py FOLDER_OF_NUCLEI     # trains, then records
    cellpose3-venv/bin/python scripts/record_cellpose.py                      # records again

For version 4: the same with "cellpose>=4" and segment_anything. Both import torchvision for what is not used here; a stand-in keeps
it out. The model of version 4 that lies there was trained for about a thousand steps of one image each, in two rounds, on the first
60 images; that of version 3 by this script.

The networks are those of Cellpose, only narrower and, for version 4, shallower; the folder holds ``train/images`` and
``train/labels``.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import tifffile
import torch

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "tests" / "models" / "loaders" / "cellpose"
CHANNELS = [6, 8, 12, 16]
STEPS = {3: 900, 4: 500}
RATES = {3: 3e-3, 4: 3e-3}
CASES: dict[int, list[dict[str, Any]]] = {
    3: [
        {"name": "as it is", "box": [0, 520, 0, 696], "diameter": 30.0},
        {"name": "smaller", "box": [40, 360, 100, 420], "diameter": 45.0},
        {"name": "larger", "box": [300, 431, 310, 490], "diameter": 18.5},
        {"name": "one window", "box": [10, 190, 20, 220], "diameter": None},
        {"name": "two channels", "box": [120, 330, 200, 450], "diameter": 30.0, "channels": 2},
    ],
    4: [
        {"name": "as it is", "box": [0, 400, 0, 500], "diameter": None},
        {"name": "larger", "box": [300, 420, 310, 490], "diameter": 20.0},
        {"name": "three channels", "box": [120, 380, 200, 450], "diameter": None, "channels": 3},
    ],
}


class Standin(ModuleType):
    """A module that has every attribute; each is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def keep_torchvision_out() -> None:
    """Put a stand-in where torchvision is imported."""
    for name in ("", ".ops", ".ops.boxes", ".transforms", ".transforms.functional", ".transforms._functional_tensor"):
        standin = Standin(f"torchvision{name}")
        standin.__spec__, standin.__path__ = ModuleSpec(standin.__name__, None), []
        sys.modules[standin.__name__] = standin


def image_of(case: dict[str, Any]) -> np.ndarray:
    """Return the image of a case, shape (Y, X) or (C, Y, X)."""
    top, bottom, left, right = case["box"]
    sample = tifffile.imread(ROOT / "sample_data" / "nuclei_fluorescence.tif")[top:bottom, left:right]
    if "channels" not in case:
        return sample
    return np.stack([np.roll(sample, 2 * index, axis=-1) // (8 * index + 1) for index in range(case["channels"])])


def unet() -> Any:
    """Return the network of version 3, narrow; what it says of the style is as long as the program expects."""
    from cellpose.resnet_torch import CPnet

    class Narrow(CPnet):
        def __init__(self, nbase: list[int], *args: Any, **options: Any) -> None:
            super().__init__([nbase[0], *CHANNELS], *args, **options)

        def forward(self, data: torch.Tensor) -> Any:
            scores, style, levels = super().forward(data)
            return scores, torch.nn.functional.pad(style, (0, 256 - style.shape[1])), levels

    return Narrow


def small_encoder(checkpoint: Any) -> SimpleNamespace:
    """Return the image encoder of Segment Anything, small."""
    from segment_anything.modeling import ImageEncoderViT

    norm = partial(torch.nn.LayerNorm, eps=1e-6)
    encoder = ImageEncoderViT(
        depth=3,
        embed_dim=32,
        mlp_ratio=2,
        norm_layer=norm,
        num_heads=4,
        use_rel_pos=True,
        global_attn_indexes=[1],
        window_size=14,
        out_chans=16,
    )
    return SimpleNamespace(image_encoder=encoder)


def read(source: Path, side: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return images of fluorescence, normalised and cut to a square, and what the network is to answer."""
    import imageio.v3 as iio
    from cellpose import dynamics, transforms

    found = []
    for path in sorted((source / "train" / "images").glob("*"))[:140]:
        image = iio.imread(path)
        image = image[..., :3].mean(-1) if image.ndim == 3 else image
        labels = iio.imread(next((source / "train" / "labels").glob(f"{path.stem}.*"))).astype(int)
        if np.median(image) > 0.5 * image.max() or labels.max() == 0:
            continue
        # Nuclei of these images are half as wide as those of the sample.
        image = transforms.resize_image(image.astype(np.float32), rsz=2, no_channels=True)
        labels = transforms.resize_image(labels.astype(np.int32), rsz=2, interpolation=0, no_channels=True).astype(int)
        labels = np.unique(labels, return_inverse=True)[1].reshape(labels.shape)
        make = getattr(dynamics, "masks_to_flows", None)
        flows = make(labels) if make else dynamics.masks_to_flows_gpu(labels, torch.device("cpu"))[0]
        image = transforms.normalize99(image)
        rows, columns = (min(side, size) for size in labels.shape)
        pixels, answer = np.zeros((side, side), np.float32), np.zeros((3, side, side), np.float32)
        pixels[:rows, :columns] = image[:rows, :columns]
        answer[:2, :rows, :columns], answer[2, :rows, :columns] = 5 * flows[:, :rows, :columns], labels[:rows, :columns] > 0
        found.append((pixels, answer))
    return found


def train(net: torch.nn.Module, pairs: list[tuple[np.ndarray, np.ndarray]], channels: int, steps: int, rate: float) -> None:
    """Train for a few minutes, so that labels mean something."""
    rng = np.random.default_rng(0)
    optimizer = torch.optim.AdamW([weight for weight in net.parameters() if weight.requires_grad], lr=rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, steps)
    net.train()
    for step in range(steps):
        some = [pairs[index] for index in rng.integers(0, len(pairs), 2)]
        batch = torch.zeros(len(some), channels, *some[0][0].shape)
        batch[:, 0] = torch.from_numpy(np.stack([pixels for pixels, _ in some]))
        wanted = torch.from_numpy(np.stack([answer for _, answer in some]))
        scores = net(batch)[0]
        loss = (scores[:, :2] - wanted[:, :2]).square().mean() / 2
        loss = loss + torch.nn.functional.binary_cross_entropy_with_logits(scores[:, 2], wanted[:, 2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(step, round(loss.item(), 3), flush=True)
    net.eval()


def calm(state: dict[str, torch.Tensor]) -> None:
    """Give the second channel, which was 0 in training, the statistics of the first, and little weight."""
    for part in ("conv.conv_0", "proj"):
        name = f"downsample.down.res_down_0.{part}"
        for kind in ("running_mean", "running_var", "weight", "bias"):
            state[f"{name}.0.{kind}"][1] = state[f"{name}.0.{kind}"][0]
        last = f"{name}.{2 if part != 'proj' else 1}.weight"
        state[last][:, 1] = 0.2 * state[last][:, 0]


def main() -> None:
    """Train where a folder is given; record the cases of the version that is installed."""
    keep_torchvision_out()
    from cellpose import models

    torch.manual_seed(0)
    if hasattr(models, "CPnet"):
        version, side, channels, build = 3, 224, 2, unet()
        models.CPnet = build
        net = build([channels], 3, 3)
    else:
        from cellpose import vit

        version, side, channels = 4, 256, 3
        vit.sam_model_registry = {"vit_l": small_encoder}
        models.get_backbone = lambda path: "sam_vitl"
        net = vit.CPSAM(rdrop=0.0)
    path = TARGET / f"small{version}"
    if len(sys.argv) > 1:
        TARGET.mkdir(parents=True, exist_ok=True)
        train(net, read(Path(sys.argv[1]), side), channels, STEPS[version], RATES[version])
        net.diam_labels.data[:] = 26.0
        state = net.state_dict()
        if version == 3:
            calm(state)
        # Clones, because a part of an array would be saved with the whole of it; halves are enough for tests.
        torch.save({name: value.clone().half() if version == 4 else value for name, value in state.items()}, path)
    options = {"use_bfloat16": False} if version == 4 else {}
    model = models.CellposeModel(gpu=False, pretrained_model=str(path), **options)
    arrays: dict[str, np.ndarray] = {}
    for case in CASES[version]:
        image = image_of(case)
        more: dict[str, Any] = {}
        if version == 3:
            model.net.mkldnn = False
            more["channels"] = [1, 2] if image.ndim == 3 else [0, 0]
        labels, (_, flows, cells), _ = model.eval(image, diameter=case["diameter"], channel_axis=0 if image.ndim == 3 else None, **more)
        scores = np.concatenate([flows, cells[None]])
        arrays[f"{case['name']}, labels"] = labels.astype(np.uint16)
        arrays[f"{case['name']}, scores"] = scores[:, ::5, ::5].astype(np.float32)
        arrays[f"{case['name']}, largest"] = np.abs(scores).max()
        print(case["name"], labels.shape, labels.max())
    np.savez_compressed(TARGET / f"answers{version}.npz", **arrays)


if __name__ == "__main__":
    main()
