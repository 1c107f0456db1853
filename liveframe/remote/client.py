"""Clients of a BatchModel, near or far: the same calls, several of them in flight."""

import time
from collections.abc import Callable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from threading import BoundedSemaphore
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from liveframe.breaker import Breaker, BreakerPolicy
from liveframe.errors import LateError, LiveframeError, ModelError, OverloadedError
from liveframe.model import BatchModel, BatchSpec, check_batch
from liveframe.remote.picture import Encoding
from liveframe.remote.transport import Answer, Transport, content_parameter
from liveframe.remote.wire import MEDIA_TYPE, Extras, WireLimits, decode_batch, encode_batch
from liveframe.stats import Meter, StageTime

Batch = NDArray[np.uint8]
Extra = NDArray[np.float32]
Authorize = Callable[[], str]
"""Gives the Authorization header's value for each request, from any thread; caches and renews it itself."""


class LocalClient:
    """The embedded BatchModel behind a client's calls. Thread-safe; owns one thread for `submit`."""

    def __init__(self, model: BatchModel, max_in_flight: int = 4) -> None:
        """Take a model that is warm.

        Args:
            model: answers here.
            max_in_flight: how many `submit` calls may be open.
        """
        self._model = model
        self.spec = model.spec
        self.max_in_flight = max_in_flight
        self._pool = BoundedPool(1, max_in_flight, "liveframe-local")

    def predict(self, batch: Batch, **extras: Extra) -> Batch:
        """Answer on the caller's thread; see BatchModel."""
        check_batch(batch, self.spec, extras)
        return self._model.predict(batch, **extras)

    def submit(self, batch: Batch, **extras: Extra) -> Future[Batch]:
        """Answer on the client's own thread. The future fails with OverloadedError when too many are open."""
        return self._pool.submit(partial(self.predict, **extras), batch)

    def close(self) -> None:
        """End the thread; open futures are cancelled."""
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class RemotePolicy:
    """How a RemoteClient calls.

    Attributes:
        deadline_s: for one answer, connecting included, in seconds.
        max_in_flight: requests at once; a further one is refused with OverloadedError.
        hedge_after_s: send a request once more after this many seconds without an answer; None: never.
        encoding: of the pictures that are sent, and so of those that come back.
        mask_encoding: of a fourth channel that comes back.
        quality: 1 to 100, for JPEG and WEBP.
        limits: what an answer may be.
        breaker: when to leave a failing server in peace.
    """

    deadline_s: float = 0.2
    max_in_flight: int = 4
    hedge_after_s: float | None = None
    encoding: Encoding = Encoding.JPEG
    mask_encoding: Encoding = Encoding.PNG
    quality: int = 90
    limits: WireLimits = field(default_factory=WireLimits)
    breaker: BreakerPolicy = field(default_factory=BreakerPolicy)


