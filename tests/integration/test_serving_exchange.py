"""What the serving tier answers to good, bad and too many requests; a real tiny bundle, no sockets."""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.harness.tiny_bundle import build_tiny_bundle
from benchmarks.harness.waiting import wait_until
from liveframe.errors import WireError
from liveframe.remote.picture import Encoding, decode_picture, encode_picture
from liveframe.remote.wire import MEDIA_TYPE, Extras, decode_batch, encode_batch
from serving.server.batcher import BatchPolicy
from serving.server.exchange import (
    DEADLINE_HEADER,
    SUBJECTS_HEADER,
    Exchange,
    ExchangePolicy,
    Reply,
    parse_content_type,
)
from serving.server.routine import Payload, Routine
from tests.support.serving_bundle import served_bundle
from understudy.bundle.bundle import default_bundle
from understudy.bundle.manifest import BundleError
from understudy.bundle.pixelate import write_pixelate_bundle
from understudy.consent.check import read_record
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import TrustStore
from understudy.swap.swapper import FaceSwapper

CROPS = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
PATIENT_MS = 10_000  # the longest that may be asked for: a busy machine takes its time


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with served_bundle(tmp_path_factory.mktemp("served")) as path:
        yield path


@pytest.fixture
def exchange(bundle: Path) -> Iterator[Exchange]:
    yield from opened(bundle)


def opened(bundle: Path, policy: ExchangePolicy | None = None) -> Iterator[Exchange]:
    routine = Routine()
    routine.load(str(bundle))
    exchange = Exchange(routine, policy)
    yield exchange
    exchange.close()


async def streamed(body: bytes) -> AsyncIterator[bytes]:
    yield body


def ask(exchange: Exchange, body: bytes, content_type: str = MEDIA_TYPE, **headers: str) -> Reply:
    """Ask, with patience unless the content type names a deadline."""
    named = {DEADLINE_HEADER: str(PATIENT_MS)} | {key.replace("_", "-"): value for key, value in headers.items()}
    return asyncio.run(exchange.answer({"content-type": content_type, **named}, streamed(body)))


def test_crops_come_back_as_the_bare_model_gives_them(exchange: Exchange) -> None:
    reply = ask(exchange, encode_batch(CROPS, Encoding.RAW))
    assert (
        reply.status == 200
        and reply.headers["Content-Type"] == f"{MEDIA_TYPE}; bundle={exchange.routine.bundle.digest}"
    )
    assert np.array_equal(decode_batch(reply.body).images, exchange.routine.model("ada").predict(CROPS))


@pytest.mark.parametrize("encoding", [Encoding.PNG, Encoding.JPEG, Encoding.WEBP])
def test_answer_is_encoded_as_the_request_was(exchange: Exchange, encoding: Encoding) -> None:
    reply = ask(exchange, encode_batch(CROPS, encoding))
    answer = decode_batch(reply.body)
    assert answer.encoding is encoding and answer.images.shape == (3, 64, 64, 4)


def test_variant_of_the_content_type_chooses_the_persona(exchange: Exchange) -> None:
    answers = [
        decode_batch(ask(exchange, encode_batch(CROPS, Encoding.RAW), f'{MEDIA_TYPE}; variant="{name}"').body).images
        for name in ("ada", "ben")
    ]
    assert not np.array_equal(answers[0], answers[1])
    assert np.array_equal(answers[1], exchange.routine.model("ben").predict(CROPS))


def test_json_gives_the_same_pixels_as_bytes(exchange: Exchange) -> None:
    instances = [{"b64": base64.b64encode(encode_picture(crop, Encoding.PNG)).decode()} for crop in CROPS]
    body = json.dumps({"instances": instances, "parameters": {"variant": "ben"}}).encode()
    predictions = json.loads(ask(exchange, body, "application/json; charset=utf-8").body)["predictions"]
    images = np.stack([decode_picture(base64.b64decode(entry["b64"]), 64) for entry in predictions])
    masks = [decode_picture(base64.b64decode(entry["mask_b64"]), 64, is_grey=True) for entry in predictions]
    expected = exchange.routine.model("ben").predict(CROPS)
    assert np.array_equal(images, expected[..., :3]) and np.array_equal(np.stack(masks), expected[..., 3])


