"""``Results``: which trained models a results folder or an exported zip of nnU-Net holds, and the one that a reference means.

Any of these levels can be given::

    Dataset004_Hippocampus/
    Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres/           plans.json  dataset.json
    Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0/    checkpoint_final.pth  checkpoint_best.pth
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from napari_tileseg.errors import ModelError, ModelNotFoundError
from napari_tileseg.models.archive import Archive, is_zip, parse_json, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Choice", "Results", "Trained", "choose", "detect", "files", "find_stage"]

_PREFERRED = ("3d_fullres", "3d_cascade_fullres", "2d", "3d_lowres")
"""Which configuration is taken where several are there and none is named."""

_CHECKPOINT = re.compile(r"checkpoint_\w+\.pth")
_FOLD = re.compile(r"fold_(\d+|all)")
_LARGEST_JSON = 64 * 2**20


@dataclass(frozen=True)
class Trained:
    """One folder ``trainer__plans__configuration``.

    Parameters
    ----------
    folder : str
        Its name inside the results, with slashes.
    dataset, trainer, plans, configuration : str
        As its names say; empty where they say nothing.
    folds : dict of str to tuple of str
        For each fold the checkpoints that are there.
    """

    folder: str
    dataset: str
    trainer: str
    plans: str
    configuration: str
    folds: dict[str, tuple[str, ...]]

    def path(self, name: str) -> str:
        """Return the name of one of its files inside the results."""
        return f"{self.folder}/{name}" if self.folder else name


@dataclass(frozen=True)
class Choice:
    """One trained model, and which checkpoints of it answer together."""

    trained: Trained
    folds: tuple[str, ...]
    checkpoint: str

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Their names inside the results."""
        return tuple(self.trained.path(f"fold_{fold}/{self.checkpoint}") for fold in self.folds)


class Results:
    """The files of nnU-Net's results that matter here, in a folder or a zip.

    Parameters
    ----------
    path : Path
        A dataset, one trained model of it, one fold of that; or a zip.

    Raises
    ------
    ModelNotFoundError
        If nothing is there.
    ModelError
        If it is damaged, or leads outside.
    """

    def __init__(self, path: Path) -> None:
        self.only_fold = ""
        self._archive = Archive(path) if is_zip(path) else None
        if not path.exists():
            raise ModelNotFoundError(f'There is nothing at "{printable(str(path))}". Give a results folder of nnU-Net.')
        fold = _FOLD.fullmatch(path.name)
        if fold and not (path / "plans.json").exists():
            self.only_fold = fold[1]
            path = path.absolute().parent
        self.root = path
        names = self._archive.names if self._archive else _listed(path)
        self.trained = _trained(names, path.absolute())

    def json(self, name: str) -> Any:
        """Return what a JSON file of the results says."""
        if self._archive:
            return self._archive.json(name)
        path = self.root / name
        try:
            if path.stat().st_size > _LARGEST_JSON:
                raise ModelError(f"{name} is larger than {_LARGEST_JSON} bytes, so it is no file of nnU-Net. Get the model again.")
            return parse_json(path.read_bytes(), name)
        except OSError as error:
            raise ModelError(f'"{path.name}" cannot be read: {error.strerror or error}. Check the file and its permissions.') from None

    def file(self, name: str) -> Path:
        """Return a file on the disk; of a zip, unpacked into a private cache."""
        return self._archive.file(name) if self._archive else self.root / name


def detect(path: Path) -> bool:
    """Tell whether this is a results folder, at any level, or an export of nnU-Net; never raises."""
    try:
        return bool(Results(path).trained) if path.is_dir() or is_zip(path) else False
    except (ModelError, OSError):
        return False


def files(path: Path) -> Iterable[Path]:
    """Return the files that models at this place consist of."""
    if not path.is_dir():
        return [path]
    results = Results(path)
    return [
        results.root / trained.path(name)
        for trained in results.trained
        for name in (
            "plans.json",
            "dataset.json",
            *(f"fold_{fold}/{checkpoint}" for fold, checkpoints in trained.folds.items() for checkpoint in checkpoints),
        )
        if not results.only_fold or "/" not in name or name.startswith(f"fold_{results.only_fold}/")
    ]