class RemoteClient:
    """A BatchModel at a URL. Thread-safe.

    Bodies are those of `liveframe.remote.wire`; the server answers in the encoding of the request.
    """

    def __init__(
        self,
        url: str,
        spec: BatchSpec,
        policy: RemotePolicy | None = None,
        authorize: Authorize | None = None,
        parameters: Mapping[str, str] | None = None,
        bundle: str = "",
    ) -> None:
        """Take an endpoint; nothing is sent yet.

        Args:
            url: of the predict route, http or https.
            spec: what the served model takes and gives; answers are checked against it.
            policy: limits.
            authorize: gives the Authorization header; its value is never logged nor put in errors.
            parameters: of the Content-Type, with every request: what the server offers to choose, such as
                `variant`. The time left, `deadline-ms`, is added to them.
            bundle: digest of the bundle that must answer, for its name goes into marks and claims; "" for any.
        """
        self._policy = policy or RemotePolicy()
        self._transport = Transport(url, self._policy.limits.max_bytes, max_idle=2 * self._policy.max_in_flight)
        self._authorize = authorize
        self._content_type = "; ".join([MEDIA_TYPE, *(f'{key}="{value}"' for key, value in (parameters or {}).items())])
        self._meter = Meter()
        self._bundle = bundle
        self.spec = spec
        self.max_in_flight = self._policy.max_in_flight
        self.breaker = Breaker(self._policy.breaker)
        threads = self.max_in_flight * (2 if self._policy.hedge_after_s is not None else 1)
        self._pool = BoundedPool(threads, threads, "liveframe-remote")

    def predict(self, batch: Batch, **extras: Extra) -> Batch:
        """Answer by the deadline; see BatchModel.

        Raises:
            FrameError: the batch does not fit the spec.
            LateError: no answer by the deadline.
            OverloadedError: the server refuses work, the breaker is open, or too many calls are in flight.
            WireError: the answer cannot be read.
            ModelError: anything else that went wrong there or on the way.
        """
        until_s = time.monotonic() + self._policy.deadline_s
        first = self._start(batch, extras, until_s)
        hedge_s = self._policy.hedge_after_s
        if hedge_s is None:
            return _result_by(first, until_s, self._transport.name)
        done, _ = wait([first], timeout=hedge_s)
        if done:
            return first.result()
        second = self._start(batch, extras, until_s)
        return _first_good([first, second], until_s, self._transport.name)

    def submit(self, batch: Batch, **extras: Extra) -> Future[Batch]:
        """Send a batch and go on; the future gives what `predict` would give or raise."""
        return self._start(batch, extras, time.monotonic() + self._policy.deadline_s)

    def latency(self) -> StageTime | None:
        """Median and 95th percentile of answered calls, in ms; None before the first."""
        return self._meter.stages().get("remote")

    def close(self) -> None:
        """Hang up; calls under way fail."""
        self._transport.close()
        self._pool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, batch: Batch, extras: Extras, until_s: float) -> Future[Batch]:
        """Hand a call to the pool, unless the server is to be left in peace."""
        check_batch(batch, self.spec, extras)
        open_s = self.breaker.open_for_s()
        if open_s > 0:
            refused: Future[Batch] = Future()
            refused.set_exception(OverloadedError(f"{self._transport.name} is left in peace after errors.", open_s))
            return refused
        return self._pool.submit(self._call, batch, extras, until_s)

    def _call(self, batch: Batch, extras: Extras, until_s: float) -> Batch:
        """One request and its answer, on a thread of the pool."""
        policy = self._policy
        start_s = time.monotonic()
        left_ms = max(1.0, (until_s - start_s) * 1e3)
        headers = {"Content-Type": f"{self._content_type}; deadline-ms={left_ms:.0f}", "Accept": MEDIA_TYPE}
        try:
            if self._authorize is not None:
                headers["Authorization"] = self._authorize()
            body = encode_batch(batch, policy.encoding, policy.mask_encoding, policy.quality, extras)
            images = self._read(self._transport.post(body, headers, until_s), len(batch))
        except LiveframeError as error:
            self.breaker.fail(error)
            raise
        except Exception as error:  # the token provider's own errors
            self.breaker.fail(error)
            raise ModelError(f"{self._transport.name} could not be asked ({type(error).__name__}).") from error
        self.breaker.succeed()
        self._meter.add([("remote", (time.monotonic() - start_s) * 1e3)])
        return images

    def _read(self, answer: Answer, count: int) -> Batch:
        """Turn a server's answer into a batch, or into the error that it means."""
        name = self._transport.name
        if answer.status in (429, 503):
            raise OverloadedError(f"{name} is overloaded ({answer.status}).", answer.retry_after_s)
        if answer.status in (401, 403):
            raise ModelError(f"{name} refuses the credentials ({answer.status}). Check the account and its rights.")
        if answer.status != 200:
            sentence = answer.body[:200].decode("utf-8", "replace")
            raise ModelError(f"{name} answered {answer.status}: {sentence}")
        served = content_parameter(answer.content_type, "bundle")
        if self._bundle and served != self._bundle:
            raise ModelError(
                f"{name} must play the bundle {self._bundle[:12]}, but {served[:12] or 'an unnamed one'} answered. "
                "Its answer is not shown."
            )
        images = decode_batch(answer.body, self._policy.limits).images
        if images.shape != (count, *self.spec.output_shape):
            expected = [count, *self.spec.output_shape]
            raise ModelError(f"{name} must answer {expected}, but answered {list(images.shape)}. Is it another model?")
        return images


class BoundedPool:
    """Threads with a bound on what is open; beyond it, a future that has failed already."""

    def __init__(self, threads: int, most: int, name: str) -> None:
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._room = BoundedSemaphore(most)

    def submit(self, call: Callable[..., Batch], *arguments: object) -> Future[Batch]:
        """Run a call on one of the threads. Never blocks, never raises: refusals are in the future."""
        refused: Future[Batch] = Future()
        if not self._room.acquire(blocking=False):
            refused.set_exception(OverloadedError("Too many calls are in flight already.", 0.0))
            return refused
        try:
            future = self._pool.submit(call, *arguments)
        except RuntimeError:
            self._room.release()
            refused.set_exception(ModelError("The client is closed. Open another one."))
            return refused
        future.add_done_callback(lambda _: self._room.release())
        return future

    def close(self) -> None:
        """Take no more calls and cancel those not begun. Does not wait."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def _result_by(future: Future[Batch], until_s: float, name: str) -> Batch:
    """Wait for a future until a deadline."""
    try:
        return future.result(max(0.0, until_s - time.monotonic()))
    except TimeoutError as error:
        raise LateError(f"{name} gave no answer by the deadline. Is it overloaded?") from error


def _first_good(futures: list[Future[Batch]], until_s: float, name: str) -> Batch:
    """The first answer that is no error; the last error if all are."""
    pending = set(futures)
    while True:
        done, pending = wait(pending, max(0.0, until_s - time.monotonic()), FIRST_COMPLETED)
        if not done:
            raise LateError(f"{name} gave no answer by the deadline. Is it overloaded?")
        good = next((future for future in done if future.exception() is None), None)
        if good is not None or not pending:
            return (good or done.pop()).result()
