"""Train a small cascade of nnU-Net and record what nnU-Net's own predictor answers, for tests/models/loaders/test_nnunet_cascade.py.

Run it as ``record_nnunet.py``, in the same environment::

    nnunet-venv/bin/python scripts/record_nnunet_cascade.py FOLDER_OF_HIPPOCAMPUS_MRI    # trains, then records
    nnunet-venv/bin/python scripts/record_nnunet_cascade.py                              # records the cases again

The volumes are too small for nnU-Net to plan a cascade, so its plans are given one: a first stage at 1.6 mm.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from record_nnunet import TARGET, Wide, as_it_is, edited, keep_timm_out, made, read, slim

DATASET = "Dataset903_HippocampusCascade"
CASES = 24
EPOCHS, STEPS = 12, 100
FIRST, SECOND = (f"nnUNetTrainer__nnUNetPlans__{name}" for name in ("3d_lowres", "3d_cascade_fullres"))


def write_raw(source: Path, raw: Path) -> None:
    """Lay out the training data as nnU-Net wants it."""
    import SimpleITK as sitk

    images = sorted((source / "train" / "images").glob("*.nii.gz"))[:CASES]
    for part in ("imagesTr", "labelsTr"):
        (raw / DATASET / part).mkdir(parents=True)
    for path in images:
        stem = path.name.removesuffix(".nii.gz")
        image = sitk.ReadImage(str(path))
        labels = sitk.ReadImage(str(source / "train" / "labels" / path.name))
        labels.CopyInformation(image)
        sitk.WriteImage(image, str(raw / DATASET / "imagesTr" / f"{stem}_0000.nii.gz"))
        sitk.WriteImage(labels, str(raw / DATASET / "labelsTr" / f"{stem}.nii.gz"))
    facts: dict[str, Any] = {"channel_names": {"0": "T1"}, "numTraining": len(images), "file_ending": ".nii.gz"}
    facts |= {"labels": {"background": 0, "anterior": 1, "posterior": 2}}
    (raw / DATASET / "dataset.json").write_text(json.dumps(facts, indent=1))


def plan(preprocessed: Path) -> None:
    """Let nnU-Net plan, add a cascade, and make the networks small."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    extract_fingerprints([903], num_processes=1)
    plan_experiments([903])
    file = preprocessed / DATASET / "nnUNetPlans.json"
    plans = json.loads(file.read_text())
    whole = plans["configurations"]["3d_fullres"]
    arguments = whole["architecture"]["arch_kwargs"]
    arguments.update(
        n_stages=3,
        features_per_stage=[4, 8, 16],
        kernel_sizes=[[3] * 3] * 3,
        strides=[[1] * 3, [2] * 3, [2] * 3],
        n_conv_per_stage=[1, 1, 1],
        n_conv_per_stage_decoder=[1, 1],
    )
    whole.update(patch_size=[24, 32, 24], batch_size=2, batch_dice=False)
    coarse = json.loads(json.dumps(whole))
    coarse.update(data_identifier="nnUNetPlans_3d_lowres", patch_size=[20, 24, 20], spacing=[1.6, 1.6, 1.6])
    coarse["next_stage"] = "3d_cascade_fullres"
    plans["configurations"]["3d_lowres"] = coarse
    plans["configurations"]["3d_cascade_fullres"] = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    file.write_text(json.dumps(plans, indent=1))
    preprocess([903], configurations=["3d_fullres", "3d_lowres"], num_processes=[1, 1])


