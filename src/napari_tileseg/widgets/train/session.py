"""One viewer's training: looked at, started, followed, paused, stopped, carried on; it outlives the dock that started it."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal

from napari_tileseg.errors import TileSegError
from napari_tileseg.training.events import EpochEnded, SamplesMade, StepEnded, TrainingEnded, TrainingExpected, TrainingStarted
from napari_tileseg.widgets.bridge import supervisor
from napari_tileseg.widgets.followed import Followed
from napari_tileseg.widgets.session import session_of, tell_models_changed
from napari_tileseg.widgets.states import Phase, Prospect, duration
from napari_tileseg.widgets.train.pairs import LayerFiles
from napari_tileseg.widgets.train.samples import Samples, read_samples
from napari_tileseg.widgets.train.shown import Look, Shown, read_shown
from napari_tileseg.widgets.train.states import Training, advance, view
from napari_tileseg.worker.messages import Died, Done, Evented, Failed

if TYPE_CHECKING:
    import napari

    from napari_tileseg.training.config import TrainConfig
    from napari_tileseg.training.unsupervised.config import UnsupervisedConfig
    from napari_tileseg.widgets.session import Session
    from napari_tileseg.widgets.states import Message
    from napari_tileseg.widgets.train.pairs import Example
    from napari_tileseg.worker.training_run import TrainingRun

__all__ = ["Curve", "Order", "TrainSession", "train_session_of"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Order:
    """Everything a training is made of, frozen when the button was pressed.

    Parameters
    ----------
    config : TrainConfig or UnsupervisedConfig
    examples : tuple of Example
        Layers to learn from; none where the config has folders.
    axes : str
        Of the images of a folder, where the user has named them.
    """

    config: TrainConfig | UnsupervisedConfig
    examples: tuple[Example, ...] = ()
    axes: str = ""

    @property
    def title(self) -> str:
        noun = "pair" if self.epochs else "image"
        source = f"{len(self.examples)} {noun}{'s' * (len(self.examples) != 1)}" if self.examples else Path(self.config.images).name
        return f"{source} \N{RIGHTWARDS ARROW} {self.config.name}"

    @property
    def epochs(self) -> int:
        """How many there are; 0 for a training without labels, which counts steps only."""
        return self.config.epochs if self.config.kind == "train" else 0


@dataclass(eq=False)
class Curve:
    """What is painted: (epoch, value), epochs broken for losses; and the validation images of the best epoch.

    Without labels: (step, value) of what learns now, and instead of scores the part of its loss that `measure` names. With a
    discriminator the loss is that of the segmentation, since the sum rises where the discriminator gets better; the rest is `beside`.
    """

    losses: list[tuple[float, float]] = field(default_factory=list)
    scores: list[tuple[float, float]] = field(default_factory=list)
    images: tuple[dict[str, Any], ...] = ()
    stage: str = ""
    title: str = "Loss"
    measure: str = ""
    begin: float = 0.0
    beside: dict[str, float] = field(default_factory=dict)

    def learnt(self, event: StepEnded) -> None:
        """Take a step of a training without labels; what learns next has curves of its own."""
        if event.stage != self.stage:
            self.stage, self.begin = event.stage, self.losses[-1][0] + self.begin if self.losses else 0.0
            self.losses, self.scores = [], []
        names = list(event.losses)
        self.title = "Generator" if "generator" in names else "Loss"
        self.measure = names[-1] if len(names) > 1 else ""
        place = event.step - self.begin
        for points, value in ((self.losses, event.loss), (self.scores, event.losses.get(self.measure))):
            while points and points[-1][0] >= place:  # it goes on from what was saved
                points.pop()
            if value is not None:
                points.append((place, value))


class TrainSession(Followed):
    """The training of one viewer; `told` speaks of a validation image.

    Signals
    -------
    looked
        What `look` was asked for: the order, and a `TrainingStarted` or an error.
    """

    looked = Signal(object, object)

    state: Training

    def __init__(self, segment: Session) -> None:
        super().__init__(segment, Training())
        self.curve = Curve()
        self.order: Order | None = None
        self._files = LayerFiles()
        self._look_token: object = None
        self._looking: TrainingRun | None = None
        self._found: TrainingStarted | None = None
        self._asked = ""
        self._clicked = False
        viewer = segment.viewer
        self.layers = Look(viewer) if viewer is not None else None
        self._samples: Samples | None = None
        self._reading = False

    # -- what a training would do ----------------------------------------------------------------------------------

    def look(self, order: Order) -> None:
        """Find out what there is to learn from, and what follows from it; `looked` tells."""
        self.leave_look()
        if self.active or self._closed:
            return
        token = self._look_token = object()
        self._bridge.background(lambda: self._files.save(order.examples), lambda answer: self._on_look_saved(token, order, answer))

    def leave_look(self) -> None:
        """Look no further."""
        self._look_token, self._found = None, None
        if self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _on_look_saved(self, token: object, order: Order, answer: Any) -> None:
        if token is not self._look_token or self._closed:
            return
        if isinstance(answer, Exception):
            self._tell_looked(order, answer)
            return
        deliver = self._bridge.carry(lambda message: self._on_look(token, order, message))
        try:
            self._looking = supervisor().start_training(order.config, answer, on_message=deliver, dry=True)
        except TileSegError as error:
            self._tell_looked(order, error)

    def _on_look(self, token: object, order: Order, message: Any) -> None:
        if token is not self._look_token:
            return
        match message:
            case Evented(TrainingStarted() as found):
                self._found = found
                self.looked.emit(order, found)
            case Evented(TrainingExpected(seconds=seconds)) if self._found is not None:
                told = self._found.settings | {"expected": duration(seconds)}
                self._tell_looked(order, replace(self._found, settings=told))
            case Done():
                self._look_token, self._looking = None, None
            case Failed(_, sentence) | Died(sentence):
                self._tell_looked(order, TileSegError(sentence))

    def _tell_looked(self, order: Order, answer: object) -> None:
        self._look_token, self._looking = None, None
        self.looked.emit(order, answer)

    # -- deeds -----------------------------------------------------------------------------------------------------

    def start(self, order: Order, *, again: bool = False) -> None:
        """Start a training, or go on with one that was stopped.

        Parameters
        ----------
        order : Order
        again : bool
            Whether curves and results of the last one stay.
        """
        if self.active or self._closed:
            return
        self.leave_look()
        self.order = order
        if not again:
            self.curve = Curve()
            self._samples = Samples(self.viewer, order.config.name) if self.viewer is not None else None
        before = self.state if again else Training()
        started = Training(Phase.LOADING, name=order.config.name, title=order.title, epochs=order.epochs)
        kept = replace(started, task="Saving the layers", best_epoch=before.best_epoch, score=before.score, measure=before.measure)
        token = self._set_out(kept)
        self._bridge.background(
            lambda: (self._files.save(order.examples), self._files.folder()), lambda answer: self._hand_over(token, answer)
        )

    def carry_on(self) -> None:
        """Go on with a training that was stopped, or whose process died."""
        if self.order is not None and self.state.phase.resumable:
            self.start(self.order, again=True)

    def forget(self) -> None:
        """Put the last training away: a new one is to be set up."""
        if not self.active:
            self.order, self._run, self._token, self.curve = None, None, None, Curve()
            self._asked = ""
            self._become(Training())

    def show(self, name: str) -> None:
        """Show a validation image, its labels and what the model makes of it."""
        self._asked, self._clicked = name, True
        self._show()

    def close(self) -> None:
        self.leave_look()
        super().close()
        self._files.close()

    # -- a training's way ------------------------------------------------------------------------------------------

    def _hand_over(self, token: object, answer: Any) -> None:
        order = self.order
        if token is not self._token or not self.active or order is None:
            return
        if isinstance(answer, Exception):
            self._fail(answer, "The layers could not be saved")
            return
        data, views = answer
        self._launch(
            lambda receiver: supervisor().start_training(order.config, data, on_message=receiver, views=views),
            f"training of {order.config.name}",
        )

    def _advance(self, message: Any) -> Training:
        return advance(self.state, message)

    def _outcome(self) -> Message | None:
        return view(Prospect(), self.state).message

    def _hear(self, event: Any) -> None:
        curve, epochs = self.curve, max(self.state.epochs, 1)
        match event:
            case StepEnded() if not self.state.epochs:
                curve.learnt(event)
            case SamplesMade():
                self._show_samples(event)
            case StepEnded(step, steps, loss, losses=parts):
                if "segmentation" in parts:
                    curve.title, loss = "Segmentation", parts["segmentation"]
                    curve.beside = {name: value for name, value in parts.items() if name != "segmentation"}
                place = step / steps * epochs
                while curve.losses and curve.losses[-1][0] >= place:  # it goes on from the end of an epoch
                    curve.losses.pop()
                curve.losses.append((place, loss))
            case EpochEnded():
                if event.score is not None:
                    curve.scores = [*(point for point in curve.scores if point[0] < event.epoch), (event.epoch, event.score)]
                if event.images:
                    curve.images = event.images
                    self._show()
            case TrainingEnded():
                tell_models_changed()

    def _show(self) -> None:
        """Open what was asked for, or renew it after a better epoch."""
        asked, order = self._asked, self.order
        image = next((image for image in self.curve.images if image["name"] == asked), None)
        if image is None or order is None or self.layers is None:
            return
        examples = {example.name: example for example in order.examples}
        self._bridge.background(lambda: read_shown(image, examples, order.axes), lambda answer: self._on_shown(asked, answer))

    def _on_shown(self, asked: str, answer: Shown | Exception) -> None:
        if self._closed or asked != self._asked or self.layers is None:
            return
        if isinstance(answer, Exception):
            if not isinstance(answer, TileSegError):
                _LOG.error("a validation image could not be shown", exc_info=answer)
            self.told.emit(str(answer) if isinstance(answer, TileSegError) else f'"{asked}" could not be shown: {answer}.')
            return
        self.told.emit("")
        if self._clicked and answer.example is not None and self.order is not None:
            self.layers.reveal(answer.example, self.order.examples)  # not again at each better epoch: the user may look elsewhere
        self._clicked = False
        self.layers.show(answer)

    def _show_samples(self, made: SamplesMade) -> None:
        """Show what the model makes now, unless what it made before is still being read."""
        if self._samples is None or self._reading:
            return
        self._reading = True
        self._bridge.background(lambda: read_samples(made), lambda answer: self._on_samples(made, answer))

    def _on_samples(self, made: SamplesMade, answer: Any) -> None:
        self._reading = False
        if self._closed or self._samples is None:
            return
        if isinstance(answer, Exception):
            _LOG.info("samples could not be shown: %s", answer)  # the next ones come soon
            return
        self._samples.show(answer, pairs=made.pairs)


def train_session_of(viewer: napari.viewer.Viewer) -> TrainSession:
    """Return the training session of a viewer; docks come and go, the session stays."""
    return session_of(viewer).beside(TrainSession)