@pytest.mark.parametrize(
    ("body", "content_type", "sentence"),
    [
        (b"", MEDIA_TYPE, "header"),
        (b"LFRB" + bytes(100), MEDIA_TYPE, "version"),
        (encode_batch(CROPS[:, :16, :16], Encoding.RAW), MEDIA_TYPE, r"Crops must be \[1..16, 32, 32, 3\]"),
        (encode_batch(CROPS, Encoding.RAW), f"{MEDIA_TYPE}; variant=eve", "one of ada, ben"),
        (encode_batch(CROPS, Encoding.RAW), f"{MEDIA_TYPE}; deadline-ms=soon", "number of milliseconds"),
        (encode_batch(CROPS, Encoding.RAW), f"{MEDIA_TYPE}; deadline-ms=-1", "above 0"),
        (encode_batch(CROPS, Encoding.RAW), "text/html", "Content-Type must be one of"),
        (encode_batch(CROPS, Encoding.RAW), "", "Content-Type must be one of"),
        (b"{", "application/json", "must be JSON"),
        (b"[]", "application/json", "object"),
        (b'{"instances": []}', "application/json", "list of 1 to 16"),
        (b'{"instances": [{"b64": "!"}]}', "application/json", "not base64"),
        (b'{"instances": [{"b64": ""}], "parameters": 3}', "application/json", "parameters"),
        (b"not a jpeg", "image/jpeg", "JPEG, WebP or PNG"),
    ],
)
def test_bad_request_gets_400_with_a_sentence(
    exchange: Exchange, body: bytes, content_type: str, sentence: str
) -> None:
    import re

    reply = ask(exchange, body, content_type)
    assert reply.status == 400, reply
    text = reply.body.decode()
    assert re.search(sentence, text) and text.endswith("."), text


def test_body_without_end_is_cut_off(exchange: Exchange) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1_000_000
            yield bytes(1_000_000)

    reply = asyncio.run(exchange.answer({"content-type": MEDIA_TYPE}, endless()))
    assert reply.status == 400 and b"at most" in reply.body and taken < 20_000_000


def test_body_that_trickles_past_its_deadline_is_left(exchange: Exchange) -> None:
    async def stalled() -> AsyncIterator[bytes]:
        yield b"LFRB"
        await asyncio.Event().wait()

    reply = asyncio.run(exchange.answer({"content-type": f"{MEDIA_TYPE}; deadline-ms=60"}, stalled()))
    assert reply.status == 504 and b"deadline" in reply.body


class GatedRoutine(Routine):
    """A routine whose model a test can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.begun = 0
        self.batches: list[int] = []

    def predict_crops(self, variant: str, batch: NDArray[np.uint8], extras: Extras) -> NDArray[np.uint8]:
        self.begun += len(batch)
        assert self.gate.wait(30)
        self.batches.append(len(batch))
        return super().predict_crops(variant, batch, extras)


@pytest.fixture
def gated(bundle: Path) -> Iterator[Exchange]:
    routine = GatedRoutine()
    routine.load(str(bundle))
    exchange = Exchange(routine, ExchangePolicy(batching=BatchPolicy(max_batch=8, max_queue=8)))
    yield exchange
    routine.gate.set()
    exchange.close()


def routine_of(exchange: Exchange) -> GatedRoutine:
    assert isinstance(exchange.routine, GatedRoutine)
    return exchange.routine


async def ask_many(exchange: Exchange, count: int) -> list[Reply]:
    """Ask for one crop so often at once; the model's gate opens when all have been let in or refused."""
    body = encode_batch(CROPS[:1], Encoding.RAW)
    headers = {"content-type": MEDIA_TYPE, DEADLINE_HEADER: str(PATIENT_MS)}
    asks = [asyncio.ensure_future(exchange.answer(headers, streamed(body))) for _ in range(count)]
    async with asyncio.timeout(30):
        while sum(ask.done() for ask in asks) + let_in(exchange) < count:
            await asyncio.sleep(0.005)
    routine_of(exchange).gate.set()
    return await asyncio.gather(*asks)


def let_in(exchange: Exchange) -> int:
    """How many crops wait for the model or are in it, while its gate is shut."""
    begun = routine_of(exchange).begun  # before the queue is looked at: no crop is counted twice
    return begun + json.loads(exchange.health().body)["queued"]


def test_concurrent_requests_share_model_calls(gated: Exchange) -> None:
    replies = asyncio.run(ask_many(gated, 6))
    assert [reply.status for reply in replies] == [200] * 6
    assert sum(routine_of(gated).batches) == 6 and len(routine_of(gated).batches) <= 3


def test_overload_is_refused_with_retry_after_and_the_queue_stays_bounded(gated: Exchange) -> None:
    replies = asyncio.run(ask_many(gated, 30))
    statuses = [reply.status for reply in replies]
    assert set(statuses) == {200, 429} and statuses.count(200) <= 16
    refused = next(reply for reply in replies if reply.status == 429)
    assert float(refused.headers["Retry-After"]) > 0 and b"queue is full" in refused.body


