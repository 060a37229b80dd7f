"""Train small nnU-Net models and record what nnU-Net's own predictor answers, for tests/models/loaders/test_nnunet*.py.

Run it in an environment of its own, from the root of the repository; nothing of nnU-Net is needed to run the tests::

    python -m venv nnunet-venv
    nnunet-venv/bin/pip install torch
    nnunet-venv/bin/pip install --no-deps nnunetv2==2.8.1 dynamic-network-architectures acvl-utils batchgenerators batchgeneratorsv2
    nnunet-venv/bin/pip install SimpleITK scikit-image scikit-learn nibabel pandas seaborn yacs einops blosc2 fft-conv-pytorch graphviz
    nnunet-venv/bin/python scripts/record_nnunet.py FOLDER_OF_HIPPOCAMPUS_MRI    # trains, then records
    nnunet-venv/bin/python scripts/record_nnunet.py                              # records the cases of cases.json again

timm, and torchvision with it, is imported by trainers that are not used here; a stand-in keeps it out.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import nibabel
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

TARGET = Path(__file__).parent.parent / "tests" / "models" / "loaders" / "nnunet"
CASES = 24
EPOCHS, STEPS = 12, 100
DATASET = "Dataset901_Hippocampus"
REGIONS = "Dataset902_HippocampusRegions"


class Standin(ModuleType):
    """A module that has every attribute; each is an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def keep_timm_out() -> None:
    """Put a stand-in where nnU-Net's search for trainers imports timm."""
    for name in ("timm", "timm.layers", "timm.models", "timm.models.eva"):
        standin = Standin(name)
        standin.__spec__ = ModuleSpec(name, None)
        standin.__path__ = []
        sys.modules[name] = standin


def write_raw(source: Path, raw: Path) -> None:
    """Lay out the training data as nnU-Net wants it, once with classes and once with regions."""
    import SimpleITK as sitk

    images = sorted((source / "train" / "images").glob("*.nii.gz"))[:CASES]
    for name in (DATASET, REGIONS):
        for part in ("imagesTr", "labelsTr"):
            (raw / name / part).mkdir(parents=True)
        for path in images:
            stem = path.name.removesuffix(".nii.gz")
            image = sitk.ReadImage(str(path))
            labels = sitk.ReadImage(str(source / "train" / "labels" / path.name))
            labels.CopyInformation(image)
            sitk.WriteImage(image, str(raw / name / "imagesTr" / f"{stem}_0000.nii.gz"))
            sitk.WriteImage(labels, str(raw / name / "labelsTr" / f"{stem}.nii.gz"))
        facts: dict[str, Any] = {"channel_names": {"0": "T1"}, "numTraining": len(images), "file_ending": ".nii.gz"}
        if name == REGIONS:
            facts |= {"labels": {"background": 0, "hippocampus": [1, 2], "posterior": [2]}, "regions_class_order": [1, 2]}
        else:
            # Not in the order of their numbers, as people write them.
            facts |= {"labels": {"background": 0, "posterior": 2, "anterior": 1}}
        (raw / name / "dataset.json").write_text(json.dumps(facts, indent=1))


