"""One HTTP request to one answer, free of any web framework: negotiation, batching, deadlines, refusals."""

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from functools import partial

import numpy as np
from numpy.typing import NDArray

from liveframe.errors import FrameError, LiveframeError, OverloadedError, WireError
from liveframe.remote.picture import Encoding
from liveframe.remote.wire import MEDIA_TYPE, Extras, peek_encoding
from serving.server.batcher import Batcher, BatchPolicy, DeadlineError
from serving.server.body import ByteBudget
from serving.server.metrics import CONTENT_TYPE, ServerMetrics
from serving.server.pool import Pool
from serving.server.routine import JSON, Inputs, Outputs, Payload, Routine, Task
from understudy.consent.record import ConsentError

_LOG = logging.getLogger(__name__)

DEADLINE_HEADER = "x-liveframe-deadline-ms"
VARIANT_HEADER = "x-liveframe-variant"
SUBJECTS_HEADER = "X-Liveframe-Subjects"
BUNDLE_HEADER = "X-Liveframe-Bundle"
_SMOOTHING = 0.2
_PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class ExchangePolicy:
    """Limits of a server.

    Attributes:
        batching: bounds of the batcher.
        deadline_s: of a request that names none.
        longest_deadline_s: the most that a request may ask for.
        margin: share of every deadline that is kept back for the way home; the time that encoding takes is added.
        max_frames: whole frames at work or waiting; more are refused.
        decoders: pictures read at the same time; two, so that a slow one does not hold up all others.
        max_waiting: requests that wait to be read, and answers that wait to be written; more are refused.
        max_held_bytes: of the bodies and pictures of all requests under way.
        stuck_s: a step of a request that takes longer hangs: the health route turns red, and whoever runs the server
            starts another one.
    """

    batching: BatchPolicy = field(default_factory=BatchPolicy)
    deadline_s: float = 1.0
    longest_deadline_s: float = 10.0
    margin: float = 0.08
    max_frames: int = 4
    decoders: int = 2
    max_waiting: int = 64
    max_held_bytes: int = 48_000_000
    stuck_s: float = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer: HTTP status, headers, body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Exchange:
    """Answers requests with a loaded routine. `answer` runs on one event loop; the rest is thread-safe.

    Whatever comes, `answer` answers: 400 with a sentence for a bad request, 429 with
    Retry-After for a server that is too busy to answer in time, 504 when a deadline passes
    nonetheless, 451 for a persona whose consent is missing, expired or revoked, 500 with a
    sentence when the model fails.
    """

    def __init__(self, routine: Routine, policy: ExchangePolicy | None = None) -> None:
        self.routine = routine
        self._policy = policy or ExchangePolicy()
        self.metrics = ServerMetrics()
        self._batcher = Batcher(routine.predict_crops, self._policy.batching, self._note_call)
        # Answers that are ready never wait behind requests that have only come in, and neither behind whole frames.
        limits = self._policy
        self._incoming = Pool("reading", limits.decoders, limits.max_waiting, limits.stuck_s)
        self._outgoing = Pool("writing", 1, limits.max_waiting, limits.stuck_s)
        self._framing = Pool("whole frames", 1, limits.max_frames - 1, limits.stuck_s, niceness=10)
        self._budget = ByteBudget(limits.max_held_bytes)
        self._finish_s = 0.0
        self._is_draining = False
        self._under_way = 0

    @property
    def is_healthy(self) -> bool:
        """Whether the bundle is verified and warm, requests are taken, and nothing hangs."""
        return not self._problem()

    @property
    def under_way(self) -> int:
        """How many requests are being answered."""
        return self._under_way

    def _problem(self) -> str:
        if self._is_draining or not self._batcher.is_alive:
            return "The server is shutting down. Ask another one."
        if not self.routine.is_loaded:
            return "The bundle is not loaded."
        pools = (self._incoming, self._outgoing, self._framing)
        if any(pool.is_stuck for pool in pools) or self._batcher.oldest_s > self._policy.stuck_s:
            return f"A request has been at work for over {self._policy.stuck_s:g} s. Start this server anew."
        return ""

    def health(self) -> Reply:
        """Answer the health route: 200 with what is served and how it goes, or 503."""
        if problem := self._problem():
            return _refuse(503, problem, 1.0)
        bundle, stats = self.routine.bundle, self._batcher.stats()
        facts = {
            "bundle": bundle.name,
            "version": bundle.version,
            "digest": bundle.digest,
            "variants": list(bundle.variants),
            "calls": stats.calls,
            "items": stats.items,
            "refused": stats.refused,
            "expired": stats.expired,
            "queued": stats.queued,
            "under_way": self._under_way,
            "item_ms": round(stats.item_ms, 3),
        }
        return Reply(200, {"Content-Type": JSON}, json.dumps(facts).encode())

    def scrape(self) -> Reply:
        """Answer `/metrics` in Prometheus' text format."""
        meters, stats = self.metrics, self._batcher.stats()
        for gauge, value in (
            (meters.queued, stats.queued),
            (meters.refused, stats.refused),
            (meters.expired, stats.expired),
        ):
            gauge.set(value)
        if self.is_healthy:
            bundle = self.routine.bundle
            meters.bundle.info({"name": bundle.name, "version": bundle.version, "digest": bundle.digest})
        return Reply(200, {"Content-Type": CONTENT_TYPE}, meters.render())

    def _note_call(self, items: int, took_s: float, waits_s: list[float]) -> None:
        self.metrics.batch.observe(items)
        self.metrics.stages.labels("model").observe(took_s)
        for wait_s in waits_s:
            self.metrics.stages.labels("queue").observe(wait_s)

    def close(self) -> None:
        """Refuse what waits and end the threads. Safe to call twice."""
        self._batcher.close()
        for pool in (self._incoming, self._outgoing, self._framing):
            pool.close()
        self.routine.close()

    def drain(self) -> None:
        """Finish what is under way, and refuse what is new: 503. Any thread."""
        self._is_draining = True

    async def answer(self, headers: Mapping[str, str], stream: AsyncIterable[bytes]) -> Reply:
        """Answer one request of the predict route.

        Args:
            headers: the request's, names in lower case.
            stream: the body as it arrives; read within the deadline, and no further than it may be long.
        """
        content_type, parameters = parse_content_type(headers.get("content-type", ""))
        variant = parameters.get("variant") or headers.get(VARIANT_HEADER, "")
        asked = parameters.get("deadline-ms") or headers.get(DEADLINE_HEADER)
        return await self.guarded(asked, headers, stream, partial(self._answer, content_type, variant))

    async def guarded(
        self,
        asked_ms: str | None,
        headers: Mapping[str, str],
        stream: AsyncIterable[bytes],
        answer: Callable[[bytes, float], Awaitable[Reply]],
    ) -> Reply:
        """Read a body and answer it within its deadline; whatever is raised becomes a status and a sentence.

        Args:
            asked_ms: the deadline that the client names, in milliseconds; None for the server's own.
            headers: the request's, names in lower case.
            stream: the body as it arrives.
            answer: gets the body and the deadline, time.monotonic() seconds.
        """
        arrived_s = time.monotonic()
        self._under_way += 1
        try:
            reply = await self._guarded(arrived_s, asked_ms, headers, stream, answer)
        finally:
            self._under_way -= 1
        self.metrics.seconds.observe(time.monotonic() - arrived_s)
        self.metrics.requests.labels(str(reply.status)).inc()
        return reply

    async def _guarded(
        self,
        arrived_s: float,
        asked_ms: str | None,
        headers: Mapping[str, str],
        stream: AsyncIterable[bytes],
        answer: Callable[[bytes, float], Awaitable[Reply]],
    ) -> Reply:
        if self._is_draining:
            return _refuse(503, self._problem(), 1.0)
        try:
            deadline_s = arrived_s + self._budget_s(asked_ms) * (1 - self._policy.margin)
            async with asyncio.timeout(max(0.0, deadline_s - time.monotonic())):
                with self._budget.share() as share:
                    body = await share.read(stream, headers.get("content-length"))
                    return await answer(body, deadline_s)
        except (WireError, FrameError) as error:
            return Reply(400, {"Content-Type": _PLAIN}, str(error).encode())
        except ConsentError as error:
            return Reply(451, {"Content-Type": _PLAIN}, str(error).encode())
        except OverloadedError as error:
            return _refuse(429, str(error), error.retry_after_s)
        except TimeoutError as error:
            sentence = str(error) or "The deadline passed before the answer was ready, so it was dropped."
            return Reply(504, {"Content-Type": _PLAIN}, sentence.encode())
        except LiveframeError as error:
            _LOG.warning("request failed: %s", error)
            return Reply(500, {"Content-Type": _PLAIN}, str(error).encode())
        except Exception:
            _LOG.exception("request failed")
            return Reply(500, {"Content-Type": _PLAIN}, b"The server failed on this request; its log says why.")

    async def predict(
        self, variant: str, images: NDArray[np.uint8], extras: Extras, deadline_s: float
    ) -> NDArray[np.uint8]:
        """Answer crops that another protocol has decoded: uint8 [N, H, W, C] -> [N, H2, W2, C2].

        Raises:
            WireError, FrameError, ConsentError, OverloadedError, DeadlineError, ModelError: as `answer` tells them.
        """
        name = self.routine.variant(variant)
        whole = self.routine.check_crops(name, images, extras)
        return await self._submit(Inputs(Task.CROPS, name, images, "", Encoding.RAW, whole), deadline_s)

    async def _answer(self, content_type: str, variant: str, body: bytes, deadline_s: float) -> Reply:
        payload = Payload(content_type, body, variant)
        if payload.content_type == JSON or payload.content_type.startswith("image/"):
            return await self._answer_in_turn(payload, deadline_s)
        return await self._answer_crops(payload, deadline_s)

    async def _answer_in_turn(self, payload: Payload, deadline_s: float) -> Reply:
        """Answer JSON and whole frames, a bounded number of them at once."""
        with self._budget.share() as share:
            inputs = await self._incoming.run(partial(self.routine.preprocess, payload))
            share.take(inputs.images.nbytes)
            if inputs.task is Task.CROPS:
                return await self._finish(await self._batched(inputs, deadline_s))
            outputs = await self._framing.run(partial(self.routine.predict, inputs))
            if outputs.done < outputs.found or not outputs.found:
                self.metrics.covered.inc()
            return await self._finish(outputs)

    async def _answer_crops(self, payload: Payload, deadline_s: float) -> Reply:
        with self._batcher.expecting(self._model_deadline_s(deadline_s)):
            # Raw pixels are not decoded, so a thread would only cost its wake-up.
            read = partial(self.routine.preprocess, payload)
            with self.metrics.stage("decode"):
                is_raw = peek_encoding(payload.body) is Encoding.RAW
                inputs: Inputs = read() if is_raw else await self._incoming.run(read)
            answer = self._submit(inputs, deadline_s)
        return await self._finish(Outputs(await answer, inputs.reply, inputs.encoding))

    async def _batched(self, inputs: Inputs, deadline_s: float) -> Outputs:
        return Outputs(await self._submit(inputs, deadline_s), inputs.reply, inputs.encoding)

    def _submit(self, inputs: Inputs, deadline_s: float) -> "asyncio.Future[NDArray[np.uint8]]":
        until_s = self._model_deadline_s(deadline_s)
        future = self._batcher.submit(inputs.variant, inputs.images, until_s, inputs.extras)
        return asyncio.wrap_future(future)

    def _model_deadline_s(self, deadline_s: float) -> float:
        """By when the model must have answered, so that the answer can still be written in time."""
        return deadline_s - min(2 * self._finish_s, (deadline_s - time.monotonic()) / 2)

    async def _finish(self, outputs: Outputs) -> Reply:
        started_s = time.monotonic()
        is_raw = outputs.encoding is Encoding.RAW
        with self.metrics.stage("encode"):
            encode = partial(_encode, self.routine, outputs)
            content = encode() if is_raw else await self._outgoing.run(encode)
        self._finish_s += _SMOOTHING * (time.monotonic() - started_s - self._finish_s)
        headers = self.named(outputs.reply)
        if outputs.found or outputs.done or outputs.reply.startswith("image/"):
            headers[SUBJECTS_HEADER] = f"found={outputs.found} done={outputs.done}"
        return Reply(200, headers, content)

    def named(self, media_type: str) -> dict[str, str]:
        """Return an answer's headers: its type, and the digest of the bundle that gave it.

        Of our own type it stands in the type as well, which Vertex AI forwards for certain.
        """
        digest = self.routine.bundle.digest
        content_type = f"{media_type}; bundle={digest}" if media_type == MEDIA_TYPE else media_type
        return {"Content-Type": content_type, BUNDLE_HEADER: digest}

    def _budget_s(self, asked: str | None) -> float:
        """Read a deadline in ms; a longer one than the server's longest is shortened."""
        if asked is None:
            return self._policy.deadline_s
        try:
            budget_s = float(asked) / 1e3
        except ValueError:
            budget_s = math.nan
        if not 0 < budget_s < math.inf:
            raise WireError(f"A deadline must be a number of milliseconds above 0, but is {asked!r:.40}.")
        return min(budget_s, self._policy.longest_deadline_s)


def parse_content_type(header: str) -> tuple[str, Mapping[str, str]]:
    """Split `type/sub; key=value` into the lower-case type and its parameters."""
    message = Message()
    message["content-type"] = header[:500].replace("\r", " ").replace("\n", " ")
    parameters = {str(key).lower(): str(value) for key, value in message.get_params([], unquote=True)[1:]}
    return message.get_content_type() if header else "", parameters


def _encode(routine: Routine, outputs: Outputs) -> bytes:
    content = routine.postprocess(outputs)
    return content.body if isinstance(content, Payload) else json.dumps(content).encode()


def _refuse(status: int, sentence: str, retry_after_s: float) -> Reply:
    """Refuse for now. Retry-After in decimals of a second, which our client reads; others round it up."""
    return Reply(status, {"Content-Type": _PLAIN, "Retry-After": f"{retry_after_s:.3f}"}, sentence.encode())


__all__ = ["DeadlineError", "Exchange", "ExchangePolicy", "Reply", "parse_content_type"]
