"""``list_tasks``: from a job to its tasks; here names, outputs and journals are decided."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_tileseg.batch.naming import Names, inside, key, model_names, stem_of
from napari_tileseg.batch.task import Task
from napari_tileseg.batch.walk import Rules, Walk
from napari_tileseg.errors import Cancelled, InputError, OptionsError
from napari_tileseg.io.dicom_series import holds_dicom, series_in
from napari_tileseg.io.files import amount, readable
from napari_tileseg.io.plate import read_plate
from napari_tileseg.io.registry import count_series, suffix_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from napari_tileseg.batch.job import BatchJob
    from napari_tileseg.batch.walk import Found

__all__ = ["SAVED_LAYERS", "Listing", "list_tasks"]

_NIFTI = (".nii", ".nii.gz")

_SAME = {"nii": ".nii.gz", "nii_gz": ".nii.gz", "nrrd": ".nrrd", "nhdr": ".nrrd", "seg_nrrd": ".nrrd", "mha": ".mha", "mhd": ".mha"}
_SAME |= dict.fromkeys(("dcm", "dicom", "ima"), ".nii.gz")
"""Formats of medicine, whose results are of the same; NIfTI for DICOM."""

SAVED_LAYERS = Path(".tileseg", "layers")
"""Where in the output folder layers are saved that no file stands behind; their results go to the top of the output folder."""

JOURNALS = Path(".tileseg", "journals")
"""Where in the output folder the journals stand."""

THUMBNAILS = Path("report_files", "thumbnails")
"""Where in the output folder the small pictures for the report stand."""


@dataclass(frozen=True)
class Listing:
    """What a batch consists of.

    Parameters
    ----------
    tasks : tuple of Task
        One for each image and model: all images with the first model, then with the next.
    left_out : tuple of (str, str)
        Files that are no task, each with the reason.
    size : int
        Bytes of the images, each counted once.
    images : int
        How many there are.
    """

    tasks: tuple[Task, ...]
    left_out: tuple[tuple[str, str], ...] = ()
    size: int = 0
    images: int = 0

    @property
    def summary(self) -> str:
        """One line: ``"96 images, 14.0 GB; 3 files left out (2: it is no image; 1: it is hidden)"``."""
        line = f"{_many(self.images, 'image')}, {amount(self.size)}"
        if not self.left_out:
            return line
        reasons = Counter("it is the same as another" if " the same " in reason else reason for _, reason in self.left_out)
        why = "; ".join(f"{count}: {reason}" for reason, count in reasons.most_common())
        return f"{line}; {_many(len(self.left_out), 'file')} left out ({why})"


@dataclass(frozen=True)
class _Image:
    """One image of a file.

    Parameters
    ----------
    name : str
        What people read.
    path : Path
        What is opened.
    folder, stem, kind : str
        Where its results go below the output folder, their name before the template, and the file's suffix as part of a name.
    series : int or None
        Which image of several; None where the file holds one, or the job says which.
    size : int
    labels : Path or None
        Group for the labels, where they go into the image's own store.
    """

    name: str
    path: Path
    folder: str
    stem: str
    kind: str
    series: int | None = None
    size: int = 0
    labels: Path | None = None


def list_tasks(job: BatchJob, *, empty: bool = False, cancel: Callable[[], bool] | None = None) -> Listing:
    """List what a job consists of; no pixel is read.

    The same folder gives the same names each time, whatever is in the output folder.

    Parameters
    ----------
    job : BatchJob
    empty : bool
        Whether a folder without images is accepted: a microscope may write there later.
    cancel : callable, optional
        Asked for every folder and every file of several images; true stops.

    Raises
    ------
    InputError
        If an input is not there, may not be read, or nothing in it is an image.
    OptionsError
        If a model is given twice, names cannot be made by the template, or results would stand among the images.
    Cancelled
        If `cancel` said so.
    """
    models = model_names(job.models)
    names = _names(job)
    output = _absolute(job.output)
    if output.is_file():
        raise OptionsError(f'"{output.name}" is a file. Give a folder for the results.')
    inputs = [_absolute(given) for given in job.inputs]
    stop = cancel or (lambda: False)
    walk = _walk(job, inputs, output, stop)
    while True:
        images, left_out = _images(job, walk.found, inputs, stop)
        plain = _tasks(job, images, models, names, output)
        if (earlier := _earlier_results(walk.found, plain, names)) is None:
            break
        walk.found = [item for item in walk.found if item not in earlier]
        walk.left_out += [(readable(item.place), "it is a result of this batch") for item in earlier]
        names = _names(job)
    if not plain and not empty:
        raise InputError(_nothing(job, inputs, walk))
    _check_apart(walk.found, plain, job)
    return Listing(tuple(plain), tuple(walk.left_out + left_out), sum(image.size for image in images), len(images))


def _names(job: BatchJob) -> Names:
    wanted = {
        "_objects.csv": job.objects,
        "_overlay.png": job.overlays,
        "_scores.ome.tif": job.options.scores,
        "_uncertainty.ome.tif": job.options.uncertainty,
        "_uncertainty.nii.gz": job.options.uncertainty,
    }
    return Names(job.template, len(job.models) > 1, tuple(end for end, asked in wanted.items() if asked))


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(os.path.expanduser(path)))


def _walk(job: BatchJob, inputs: list[Path], output: Path, stop: Callable[[], bool]) -> Walk:
    saved = output / SAVED_LAYERS
    if len(inputs) == 1 and not os.path.lexists(inputs[0]) and inputs[0].parent != saved:
        raise InputError(f'There is no file or folder "{inputs[0]}". Check the name.')
    around = any(inside(output, path) for path in inputs)
    rules = Rules(job.pattern, job.exclude, job.recursive, output if around else None, saved)
    walk = Walk(_root([path for path in inputs if path.parent != saved] or inputs), rules, stop)
    for path in dict.fromkeys(inputs):
        walk.add(path)
    walk.finish()
    return walk


def _root(inputs: list[Path]) -> Path | None:
    """Return the folder that all inputs lie in; the job alone decides it, so that a new file changes no name."""
    folders = [path if path.is_dir() and suffix_of(path) in ("", ".dcm") else path.parent for path in inputs]
    try:
        return Path(os.path.commonpath(folders))
    except ValueError:  # on different drives
        return None


def _images(
    job: BatchJob, found: Iterable[Found], inputs: list[Path], stop: Callable[[], bool]
) -> tuple[list[_Image], list[tuple[str, str]]]:
    """Take files apart that hold several images."""
    images: list[_Image] = []
    left_out: list[tuple[str, str]] = []
    for item in found:
        if stop():
            raise Cancelled("Cancelled while the images were being listed.")
        if item.path.is_dir() and holds_dicom(item.path):
            shown, more = _dicom(job, item)
            images += shown
            left_out += more
            continue
        folder, _, file = item.place.rpartition("/")
        stem, kind = stem_of(file)
        name = readable(item.place)
        single = _Image(name, item.path, folder, stem, kind, None, item.size)
        try:
            plate = read_plate(item.path)
        except InputError as error:
            left_out.append((name, str(error)))
            continue
        if plate is not None:
            prefix = "" if inputs == [item.path] else f"{name} "
            into = job.format in ("auto", ".ome.zarr")
            for field in plate.fields:
                below, _, last = f"{folder}/{stem}/{field.place}".strip("/").rpartition("/")
                size = item.size // len(plate.fields)
                labels = field.path / "labels" if into else None
                images.append(_Image(f"{prefix}{readable(field.name)}", field.path, below, last, "", None, size, labels))
            left_out += [(f"{prefix}{readable(lost)}", f"it {reason}") for lost, reason in plate.missing]
            continue
        count = _count(item.path) if job.series == "all" else 1
        if count == 1:
            images.append(single)
        else:
            images += [
                _Image(f"{name} series {number}", item.path, folder, stem, kind, number, item.size // count) for number in range(count)
            ]
    return images, left_out


def _dicom(job: BatchJob, item: Found) -> tuple[list[_Image], list[tuple[str, str]]]:
    """Take a folder of DICOM apart: slices of a series are one image, named as the folder; a file of its own keeps its name."""
    base = "" if item.place == "." else item.place
    above, _, own = base.rpartition("/")
    name = readable(base or item.path.name)
    folder = _Image(name, item.path, above, own or item.path.name, "dcm", None, item.size)
    try:
        found = series_in(item.path)
    except InputError:
        return [folder], []  # its task says what is wrong with it
    chosen = [number for number in range(len(found)) if job.series in (0, "all", number)]
    several = sum(len(found[number].files) > 1 for number in chosen) > 1
    images, left_out = [], []
    for number in chosen:
        files = found[number].files
        if found[number].is_labels:
            left_out.append((readable(f"{base}/{files[0].name}".lstrip("/")), "it is a segmentation"))
        elif len(files) == 1 and len(found) > 1:
            images.append(_Image(f"{name}/{readable(files[0].name)}", files[0], base, stem_of(files[0].name)[0], "dcm", None, _size(files)))
        else:
            # The only one of several slices needs no number: any of its files stands for it.
            path = item.path if several or len(found) == 1 else files[0]
            title, series = (f"{name} series {number}", number) if several else (name, None)
            images.append(_Image(title, path, above, folder.stem, "dcm", series, _size(files)))
    return images, left_out


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _count(path: Path) -> int:
    try:
        return count_series(path)
    except InputError:
        return 1  # its task says what is wrong with it


def _tasks(job: BatchJob, images: list[_Image], models: dict[str, str], names: Names, output: Path) -> list[Task]:
    places = [(model, image) for model in job.models for image in images]
    plain = [_plain(image, models[model], names) for model, image in places]
    many = Counter(key(name + _suffix(job, image)) for name, (_, image) in zip(plain, places, strict=True))
    chosen: dict[int, str] = {}
    order = range(len(places))
    for number in sorted(order, key=lambda number: many[key(plain[number] + _suffix(job, places[number][1]))] > 1):
        model, image = places[number]
        alone = many[key(plain[number] + _suffix(job, image))] == 1
        told_apart = _told_apart(image, models[model], names)
        chosen[number] = names.choose([plain[number], told_apart] if alone else [told_apart], _suffix(job, image))
    return [_task(job, number, *places[number], models, chosen[number], output) for number in order]


def _plain(image: _Image, model: str, names: Names) -> str:
    if image.labels is not None:
        return f"{image.folder}/{image.stem}/labels/{_own_labels(model, names)}"
    return f"{image.folder}/{names.plain(image.stem, model, image.series)}".lstrip("/")


def _told_apart(image: _Image, model: str, names: Names) -> str:
    """Return a name in which the file's suffix, or its stem where the template has none, tells two images apart."""
    usual, other = names.plain(image.stem, model, image.series), names.plain(f"{image.stem}_{image.kind}", model, image.series)
    return f"{image.folder}/{other if usual != other else f'{usual}_{image.stem}'}".lstrip("/")