def plan(dataset: int, name: str, preprocessed: Path) -> None:
    """Let nnU-Net plan, then make the networks small."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    extract_fingerprints([dataset], num_processes=1)
    plan_experiments([dataset])
    file = preprocessed / name / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    for configuration, window, features in (("2d", [32, 40], [8, 16, 24]), ("3d_fullres", [24, 32, 24], [6, 12, 24])):
        chosen = plans["configurations"][configuration]
        ndim = len(window)
        chosen["patch_size"], chosen["batch_size"], chosen["batch_dice"] = window, 4 if ndim == 3 else 12, False
        arguments = chosen["architecture"]["arch_kwargs"]
        arguments.update(
            n_stages=3,
            features_per_stage=features,
            kernel_sizes=[[3] * ndim] * 3,
            strides=[[1] * ndim, [2] * ndim, [2] * ndim],
            n_conv_per_stage=[1, 1, 1],
            n_conv_per_stage_decoder=[1, 1],
        )
    file.write_text(json.dumps(plans, indent=1))
    preprocess([dataset], configurations=["2d", "3d_fullres"], num_processes=[1, 1])


def train(dataset: str, configuration: str, fold: int, preprocessed: Path) -> Path:
    """Train one fold for a few minutes; return the folder trainer__plans__configuration."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(fold)
    np.random.seed(fold)
    plans = json.loads((preprocessed / dataset / "nnUNetPlans.json").read_text())
    facts = json.loads((preprocessed / dataset / "dataset.json").read_text())
    plans["continue_training"] = False  # as its command line adds it
    trainer = nnUNetTrainer(plans=plans, configuration=configuration, fold=fold, dataset_json=facts, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = EPOCHS, STEPS, 4
    trainer.run_training()
    return Path(trainer.output_folder_base)


def slim(folder: Path, target: Path, *, keep_state: bool = False) -> None:
    """Copy what a user gets of a trained model; the state of the optimizer, as large again, is kept once only."""
    import torch

    target.mkdir(parents=True, exist_ok=True)
    for name in ("plans.json", "dataset.json"):
        shutil.copy(folder / name, target / name)
    for fold in sorted(folder.glob("fold_*")):
        (target / fold.name).mkdir(exist_ok=True)
        for path in sorted(fold.glob("checkpoint_*.pth")):
            once = folder.parent.name == DATASET and folder.name.endswith("3d_fullres") and fold.name == "fold_0"
            if path.name == "checkpoint_best.pth" and not once:
                continue
            content = torch.load(path, map_location="cpu", weights_only=False)
            if not (keep_state and path.name == "checkpoint_final.pth" and fold.name == "fold_0"):
                content["optimizer_state"] = {}
            # As nnU-Net writes it, but without this computer's folders.
            torch.save(content, target / fold.name / path.name)


def main() -> None:
    """Train and copy."""
    source = Path(sys.argv[1])
    work = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp())
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(work / name)
    os.environ.update(nnUNet_n_proc_DA="1", nnUNet_def_n_proc="1", nnUNet_compile="f")
    write_raw(source, work / "raw")
    preprocessed = work / "preprocessed"
    plan(901, DATASET, preprocessed)
    plan(902, REGIONS, preprocessed)
    for name in (DATASET, REGIONS):
        shutil.rmtree(TARGET / name, ignore_errors=True)
    os.environ["nnUNet_n_proc_DA"] = "0"  # augment in this process; while planning, the number must be positive
    for dataset, configuration, folds in ((DATASET, "3d_fullres", (0, 1)), (DATASET, "2d", (0,)), (REGIONS, "3d_fullres", (0,))):
        for fold in folds:
            folder = train(dataset, configuration, fold, preprocessed)
        slim(folder, TARGET / dataset / folder.name, keep_state=configuration == "2d")


def edited(content: dict[str, Any], edits: dict[str, Any]) -> dict[str, Any]:
    """Return a copy with some values exchanged; their places are written with slashes."""
    copy = json.loads(json.dumps(content))
    for place, value in edits.items():
        *parents, last = place.split("/")
        inner = copy
        for parent in parents:
            inner = inner[parent]
        inner[last] = value
    return copy


def made(images: dict[str, np.ndarray], case: dict[str, Any]) -> np.ndarray:
    """Make the image of a case, shape (Z, Y, X); the test does the same."""
    image = images[case["image"]]
    image = image[tuple(slice(*part) for part in case.get("part", []))]
    image = np.tile(image, case.get("tile", [1, 1, 1]))
    if "scale" in case:
        image = np.round(image * case["scale"]).astype(image.dtype)
    image = np.pad(image, case.get("pad", 0))
    for hole in case.get("holes", []):
        image[tuple(slice(*part) for part in hole)] = 0
    return image