def choose(
    results: Results,
    *,
    configuration: str = "",
    folds: str = "",
    checkpoint: str = "",
    trainer: str = "",
    plans: str = "",
) -> Choice:
    """Choose one trained model.

    Parameters
    ----------
    results : Results
    configuration : str
        ``"2d"``, ``"3d_fullres"``, ...; the first of 3d_fullres, 3d_cascade_fullres, 2d and 3d_lowres that is there by default.
    folds : str
        ``"0,1,2"`` or ``"all"`` (nnU-Net's name for the fold that saw all data); every numbered fold by default.
    checkpoint : str
        ``"final"`` (the default), ``"best"`` or ``"latest"``; where nobody chose, the best one where the final one is missing.
    trainer, plans : str
        Their names, where several are there.

    Raises
    ------
    ModelError
        If there is none; the sentence says what there is.
    """
    if not results.trained:
        raise ModelError(
            f'"{printable(results.root.name)}" holds no trained model of nnU-Net: a folder with plans.json, dataset.json and '
            "fold_0/checkpoint_final.pth. Give a results folder."
        )
    found = results.trained
    for name, wanted in (("configuration", configuration), ("trainer", trainer), ("plans", plans)):
        there = sorted({getattr(trained, name) for trained in found})
        if wanted and wanted not in there:
            raise ModelError(f'There is no {name} "{printable(wanted)}" here. Choose one of {", ".join(there)}.')
        found = [trained for trained in found if not wanted or getattr(trained, name) == wanted]
    if not configuration:
        there = [trained.configuration for trained in found]
        preferred = next((name for name in _PREFERRED if name in there), there[0])
        found = [trained for trained in found if trained.configuration == preferred]
    for name in ("dataset", "trainer", "plans"):
        several = sorted({getattr(trained, name) for trained in found})
        if len(several) > 1:
            how = "Give the folder of one." if name == "dataset" else f"Choose one: ?{name}={several[0]}."
            raise ModelError(f"Models of several {name}{'s' * (name != 'plans')} are here: {', '.join(several)}. {how}")
    return _chosen(found[0], folds or results.only_fold, checkpoint)


def find_stage(results: Results, choice: Choice, configuration: str) -> tuple[Results, Choice]:
    """Find the first stage of a cascade: in the same results, or in the folder beside that of the second stage.

    Its folds and its checkpoint are those of the second stage, where it has them.

    Parameters
    ----------
    results : Results
    choice : Choice
        The second stage.
    configuration : str
        The first one's.

    Raises
    ------
    ModelError
        If it is not there; the sentence says what belongs where.
    """
    second = choice.trained

    def fits(trained: Trained) -> bool:
        return (trained.configuration, trained.trainer, trained.plans) == (configuration, second.trainer, second.plans)

    place, found = results, next((trained for trained in results.trained if fits(trained)), None)
    if found is None and results.root.is_dir() and not second.folder:
        place = Results(results.root.absolute().parent)
        found = next((trained for trained in place.trained if fits(trained) and trained.dataset == second.dataset), None)
    if found is None:
        name = "__".join((second.trainer, second.plans, configuration)).lstrip("_")
        raise ModelError(
            f"{second.configuration} is the second stage of a cascade and sees the labels of {configuration}, which is not here. "
            f'Put the folder "{printable(name)}" beside that of {second.configuration}, or choose another configuration.'
        )
    for folds, checkpoint in ((",".join(choice.folds), choice.checkpoint), ("", choice.checkpoint)):
        try:
            return place, _chosen(found, folds, checkpoint)
        except ModelError:
            continue
    return place, _chosen(found, "", "")


def _chosen(trained: Trained, folds: str, checkpoint: str) -> Choice:
    name = checkpoint.removeprefix("checkpoint_").removesuffix(".pth")
    wanted = f"checkpoint_{name or 'final'}.pth"
    if not name and not any(wanted in there for there in trained.folds.values()):
        wanted = next((other for there in trained.folds.values() for other in sorted(there)), wanted)
    usable = [fold for fold, there in trained.folds.items() if wanted in there]
    if folds:
        chosen = [fold.strip().removeprefix("fold_") for fold in folds.split(",")]
        missing = next((fold for fold in chosen if fold not in usable), None)
        if missing is not None:
            raise ModelError(f'Fold "{printable(missing)}" has no {wanted} here. Folds that have one: {", ".join(usable) or "none"}.')
    else:
        chosen = [fold for fold in usable if fold != "all"] or usable
    if not chosen:
        there = sorted({other for checkpoints in trained.folds.values() for other in checkpoints})
        raise ModelError(f"There is no {printable(wanted)} here. There are {', '.join(there)}.")
    return Choice(trained, tuple(dict.fromkeys(chosen)), wanted)


def _listed(folder: Path) -> list[str]:
    """Return the names of plans and checkpoints below a folder, three levels deep and no deeper."""
    found = []
    for level in ("", "*/", "*/*/"):
        for pattern in ("plans.json", "dataset.json", "fold_*/checkpoint_*.pth"):
            found += [path.relative_to(folder).as_posix() for path in folder.glob(level + pattern) if path.is_file()]
    return found


def _trained(names: Iterable[str], root: Path) -> list[Trained]:
    known = set(names)
    folders: dict[str, dict[str, list[str]]] = {}
    for name in sorted(known):
        parts = name.split("/")
        fold = _FOLD.fullmatch(parts[-2]) if len(parts) > 1 else None
        if fold and _CHECKPOINT.fullmatch(parts[-1]):
            folders.setdefault("/".join(parts[:-2]), {}).setdefault(fold[1], []).append(parts[-1])
    complete = [folder for folder in folders if {f"{folder}/{name}".lstrip("/") for name in ("plans.json", "dataset.json")} <= known]
    found = []
    for folder in complete:
        place = root / PurePosixPath(folder) if folder else root
        words = place.name.split("__")
        trainer, plans, configuration = words if len(words) == 3 else ("", "", "")
        folds = {fold: tuple(there) for fold, there in sorted(folders[folder].items(), key=lambda item: (len(item[0]), item[0]))}
        found.append(Trained(folder, place.parent.name, trainer, plans, configuration, folds))
    return found