def _own_labels(model: str, names: Names) -> str:
    """Return the name of labels in the image's own store: the template's words without the image's, or the model's name."""
    name = names.plain("", model, None).strip("_-. /").replace("/", "_")
    return name or model


def _suffix(job: BatchJob, image: _Image) -> str:
    if image.labels is not None:
        return ""
    if job.format != "auto":
        return job.format
    return _SAME.get(image.kind, ".ome.tif")


def _task(job: BatchJob, number: int, model: str, image: _Image, models: dict[str, str], chosen: str, output: Path) -> Task:
    below = chosen + _suffix(job, image)
    own = image.labels is not None
    beside = output / (f"{image.folder}/{image.stem}_{chosen.rpartition('/')[2]}" if own else chosen)
    digest = hashlib.blake2b(below.encode("utf-8", "surrogatepass"), digest_size=10).hexdigest()
    nifti = below.endswith(_NIFTI)
    return Task(
        number=number,
        name=image.name if len(job.models) == 1 else f"{image.name} with {models[model]}",
        input=str(image.path),
        model=model,
        output=str(image.labels / chosen.rpartition("/")[2] if image.labels is not None else output / below),
        journal=str(output / JOURNALS / digest),
        options=job.options,
        axes=job.axes,
        channels=job.channels,
        series=image.series if image.series is not None else 0 if job.series == "all" else job.series,
        level=job.level,
        objects=f"{beside}_objects.csv" if job.objects else "",
        overlay=f"{beside}_overlay.png" if job.overlays else "",
        scores=f"{beside}_scores.ome.tif" if job.options.scores else "",
        uncertainty=f"{beside}_uncertainty{'.nii.gz' if nifti else '.ome.tif'}" if job.options.uncertainty else "",
        thumbnail=str(output / THUMBNAILS / f"{digest}.jpg") if job.report or job.overlays else "",
        size=image.size,
    )


