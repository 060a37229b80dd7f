"""``train``: from images and labels to a model package; what a command line, a widget and a script call."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_tileseg.engine.predict import out_of_memory
from napari_tileseg.errors import Cancelled, DeviceMemoryError, OptionsError, OutputError, RunError
from napari_tileseg.io.output import put_in_place
from napari_tileseg.models.nets import build_network
from napari_tileseg.models.package import build_module, write_package
from napari_tileseg.training.adversary import make_adversary
from napari_tileseg.training.card import write_curves
from napari_tileseg.training.events import EpochEnded, Noted, StepEnded, TrainingEnded, TrainingStarted
from napari_tileseg.training.fit import BatchSplit, Epoch, Finished, Step, fit, learning_rate
from napari_tileseg.training.ignored import heed_ignored
from napari_tileseg.training.objective import Objective
from napari_tileseg.training.plan import make_plan
from napari_tileseg.training.prepare import memory_room, prepare_items
from napari_tileseg.training.probe import probe
from napari_tileseg.training.ranks import ALONE, joined
from napari_tileseg.training.report import inspect
from napari_tileseg.training.result import FITTED, fit_decoder, write_result
from napari_tileseg.training.sampling import Batch, Sampler
from napari_tileseg.training.start import start_network
from napari_tileseg.training.training_log import TrainingLog, picture_of
from napari_tileseg.training.validate import Validation
from napari_tileseg.training.work_folder import WorkFolder, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor, nn

    from napari_tileseg.models.spec import ModelSpec
    from napari_tileseg.training.config import TrainConfig
    from napari_tileseg.training.events import TrainEvent
    from napari_tileseg.training.fit import FitOptions
    from napari_tileseg.training.plan import Plan
    from napari_tileseg.training.ranks import Ranks
    from napari_tileseg.training.report import Report

__all__ = ["preview", "train"]

_FREE = {"device", "log", "memory_limit", "preview", "output", "patience"}
"""Fields that may differ when a training goes on."""

_FITTED_NOTE = "What turns scores into objects was fitted to the validation images, so the scores on them are somewhat too good."

_NOTHING = "No epoch has found anything that is right in the validation images, so the weights of the last one are kept."

_NO_ROOM = "There is no memory for this network and what it is trained with. Choose a smaller network, or a smaller window."

_HALVED = "The device has no memory for the batch; {} crops are learnt at once, and the result is nearly the same."

_REPORTS = 20
"""Steps are told about this often in an epoch."""


def train(
    config: TrainConfig,
    data: Sequence[tuple[Any, Any]] | None = None,
    *,
    on_event: Callable[[TrainEvent], None] | None = None,
    cancel: Callable[[], bool] | None = None,
    paused: Callable[[], bool] | None = None,
    resume: bool = True,
    overwrite: bool = False,
    views: Path | None = None,
) -> ModelSpec:
    """Train a model and write it; where ``torchrun`` has started several processes, all of them learn it together.

    Parameters
    ----------
    config : TrainConfig
    data : sequence of (image, labels), optional
        Paths, volumes or arrays, instead of the config's folders.
    on_event : callable, optional
        Receives every event of `napari_tileseg.training.events`.
    cancel : callable, optional
        Asked after each step and each tile of a validation; true stops the training and keeps the best model so far.
    paused : callable, optional
        Asked after each step; the training waits while it is true.
    resume : bool
        Go on where an earlier call with this config was interrupted; False begins anew.
    overwrite : bool
        Replace a model that stands in the output folder.
    views : Path, optional
        Folder for the labels that the best model gives to the validation images, which its events then tell of.

    Returns
    -------
    ModelSpec
        As written, with its scores; the weights are those of the best epoch.

    Raises
    ------
    InputError, OptionsError, ModelError, OutputError
        Before anything is learnt, each with a sentence that says what to do. OutputError also where the disk is full.
    Cancelled
        If it was stopped before anything was learnt.
    RunError, DeviceMemoryError
        If the loss is no number any more, or there is no memory for the network or a single crop; the best model so far is written
        if there is one, and ``error.kept`` says where.
    """
    with joined(config.device) as ranks:
        tell = on_event if on_event is not None and ranks.first else lambda event: None
        training = _Training(config, data, tell, cancel or (lambda: False), paused or (lambda: False), views, ranks)
        try:
            return training.run(resume=resume, overwrite=overwrite)
        except (MemoryError, RuntimeError) as error:  # outside of a batch, which would be learnt in halves
            if not out_of_memory(error):
                raise
            raise DeviceMemoryError(_NO_ROOM) from error
        finally:
            training.work.release()


def preview(
    config: TrainConfig,
    data: Sequence[tuple[Any, Any]] | None = None,
    *,
    cancel: Callable[[], bool] = lambda: False,
    on_event: Callable[[TrainEvent], None] | None = None,
) -> TrainingStarted:
    """Return what `train` would begin with; nothing is learnt and nothing is written.

    Parameters
    ----------
    config, data, cancel
        As of `train`.
    on_event : callable, optional
        Receives what is returned as soon as it is there, and then a `TrainingExpected`, for which a few steps are tried.

    Raises
    ------
    InputError, OptionsError, ModelError, OutputError
        As `train` would, before anything is learnt.
    Cancelled
    """
    config = heed_ignored(config)
    output, name = place_of(config)
    work = WorkFolder(output)
    work.check(resume=True, overwrite=True)
    if output.exists() and not work.checkpoint.is_file():
        raise OutputError(f'There is a model "{output.name}" already. Choose another name.')
    report = inspect(config, data, cancel=cancel)
    plan = make_plan(config, report, name)
    build_network(plan.spec.architecture, **plan.spec.arguments)  # what cannot be built is said now
    started = TrainingStarted(len(report.train), len(report.val), report.lines, report.warnings, plan.settings(), config.epochs)
    if on_event is not None:
        on_event(started)
        on_event(probe(config, report, plan, cancel=cancel))
    return started


class _Training:
    """One call of `train`."""

    def __init__(
        self,
        config: TrainConfig,
        data: Sequence[tuple[Any, Any]] | None,
        tell: Callable[[TrainEvent], None],
        cancel: Callable[[], bool],
        paused: Callable[[], bool],
        views: Path | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        config = self.config = heed_ignored(config)
        self.ranks = ranks
        self.data = data
        self.listener = tell
        self.cancel = cancel
        self.paused = paused
        self.views = views
        self.output, self.name = place_of(config)
        self.work = WorkFolder(self.output)
        self.notes: dict[str, Any] = {"history": [], "best": None, "best_epoch": 0, "scores": {}, "rows": {}}
        self.log: TrainingLog | None = None
        self.report: Report
        self.plan: Plan
        self.validation: Validation
        self.sampler: Sampler | None = None
        self.state: dict[str, Tensor] | None = None

    @property
    def history(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.notes["history"]
        return found

    def tell(self, event: TrainEvent) -> None:
        if self.log is not None:
            self.log.tell(event)
        self.listener(event)

    def run(self, *, resume: bool, overwrite: bool) -> ModelSpec:
        config, ranks = self.config, self.ranks
        device = ranks.device(config.device)
        ranks.once(lambda: self.work.check(resume=resume, overwrite=overwrite))
        self.report = inspect(config, self.data, cancel=self.cancel)
        self.plan = make_plan(config, self.report, self.name)
        crops = ranks.crops(self.plan.batch, config.accumulation)
        self._open(resume=resume)
        if ranks.first:
            folder = Path(config.log).expanduser() / self.name if config.log else self.work.path / "tensorboard"
            self.log = TrainingLog(folder, config.epochs, self.plan.epoch_steps)
        network, remarks = start_network(config, self.plan.spec)
        network = network.to(device)
        if ranks.size > 1:
            shared, own = self.plan.batch, self.plan.batch // ranks.size
            remarks = (*remarks, f"{ranks.size} processes learn together: of each batch of {shared} crops, {own} each.")
        room = config.memory_limit if config.memory_limit is not None or ranks.size == 1 else memory_room() // ranks.local_size
        self.sampler = Sampler(
            prepare_items(
                self.report.train,
                self.report,
                self.plan.spec,
                folder=self.work.path / "prepared" / str(ranks.rank),
                unlabelled=config.unlabelled,
                axes=config.axes,
                memory_limit=room,
                cancel=self.cancel,
            ),
            self.plan.augmentation,
            channels=self.plan.channels,
            batch=self.plan.batch * config.accumulation,
            centred=config.foreground,
            seed=config.seed,
            only=crops,
        )
        self.validation = Validation(
            self.report.val,
            self.plan.spec,
            values=self.report.values,
            rule=self.report.rule,
            unlabelled=config.unlabelled,
            axes=config.axes,
            preview=config.preview,
            views=self.views,
            ranks=ranks,
        )
        settings = self.plan.settings()
        self.tell(
            TrainingStarted(len(self.report.train), len(self.report.val), self.report.lines, self.report.warnings, settings, config.epochs)
        )
        for remark in remarks:
            self.tell(Noted(remark))
        try:
            return self._learn(network, device)
        except RunError as error:
            if not isinstance(error, Cancelled) and ranks.first and self._best_there():
                self._complete("failed", 0.0, keep=True)
                error.kept = self.output
            raise
        finally:
            if self.log is not None:
                self.log.close()

    def _batch(self, number: int) -> Batch:
        assert self.sampler is not None
        return self.sampler.batch(number)

    def _learn(self, network: nn.Module, device: str) -> ModelSpec:
        config, plan = self.config, self.plan
        options = plan.fit_options(config, device)
        model = copy.deepcopy(network)
        reason, seconds = "done", 0.0
        events = fit(
            network,
            Objective(plan.loss, plan.loss_arguments(config), masks=plan.spec.has_masks),
            self._batch,
            options,
            checkpoint=self.work.checkpoint,
            resume=True,
            cancel=self._stop,
            report_every=max(1, plan.epoch_steps // _REPORTS),
            notes=self.notes,
            ranks=self.ranks,
            adversary=make_adversary(config, plan.spec, device, self.ranks),
        )
        with contextlib.closing(events):  # type: ignore[type-var]  # it is a generator
            for number, event in enumerate(events):
                if number == 0 and self.history:  # the checkpoint has been read by now
                    self.tell(Noted(f"Going on after epoch {len(self.history)} of {config.epochs}."))
                match event:
                    case Step(step, steps, loss, seconds, parts):
                        rate = learning_rate(step / steps, options)
                        self.tell(StepEnded(step, steps, loss, rate, seconds, _left(seconds, step, steps), losses=parts))
                    case BatchSplit(_, size):
                        self.tell(Noted(_HALVED.format(size * self.ranks.size)))
                    case Epoch():
                        self.state = event.state
                        model.load_state_dict(event.state)
                        if not self._validate(event, model, device, options):
                            reason = "stopped"
                            break
                        if self._waited_enough():
                            reason = "early"
                            break
                    case Finished(_, seconds, state, cancelled):
                        self.state = state
                        reason = "stopped" if cancelled else "done"
                if reason == "early":
                    break
        return self._finish(reason, seconds, keep=reason == "stopped")

    def _stop(self) -> bool:
        while self.paused() and not self.cancel():
            time.sleep(0.05)
        return self.cancel()

    def _validate(self, event: Epoch, model: nn.Module, device: str, options: FitOptions) -> bool:
        """Score an epoch and keep its weights if it is the best; return False where somebody stopped that."""
        validation, began = self.validation, time.monotonic()
        number = len(self.history) + 1
        scores: dict[str, float] = {}
        shown = None
        if validation.items:
            try:
                scores, shown = validation.run(model, device=device, cancel=self._stop, note=lambda text: self.tell(Noted(text)))
            except Cancelled:
                return False
        score = validation.score(scores) if validation.items else None
        before = self.notes["best"]
        better = before is None or score is None or score > before
        best = better or score == before == 0  # where nothing has been found yet, the last weights are the nearest to it
        rate = learning_rate(event.step / options.steps, options)
        self.history.append({"epoch": number, "loss": event.loss, "rate": rate, "score": score, **event.parts, **scores})
        if best:
            self.notes |= {"best": score, "best_epoch": number, "scores": scores, "rows": validation.rows}
        if better:
            self.notes["improved"] = number
        self.ranks.once(lambda: self._keep(event.state if best else None))
        path = self._preview(shown) if self.ranks.first else ""
        if self.log is not None and shown is not None and (best or self.log.wants(number)):
            seen = validation.previewed(shown)
            if seen is not None:
                self.log.show(number, validation.preview, picture_of(*seen, shown, self.plan.spec.colors))
        left = _left(event.seconds + time.monotonic() - began, event.step, options.steps)  # each epoch that is left is validated too
        self.tell(
            EpochEnded(
                number,
                self.config.epochs,
                event.loss,
                score,
                scores,
                best,
                rate,
                event.seconds,
                left,
                validation.preview if path else "",
                path,
                validation.look_back() if best else (),
                losses=event.parts,
            )
        )
        return True

    def _keep(self, best: dict[str, Tensor] | None) -> None:
        if best is not None:
            write_package(self.work.best, self.plan.spec, best)
        self.work.write("curves.csv", write_curves(self.history))

    def _preview(self, labels: Any) -> str:
        if labels is None:
            return ""
        path = self.work.path / "preview.npy"
        with put_in_place(path, overwrite=True) as temporary:
            np.save(temporary, labels)
        return str(path.absolute())

    def _waited_enough(self) -> bool:
        waited = len(self.history) - self.notes.get("improved", self.notes["best_epoch"])
        return 0 < self.config.patience <= waited and self.notes["best"] is not None

    def _best_there(self) -> bool:
        return bool(self.notes["best_epoch"]) and self.work.best.is_dir()

    def _finish(self, reason: str, seconds: float, *, keep: bool) -> ModelSpec:
        """Write the model; what is needed to go on stays where `keep` says so."""
        written = self.ranks.once(lambda: self._complete(reason, seconds, keep=keep))
        if not keep:
            self._remove()  # other computers have one too
        return written

    def _remove(self) -> None:
        """Remove what only a training that goes on needs; files that are open or mapped first go out of hand, or Windows keeps them."""
        if self.log is not None:
            self.log.close()
        self.sampler = None
        self.work.remove()

    def _complete(self, reason: str, seconds: float, *, keep: bool) -> ModelSpec:
        if self._best_there():
            _, module = build_module(self.work.best)
            state = module.state_dict()
        elif self.state is not None:
            state = self.state
        else:
            raise Cancelled("Stopped before anything was learnt. The same call goes on from here.")
        if reason in ("done", "early") and self._best_there():
            self._fit_decoder(state)
        if self.notes["best"] == 0:
            self.tell(Noted(_NOTHING))
            self.report = replace(self.report, warnings=(*self.report.warnings, _NOTHING))
        written = write_result(self.output, self.config, self.plan, self.report, self.notes, state, ended=reason, log=self.log)
        if not keep:
            self._remove()
        self.tell(TrainingEnded(str(self.output), self.notes["best_epoch"], self.notes["best"], reason, seconds))
        return written

    def _fit_decoder(self, state: dict[str, Tensor]) -> None:
        """Fit the decoder of a model of objects to the validation images, and keep that where they are scored better with it."""
        spec, config, validation = self.plan.spec, self.config, self.validation
        if spec.output != "instances" or spec.output_offset is not None or spec.fixed_window or not validation.items:
            return
        examples = prepare_items(
            validation.items[:FITTED],
            self.report,
            spec,
            folder=self.work.path / "fitted",
            unlabelled=config.unlabelled,
            axes=config.axes,
            memory_limit=config.memory_limit,
        )
        validation.ranks = ALONE  # the others wait for the result
        validation.spec = spec.model_copy(update={"decoder_parameters": fit_decoder(spec, state, examples)})
        network = build_network(spec.architecture, **spec.arguments)
        network.load_state_dict(state)
        scores, _ = validation.run(network, device=self.ranks.device(config.device))
        score = validation.score(scores)
        if score is not None and score > (self.notes["best"] or 0.0):
            self.tell(Noted(f"The decoder was fitted to the validation images: score {score:.3f} instead of {self.notes['best']:.3f}."))
            self.plan = replace(self.plan, spec=validation.spec)
            self.report = replace(self.report, warnings=(*self.report.warnings, _FITTED_NOTE))
            self.notes |= {"best": score, "scores": scores, "rows": validation.rows}

    def _open(self, *, resume: bool) -> None:
        """Make the folder for what is needed to go on, or find that of an earlier call."""
        told: dict[str, Any] = {
            "config": self.config.model_dump(mode="json", exclude=_FREE),
            "images": hashlib.sha256(json.dumps([(fact.item.name, fact.digest) for fact in self.report.facts]).encode()).hexdigest(),
        }
        if len(set(self.ranks.gather(json.dumps(told)))) > 1:
            raise OptionsError("The processes found different images or settings. Give each the same command and the same files.")
        self.ranks.once(lambda: self.work.begin(told, resume=resume))


def _left(seconds: float, step: int, steps: int) -> float | None:
    return seconds / step * (steps - step) if step else None