def answer(folder: Path, case: dict[str, Any], image: np.ndarray, properties: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and probabilities of nnU-Net's own predictor, with everything as it is by default."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    checkpoint = f"checkpoint_{case.get('checkpoint', 'final')}.pth"
    predictor.initialize_from_trained_model_folder(str(folder), use_folds=tuple(case.get("folds", [0])), checkpoint_name=checkpoint)
    found = predictor.predict_single_npy_array(image, properties, None, None, save_or_return_probabilities=True)
    return found[0], found[1]


def as_it_is(values: np.ndarray) -> np.ndarray:
    """Return an array as it is."""
    return values


def read(path: Path, reader: str) -> tuple[np.ndarray, dict[str, Any], Callable[[np.ndarray], np.ndarray]]:
    """Read a file as nnU-Net does; return image, properties, and what brings labels to the order of the file."""
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIOWithReorient
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO, SimpleITKIOWithReorient

    classes = {kind.__name__: kind for kind in (NibabelIOWithReorient, SimpleITKIO, SimpleITKIOWithReorient)}
    image, properties = classes[reader]().read_images([str(path)])
    if reader == "SimpleITKIO":
        return image, properties, as_it_is
    stored = nibabel.load(path)
    turned = nibabel.orientations.io_orientation(stored.affine)
    back = nibabel.orientations.ornt_transform([[0, 1], [1, 1], [2, 1]], turned)
    return image, properties, lambda values: nibabel.orientations.apply_orientation(values.transpose(), back).transpose()


class Wide:
    """Stands for torch where the predictor allocates its sums, which it keeps in half precision."""

    def __getattr__(self, name: str) -> Any:
        import torch

        return torch.float32 if name == "half" else getattr(torch, name)


def record() -> None:
    """Ask the predictor about each case of ``cases.json``, as it is and with sums in float32, and write ``answers.npz``."""
    import SimpleITK as sitk
    from nnunetv2.inference import predict_from_raw_data

    sample = sitk.ReadImage(str(TARGET.parents[3] / "sample_data" / "hippocampus_mri.nii.gz"))
    images = {"sample": np.round(sitk.GetArrayFromImage(sample)).astype(np.uint16)}
    arrays: dict[str, np.ndarray] = {}
    for case in json.loads((TARGET / "cases.json").read_text()):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            shutil.copytree(TARGET / case["model"], folder)
            for name in ("plans", "dataset"):
                file = folder / f"{name}.json"
                file.write_text(json.dumps(edited(json.loads(file.read_text()), case.get(name, {}))))
            if "file" in case:
                image, properties, back = read(TARGET / case["file"], case.get("plans", {}).get("image_reader_writer", "SimpleITKIO"))
            else:
                image, properties, back = made(images, case)[None].astype(np.float32), {"spacing": case["spacing"]}, as_it_is
            labels, _ = answer(folder, case, image, dict(properties))
            with patch.object(predict_from_raw_data, "torch", Wide()):
                wide, scores = answer(folder, case, image, dict(properties))
        labels, wide, scores = back(labels), back(wide), np.stack([back(values) for values in scores])
        arrays[case["name"]] = labels.astype(np.uint8)
        places = np.flatnonzero(wide != labels)
        arrays[f"{case['name']}, float32"] = np.stack([places, wide.ravel()[places]]).astype(np.int32)
        arrays[f"{case['name']}, probabilities"] = scores[:, ::7, ::7, ::7].astype(np.float16)
        print(f"{case['name']}: {labels.shape}, {np.bincount(labels.ravel())}, {np.count_nonzero(labels != wide)} differ in float32")
    np.savez_compressed(TARGET / "answers.npz", **arrays)


if __name__ == "__main__":
    keep_timm_out()
    if len(sys.argv) > 1:
        main()
    record()