def _earlier_results(found: list[Found], tasks: list[Task], names: Names) -> list[Found] | None:
    """Return the files that are results of other files of the list: an earlier run has put them beside their images."""
    made = {}
    for task in tasks:
        stem, _ = stem_of(task.output)
        for path in (task.output, *(stem + end for end in names.sides)):
            made[key(path)] = task.input
    earlier = [item for item in found if made.get(key(str(item.path)), str(item.path)) != str(item.path)]
    return earlier or None


def _check_apart(found: list[Found], tasks: list[Task], job: BatchJob) -> None:
    """Refuse to write results among the images under names that cannot be told from theirs."""
    folders = {key(os.path.realpath(item.path.parent)) for item in found}
    plain = Names(job.template).plain("stem", "", None) == "stem" and len(job.models) == 1
    stand = {key(str(item.path)) for item in found}
    for task in tasks:
        among = plain and key(os.path.realpath(os.path.dirname(task.output))) in folders
        if among or key(task.output) in stand:
            where = Path(task.output).parent.name
            raise OptionsError(
                f'The results would stand among the images in "{where}". Choose another folder, or the names {{stem}}_labels.'
            )


def _nothing(job: BatchJob, inputs: list[Path], walk: Walk) -> str:
    """Say why there is nothing to do."""
    where = f'"{inputs[0].name}"' if len(inputs) == 1 else "the inputs"
    if walk.left_out:
        name, reason = walk.left_out[0]
        others = f", and {_many(len(walk.left_out) - 1, 'other')}" if len(walk.left_out) > 1 else ""
        return f"There is no image to segment in {where}: {name} ({reason}){others} left out. Choose another folder, or other files."
    if job.pattern:
        return f"There is no image in {where} whose name fits {' or '.join(job.pattern)}. Choose another folder, or other names."
    deeper = "" if job.recursive else ", or look into subfolders too"
    return f"There is no image in {where}. Choose another folder{deeper}."


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
