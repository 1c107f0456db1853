"""Bringing a model up on a thread of its own: warm it, try it, open a session."""

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np

from liveframe.errors import ModelError
from liveframe.frame import Frame
from liveframe.gate import verified_copy
from liveframe.model import FrameModel, FrameSession
from liveframe.worker import close_session

Configure = Callable[[FrameSession], None]


class Loading:
    """One attempt to bring a model up. Starts its thread at once; nobody waits for it.

    Attributes:
        model: the model.
        started_s: time.monotonic() at the start.
        future: done with None when the model serves, or with the ModelError that prevented it.
    """

    def __init__(
        self,
        model: FrameModel,
        trial: Frame | None,
        configure: Configure,
        on_done: Callable[["Loading", FrameSession | None, BaseException | None], None],
        future: Future[None] | None = None,
    ) -> None:
        """Start.

        Args:
            model: what to bring up.
            trial: a frame that a throw-away session must answer in form, or None for no trial.
            configure: gives a new session the viewer's settings.
            on_done: called on the loading thread with the opened session, or with the error.
            future: who waits for it already; a new one where nobody does.
        """
        self.model = model
        self.started_s = time.monotonic()
        self.future = future or Future[None]()
        self._trial = trial
        self._configure = configure
        self._on_done = on_done
        self._thread = threading.Thread(target=self._run, name="liveframe-loading", daemon=True)
        self._thread.start()

    def is_alive(self) -> bool:
        """Whether its thread still runs."""
        return self._thread.is_alive()

    def join(self, timeout_s: float) -> bool:
        """Wait for its thread to end; True if it did."""
        self._thread.join(max(0.0, timeout_s))
        return not self.is_alive()

    def resolve(self, error: BaseException | None = None) -> None:
        """Tell whoever waits on the future. Safe to call twice: the first word counts."""
        resolve(self.future, error)

    def _run(self) -> None:
        try:
            self.model.warm_up()
            if self._trial is not None:
                self._try(self._trial)
            session = self.model.open_session()
            self._configure(session)
        except BaseException as error:
            self._on_done(self, None, error)
        else:
            self._on_done(self, session, None)

    def _try(self, frame: Frame) -> None:
        """Have a throw-away session answer a frame; any well-formed answer will do."""
        session = self.model.open_session()
        try:
            self._configure(session)
            verified_copy(frame, session.process(frame))
        finally:
            close_session(session)


def resolve(future: Future[None], error: BaseException | None = None) -> None:
    """Tell whoever waits on a future. Safe to call twice: the first word counts."""
    with contextlib.suppress(Exception):
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def trial_frame(last: Frame | None) -> Frame:
    """The frame that a new model is tried on: the stream's last one, or noise before there is any."""
    if last is not None:
        return last
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    return Frame(noise, 0, time.monotonic())


def as_model_error(error: BaseException) -> ModelError:
    """Wrap what a model raised while loading in a sentence."""
    if isinstance(error, ModelError):
        return error
    return ModelError(
        f"The model could not be brought up ({type(error).__name__}): {error}. The old one, if any, stays."
    )