def train(configuration: str, fold: int | str, preprocessed: Path) -> Path:
    """Train one fold of a stage; the first stage then says what it finds in all volumes, for the second to learn from."""
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    torch.manual_seed(0)
    np.random.seed(0)
    plans = json.loads((preprocessed / DATASET / "nnUNetPlans.json").read_text())
    facts = json.loads((preprocessed / DATASET / "dataset.json").read_text())
    plans["continue_training"] = False  # as its command line adds it
    trainer = nnUNetTrainer(plans=plans, configuration=configuration, fold=fold, dataset_json=facts, device=torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = EPOCHS, STEPS, 2
    trainer.run_training()
    if configuration == "3d_lowres":
        trainer.perform_actual_validation(save_probabilities=False)
    return Path(trainer.output_folder_base)


def main() -> None:
    """Train and copy."""
    source = Path(sys.argv[1])
    work = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(tempfile.mkdtemp())
    for name in ("raw", "preprocessed", "results"):
        (work / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(work / name)
    os.environ.update(nnUNet_n_proc_DA="1", nnUNet_def_n_proc="1", nnUNet_compile="f")
    write_raw(source, work / "raw")
    plan(work / "preprocessed")
    shutil.rmtree(TARGET / DATASET, ignore_errors=True)
    os.environ["nnUNet_n_proc_DA"] = "0"  # augment in this process; while planning, the number must be positive
    for configuration, fold in (("3d_lowres", "all"), ("3d_cascade_fullres", 0)):
        folder = train(configuration, fold, work / "preprocessed")
        slim(folder, TARGET / DATASET / folder.name)


def answers(folder: Path, image: np.ndarray, properties: dict[str, Any], first_fold: int | str = "all") -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of both stages, of nnU-Net's own predictor."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    found: list[np.ndarray] = []
    for stage, fold in ((FIRST, first_fold), (SECOND, 0)):
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(folder / stage), use_folds=(fold,))
        given = found[0][None].astype(np.float32) if found else None  # as its readers give it
        found.append(predictor.predict_single_npy_array(image, dict(properties), given, None))
    return found[0], found[1]


def record() -> None:
    """Ask about each case, as the predictor is and with sums in float32, and write ``cascade.npz``."""
    import SimpleITK as sitk
    from nnunetv2.inference import predict_from_raw_data

    sample = sitk.ReadImage(str(TARGET.parents[3] / "sample_data" / "hippocampus_mri.nii.gz"))
    images = {"sample": np.round(sitk.GetArrayFromImage(sample)).astype(np.uint16)}
    arrays: dict[str, np.ndarray] = {}
    for case in json.loads((TARGET / "cascade_cases.json").read_text()):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / DATASET
            shutil.copytree(TARGET / DATASET, folder)
            for stage in (FIRST, SECOND):
                file = folder / stage / "plans.json"
                file.write_text(json.dumps(edited(json.loads(file.read_text()), case.get("plans", {}))))
            if "file" in case:
                image, properties, back = read(TARGET / case["file"], case.get("plans", {}).get("image_reader_writer", "SimpleITKIO"))
            else:
                image, properties, back = made(images, case)[None].astype(np.float32), {"spacing": case["spacing"]}, as_it_is
            first, second = answers(folder, image, properties)
            with patch.object(predict_from_raw_data, "torch", Wide()):
                _, wide = answers(folder, image, properties)
        first, second, wide = back(first), back(second), back(wide)
        arrays[case["name"]], arrays[f"{case['name']}, first stage"] = second.astype(np.uint8), first.astype(np.uint8)
        places = np.flatnonzero(wide != second)
        arrays[f"{case['name']}, float32"] = np.stack([places, wide.ravel()[places]]).astype(np.int32)
        told = f"{np.count_nonzero(first != second)} by the second stage, {len(places)} in float32"
        print(f"{case['name']}: {second.shape}, {np.bincount(second.ravel())}; differ: {told}")
    np.savez_compressed(TARGET / "cascade.npz", **arrays)


def record_regions() -> None:
    """Ask about a cascade with regions, which tests/models/loaders/nnunet_regions.py makes, and write ``regions_cascade.npz``."""
    import SimpleITK as sitk
    from nnunetv2.inference import predict_from_raw_data

    sys.path.insert(0, str(TARGET.parent))
    import nnunet_regions

    sample = sitk.ReadImage(str(TARGET.parents[3] / "sample_data" / "hippocampus_mri.nii.gz"))
    image = np.round(sitk.GetArrayFromImage(sample)).astype(np.uint16)[None].astype(np.float32)
    arrays: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = nnunet_regions.write(Path(temporary))
        for case in nnunet_regions.CASES:
            first, second = answers(folder, image, {"spacing": case["spacing"]}, 0)
            with patch.object(predict_from_raw_data, "torch", Wide()):
                _, wide = answers(folder, image, {"spacing": case["spacing"]}, 0)
            arrays[case["name"]], arrays[f"{case['name']}, float32"] = second.astype(np.uint8), wide.astype(np.uint8)
            told = f"{np.count_nonzero(first != second)} by the second stage, {np.count_nonzero(wide != second)} in float32"
            print(f"regions, {case['name']}: {np.bincount(first.ravel())} {np.bincount(second.ravel())}; differ: {told}")
    np.savez_compressed(TARGET / "regions_cascade.npz", **arrays)


if __name__ == "__main__":
    keep_timm_out()
    if len(sys.argv) > 1:
        main()
    record()
    record_regions()