def test_deadline_that_passes_at_the_model_gives_504_in_time(gated: Exchange) -> None:
    async def timed() -> tuple[Reply, float]:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        body = streamed(encode_batch(CROPS[:1], Encoding.RAW))
        reply = await gated.answer({"content-type": f"{MEDIA_TYPE}; deadline-ms=80"}, body)
        return reply, loop.time() - started_s

    answers = [asyncio.run(timed()) for _ in range(4)]  # a busy machine may hold one up
    assert {reply.status for reply, _ in answers} <= {504, 429}, "429: no time was left when it came in"
    assert min(took_s for reply, took_s in answers if reply.status == 504) < 0.3


def test_model_that_fails_gives_500_with_its_sentence_and_serves_on(exchange: Exchange, monkeypatch: Any) -> None:
    from liveframe.errors import ModelError

    def broken(*_: object) -> NDArray[np.uint8]:
        raise ModelError("The network is gone. Reload the bundle.")

    monkeypatch.setattr(exchange.routine.model("ada"), "predict", broken)
    reply = ask(exchange, encode_batch(CROPS, Encoding.RAW))
    assert reply.status == 500 and b"network is gone" in reply.body
    assert ask(exchange, encode_batch(CROPS, Encoding.RAW), f"{MEDIA_TYPE}; variant=ben").status == 200


def test_health_is_green_only_with_a_verified_warm_bundle(bundle: Path, tmp_path: Path) -> None:
    import shutil

    cold = Exchange(Routine())
    assert cold.health().status == 503
    cold.close()
    (exchange,) = list(opened(bundle))
    assert exchange.health().status == 503, "closed"
    for exchange in opened(bundle):
        facts = json.loads(exchange.health().body)
        assert exchange.health().status == 200 and facts["bundle"] == "tiny" and facts["variants"] == ["ada", "ben"]
    damaged = Path(shutil.copytree(bundle, tmp_path / "damaged"))
    (damaged / "encoder.onnx").write_bytes((damaged / "encoder.onnx").read_bytes()[:-1] + b"x")
    with pytest.raises(BundleError, match=r"encoder\.onnx"):
        Routine().load(str(damaged))


def test_pictures_that_wait_to_be_read_are_counted_and_one_that_hangs_turns_health_red(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end, began = threading.Event(), threading.Event()

    def hangs(self: Routine, payload: Payload) -> None:
        began.set()
        assert may_end.wait(30)
        raise WireError("Nothing to read.")

    async def ask_eight(exchange: Exchange) -> list[Reply]:
        headers = {"content-type": "image/jpeg; deadline-ms=10000"}
        asks = [asyncio.ensure_future(exchange.answer(headers, streamed(b"x"))) for _ in range(8)]
        async with asyncio.timeout(30):
            while not began.is_set() or sum(ask.done() for ask in asks) < 4 or exchange.is_healthy:
                await asyncio.sleep(0.01)
        may_end.set()
        return await asyncio.gather(*asks)

    for exchange in opened(bundle, ExchangePolicy(decoders=1, max_waiting=3, stuck_s=0.3)):
        monkeypatch.setattr(Routine, "preprocess", hangs)
        assert exchange.health().status == 200
        replies = asyncio.run(ask_eight(exchange))
        statuses = [reply.status for reply in replies]
        assert set(statuses) == {400, 429} and statuses.count(400) in (3, 4)
        assert any(b"wait for reading" in reply.body for reply in replies)
        wait_until(partial(getattr, exchange, "is_healthy"))


def test_persona_whose_consent_is_revoked_is_no_longer_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.server.routine.CONSENT_S", 0.0)
    with served_bundle(tmp_path) as path:
        for exchange in opened(path):
            assert ask(exchange, encode_batch(CROPS, Encoding.RAW)).status == 200
            record = read_record(path / "ada" / "consent.json")
            TrustStore(tmp_path / "operator").revoke(record.digest, datetime.now(UTC), "changed her mind")
            reply = ask(exchange, encode_batch(CROPS, Encoding.RAW))
            assert reply.status == 451 and b"revoked" in reply.body
            ben = f"{MEDIA_TYPE}; variant=ben"
            assert ask(exchange, encode_batch(CROPS, Encoding.RAW), ben).status == 200


def test_bundle_without_consent_records_is_never_served(tmp_path: Path) -> None:
    with pytest.raises(ConsentError):
        Routine(TrustStore(tmp_path / "operator")).load(str(build_tiny_bundle(tmp_path / "bundle")))


def test_crops_of_the_shipped_bundle_take_less_than_thirty_kilobytes_each_way(astronaut: NDArray[np.uint8]) -> None:
    routine = Routine()
    routine.load(str(default_bundle()))
    side = routine.model().spec.input_shape[0]
    crop = cv2.resize(np.asarray(astronaut)[30:180, 150:300], (side, side), interpolation=cv2.INTER_AREA)
    request = encode_batch(crop[None], Encoding.JPEG)
    outputs = routine.predict(routine.preprocess(Payload(MEDIA_TYPE, request)))
    answer = routine.postprocess(outputs).body
    routine.close()
    assert len(request) <= 30_000 and len(answer) <= 30_000, (len(request), len(answer))


def test_bundle_of_an_unlisted_factory_is_refused(tmp_path: Path) -> None:
    write_pixelate_bundle(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "factory": "os.system"}))
    with pytest.raises(
        BundleError, match=r"one of understudy\.swap, understudy\.one_shot, liveframe\.pixelate, but is 'os\.system'"
    ):
        Routine().load(str(tmp_path))


def test_faceless_bundle_goes_through_the_same_routes(tmp_path: Path) -> None:
    write_pixelate_bundle(tmp_path, size=64, columns=8)
    frame = cv2.resize(np.random.default_rng(1).integers(0, 255, (60, 80, 3), np.uint8), (320, 240))
    for exchange in opened(tmp_path):
        crops = np.random.default_rng(2).integers(0, 255, (2, 64, 64, 3), np.uint8)
        tiles = decode_batch(ask(exchange, encode_batch(crops, Encoding.RAW)).body).images
        assert len(np.unique(tiles[0].reshape(-1, 3), axis=0)) <= 64
        reply = ask(exchange, encode_picture(frame, Encoding.PNG), "image/png")
        merged = decode_picture(reply.body, 4096)
        assert reply.headers[SUBJECTS_HEADER] == "found=1 done=1" and merged.shape == frame.shape
        assert len(np.unique(merged.reshape(-1, 3), axis=0)) <= 8 * 6


def test_frame_without_a_face_comes_back_covered(exchange: Exchange) -> None:
    frame = np.random.default_rng(3).integers(0, 255, (240, 320, 3), np.uint8)
    reply = ask(exchange, encode_picture(frame, Encoding.PNG), "image/png; deadline-ms=10000")
    assert reply.status == 200, reply.body
    assert reply.headers[SUBJECTS_HEADER] == "found=0 done=0"
    covered = decode_picture(reply.body, 4096)
    assert cv2.Laplacian(covered, cv2.CV_64F).std() < 0.1 * cv2.Laplacian(frame, cv2.CV_64F).std()


@pytest.mark.parametrize("task_as", ["image/jpeg", "json"])
def test_whole_frame_comes_back_merged_outside_the_face_untouched(exchange: Exchange, task_as: str) -> None:
    skimage_data = pytest.importorskip("skimage.data", reason="the public-domain face comes with scikit-image")
    frame = np.ascontiguousarray(skimage_data.astronaut()[..., ::-1])
    if task_as == "json":
        instance = {"b64": base64.b64encode(encode_picture(frame, Encoding.PNG)).decode()}
        parameters = {"task": "frames", "variant": "ben"}
        body = json.dumps({"instances": [instance], "parameters": parameters}).encode()
        reply = ask(exchange, body, "application/json; deadline-ms=10000")
        merged = decode_picture(base64.b64decode(json.loads(reply.body)["predictions"][0]["b64"]), 4096)
    else:
        reply = ask(exchange, encode_picture(frame, Encoding.JPEG, 95), "image/jpeg; variant=ben; deadline-ms=10000")
        merged = decode_picture(reply.body, 4096)
    assert reply.headers[SUBJECTS_HEADER] == "found=1 done=1"
    difference = cv2.absdiff(merged, frame).mean(axis=2)
    assert difference[70:150, 190:260].mean() > 20, "the face"
    assert difference[300:, :].mean() < 4, "far from it"


def test_content_type_is_read_with_its_parameters() -> None:
    assert parse_content_type('Image/JPEG; Variant="a b"; deadline-ms=7') == (
        "image/jpeg",
        {"variant": "a b", "deadline-ms": "7"},
    )


def test_crops_are_answered_while_whole_frames_warm_up(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first whole frame loads a detector and a mesh; crops' deadlines are 200 ms."""
    is_warming, may_end = threading.Event(), threading.Event()
    warm_up = FaceSwapper.warm_up

    def slow(model: FaceSwapper) -> None:
        is_warming.set()
        may_end.wait(30)
        warm_up(model)

    monkeypatch.setattr(FaceSwapper, "warm_up", slow)
    routine = Routine()
    routine.load(str(bundle))
    frame = Payload("image/png", encode_picture(np.zeros((240, 320, 3), np.uint8), Encoding.PNG))
    whole = threading.Thread(target=lambda: routine.predict(routine.preprocess(frame)), daemon=True)
    whole.start()
    assert is_warming.wait(30)
    crops: list[NDArray[np.uint8]] = []
    asked = threading.Thread(target=lambda: crops.append(routine.model("ada").predict(CROPS)), daemon=True)
    asked.start()
    asked.join(10)
    is_answered = bool(crops)
    may_end.set()
    whole.join(60)
    assert is_answered and crops[0].shape[0] == len(CROPS)
