"""The clients against a real HTTP server on loopback that can be told to misbehave."""

import http.server
import json
import logging
import threading
import time
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.harness.waiting import quickest, wait_until
from liveframe.breaker import BreakerPolicy
from liveframe.errors import FrameError, LateError, ModelError, OverloadedError, WireError
from liveframe.model import BatchModel, BatchSpec
from liveframe.models.pixelate import Pixelate
from liveframe.remote.client import LocalClient, RemoteClient, RemotePolicy, _first_good
from liveframe.remote.fallback import FallbackModel, FallbackPolicy, Route
from liveframe.remote.picture import Encoding
from liveframe.remote.transport import parse_retry_after
from liveframe.remote.wire import MEDIA_TYPE, decode_batch, encode_batch

MODEL = Pixelate(size=32, max_batch=8)
BATCH = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
EXACT = RemotePolicy(deadline_s=5.0, encoding=Encoding.RAW)
SOON_S = 30.0


class Server(http.server.ThreadingHTTPServer):
    """Serves MODEL over the wire format; `misbehave`, when set, handles the request in its place."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.misbehave = None
        self.requests = []
        self.connections = 0
        self.delay_s = 0.0
        self.url = f"http://127.0.0.1:{self.server_address[1]}/predict"
        self.closing = threading.Event()

    def process_request(self, request, client_address):
        self.connections += 1
        super().process_request(request, client_address)

    def handle_error(self, request, client_address):
        """A client that hung up is part of these tests."""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_POST(self):
        self.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.requests.append(dict(self.headers))
        self.server.closing.wait(self.server.delay_s)
        if self.server.misbehave is not None:
            self.server.misbehave(self)
            return
        wire = decode_batch(self.body)
        self.answer(200, encode_batch(MODEL.predict(wire.images), wire.encoding, wire.mask_encoding))

    def answer(self, status, body, **headers):
        self.send_response(status)
        self.send_header("Content-Type", MEDIA_TYPE)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Quiet."""


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.closing.set()
        running.shutdown()
        thread.join()


def client_of(server, **more):
    policy = RemotePolicy(**{"deadline_s": 5.0, "encoding": Encoding.RAW, **more})
    return RemoteClient(server.url, MODEL.spec, policy)


def test_remote_gives_the_same_pixels_as_the_embedded_model_over_one_connection(server):
    with client_of(server) as client, LocalClient(MODEL) as local:
        assert isinstance(client, BatchModel) and isinstance(local, BatchModel)
        for _ in range(5):
            assert np.array_equal(client.predict(BATCH), local.predict(BATCH))
        assert np.array_equal(local.submit(BATCH).result(SOON_S), MODEL.predict(BATCH))
        assert server.connections == 1 and client.latency().p50_ms > 0


def test_jpeg_answers_stay_near(server):
    smooth = np.full((1, 32, 32, 3), 90, np.uint8)
    with client_of(server, encoding=Encoding.JPEG) as client:
        assert np.abs(client.predict(smooth).astype(int) - 90).max() <= 2


def test_in_flight_calls_share_the_delay(server):
    all_here = threading.Barrier(4)

    def answer_together(handler):
        all_here.wait(SOON_S)  # breaks unless four requests are on their way at once
        handler.answer(200, encode_batch(MODEL.predict(BATCH), Encoding.RAW))

    server.misbehave = answer_together
    with client_of(server, deadline_s=SOON_S, max_in_flight=4) as client:
        futures = [client.submit(BATCH) for _ in range(4)]
        assert all(np.array_equal(future.result(SOON_S), MODEL.predict(BATCH)) for future in futures)


def test_too_many_calls_in_flight_are_refused_not_queued(server):
    may_answer = threading.Event()

    def hold(handler):
        may_answer.wait(SOON_S)
        handler.answer(200, encode_batch(MODEL.predict(BATCH), Encoding.RAW))

    server.misbehave = hold
    with client_of(server, deadline_s=SOON_S, max_in_flight=2) as client:
        futures = [client.submit(BATCH) for _ in range(5)]
        failed = [future for future in futures if future.done() and isinstance(future.exception(), OverloadedError)]
        assert len(failed) == 3
        may_answer.set()
        assert np.array_equal(futures[0].result(SOON_S), MODEL.predict(BATCH))


def test_call_ends_at_its_deadline(server):
    server.delay_s = 10
    with client_of(server, deadline_s=0.1) as client:

        def call():
            with pytest.raises(LateError, match="no answer by the deadline"):
                client.predict(BATCH)

        assert 0.1 <= quickest(call, 0.6) < 0.6


def test_server_that_trickles_cannot_stretch_the_deadline(server):
    def trickle(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        while not server.closing.wait(0.02):
            handler.wfile.write(b"x")

    server.misbehave = trickle
    with client_of(server, deadline_s=0.15) as client:

        def call():
            assert isinstance(client.submit(BATCH).exception(SOON_S), LateError)

        assert quickest(call, 1) < 1


@pytest.mark.parametrize("status", [429, 503])
def test_overloaded_server_is_left_in_peace_for_as_long_as_it_asks(server, status):
    server.misbehave = lambda handler: handler.answer(status, b"busy", Retry_After="2.5")
    with client_of(server) as client:
        with pytest.raises(OverloadedError) as caught:
            client.predict(BATCH)
        assert caught.value.retry_after_s == 2.5
        server.misbehave = None
        with pytest.raises(OverloadedError, match="left in peace"):
            client.predict(BATCH)
        assert len(server.requests) == 1
        wait_until(lambda: client.breaker.open_for_s() == 0)
        assert np.array_equal(client.predict(BATCH), MODEL.predict(BATCH))


def test_breaker_spares_a_failing_server(server):
    server.misbehave = lambda handler: handler.answer(500, b"out of luck")
    with client_of(server, breaker=BreakerPolicy(errors=3, open_s=2.5)) as client:
        for _ in range(3):
            with pytest.raises(ModelError, match="answered 500: out of luck"):
                client.predict(BATCH)
        with pytest.raises(OverloadedError):
            client.predict(BATCH)
        assert len(server.requests) == 3
        server.misbehave = None
        wait_until(lambda: client.breaker.open_for_s() == 0)
        client.predict(BATCH)


def garbage(handler):
    handler.answer(200, b"\x00garbage" * 9)


def no_http(handler):
    handler.wfile.write(b"what?\r\n\r\n")
    handler.close_connection = True


def reset(handler):
    handler.connection.close()
    handler.close_connection = True


def short(handler):
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"LFRB")
    handler.close_connection = True


def other_shape(handler):
    handler.answer(200, encode_batch(np.zeros((1, 8, 8, 3), np.uint8), Encoding.RAW))


def endless(handler):
    handler.answer(200, bytes(9 * 1024 * 1024))


@pytest.mark.faults
@pytest.mark.parametrize(
    ("fault", "error", "sentence"),
    [
        (garbage, WireError, "must start with"),
        (no_http, ModelError, "cannot be reached"),
        (reset, ModelError, "cannot be reached"),
        (short, ModelError, "cannot be reached"),
        (other_shape, ModelError, r"must answer \[2, 32, 32, 3\], but answered \[1, 8, 8, 3\]"),
        (endless, ModelError, "more than 8388608 bytes"),
        (lambda handler: handler.answer(401, b""), ModelError, "refuses the credentials"),
    ],
)
def test_bad_answer_is_a_sentence_and_the_next_call_works(server, fault, error, sentence):
    with client_of(server) as client:
        client.predict(BATCH)
        server.misbehave = fault
        with pytest.raises(error, match=sentence):
            client.predict(BATCH)
        server.misbehave = None
        assert np.array_equal(client.predict(BATCH), MODEL.predict(BATCH))


def test_kept_connection_that_the_server_closed_is_replaced_unnoticed(server):
    with client_of(server) as client:
        server.misbehave = lambda handler: (
            handler.answer(200, encode_batch(BATCH, Encoding.RAW)),
            setattr(handler, "close_connection", True),
        )
        client.predict(BATCH)
        server.misbehave = None
        assert np.array_equal(client.predict(BATCH), MODEL.predict(BATCH))
        assert server.connections == 2


def test_unreachable_server_is_a_sentence():
    client = RemoteClient("http://127.0.0.1:9/predict", MODEL.spec, EXACT)
    with client, pytest.raises(ModelError, match="cannot be reached"):
        client.predict(BATCH)


def test_token_is_sent_and_never_told(server, caplog):
    caplog.set_level(logging.DEBUG)
    client = RemoteClient(server.url, MODEL.spec, EXACT, authorize=lambda: "Bearer s3cret")
    with client:
        client.predict(BATCH)
        assert server.requests[0]["Authorization"] == "Bearer s3cret"
        server.misbehave = lambda handler: handler.answer(403, b"")
        with pytest.raises(ModelError) as caught:
            client.predict(BATCH)
    assert "s3cret" not in f"{caught.value!r} {caplog.text} {client!r}"


def test_failing_token_provider_is_a_sentence(server):
    def authorize():
        raise KeyError("s3cret")

    client = RemoteClient(server.url, MODEL.spec, EXACT, authorize)
    with client, pytest.raises(ModelError, match=r"could not be asked \(KeyError\)\.$"):
        client.predict(BATCH)
    assert server.requests == []


@pytest.mark.parametrize("url", ["ftp://host/x", "http://user:s3cret@host/x", "just text"])
def test_odd_url_is_refused_without_telling_its_secret(url):
    with pytest.raises(ValueError, match="url must be") as caught:
        RemoteClient(url, MODEL.spec)
    assert "s3cret" not in str(caught.value)


def test_batch_that_does_not_fit_is_refused_before_it_is_sent(server):
    with client_of(server) as client:
        for wrong in (BATCH[..., :2], BATCH.astype(np.float32), np.repeat(BATCH, 5, axis=0)):
            with pytest.raises(FrameError, match="batch must"):
                client.predict(wrong)
    assert server.requests == []


def test_closed_client_is_a_sentence(server):
    client = client_of(server)
    client.close()
    with pytest.raises(ModelError, match="closed"):
        client.predict(BATCH)


def test_hedging_is_off_by_default_and_beats_a_slow_answer_when_on(server):
    first, may_answer = threading.Event(), threading.Event()

    def slow_first(handler):
        if not first.is_set():
            first.set()
            may_answer.wait(2 * SOON_S)  # longer than the client waits: only the hedge can answer
        handler.answer(200, encode_batch(BATCH, Encoding.RAW))

    server.misbehave = slow_first
    with client_of(server, deadline_s=SOON_S, hedge_after_s=0.05) as client:
        client.predict(BATCH)
        may_answer.set()
        assert len(server.requests) == 2
    assert RemotePolicy().hedge_after_s is None


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, 1.0), ("", 1.0), ("2.5", 2.5), ("-3", 0.0), ("nan", 1.0), ("soon", 1.0)]
)
def test_retry_after_is_read(text, seconds):
    assert parse_retry_after(text) == seconds


def test_retry_after_as_a_date_is_read():
    text = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 20))
    assert 15 < parse_retry_after(text) <= 20


# ---------------------------------------------------------------------- fall-back

QUICK = FallbackPolicy(deadline_s=0.5, window=10, least=4, failures=3, probe_s=0.02, good_probes=2)


class Switches(list):
    """Told of each switch; can be waited on."""

    def __init__(self):
        super().__init__()
        self.changed = threading.Condition()

    def __call__(self, route, reason):
        with self.changed:
            self.append((route, reason))
            self.changed.notify_all()

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self) >= count, SOON_S), self


def test_remote_errors_are_answered_by_the_embedded_model_and_it_takes_over(server):
    switches = Switches()
    remote = client_of(server, breaker=BreakerPolicy(errors=2, open_s=0.05))
    with remote, FallbackModel(remote, MODEL, QUICK, switches) as model:
        assert isinstance(model, BatchModel)
        model.predict(BATCH)
        server.misbehave = reset
        for _ in range(6):
            assert np.array_equal(model.predict(BATCH), MODEL.predict(BATCH))
        stats = model.stats()
        assert stats.route is Route.LOCAL and stats.reason and stats.local_calls == 6 and stats.remote_calls == 1
        server.misbehave = None
        switches.wait_for(2)
        assert [route for route, _ in switches] == [Route.LOCAL, Route.REMOTE]
        seen = len(server.requests)
        assert np.array_equal(model.submit(BATCH).result(SOON_S), MODEL.predict(BATCH))
        assert len(server.requests) == seen + 1 and model.stats().switches == 2


def test_remote_p95_over_the_deadline_brings_the_embedded_model_in_and_back(server):
    switches = Switches()
    with client_of(server) as remote, FallbackModel(remote, MODEL, QUICK, switches) as model:
        server.delay_s = 0.6
        for _ in range(4):
            model.predict(BATCH)
        assert model.stats().route is Route.LOCAL and "over the deadline of 500 ms" in switches[0][1]
        assert quickest(lambda: model.predict(BATCH), 0.1) < 0.1
        server.delay_s = 0.0
        switches.wait_for(2)
        assert model.stats().route is Route.REMOTE and model.stats().reason == ""


def test_closing_ends_the_probing_thread(server):
    server.misbehave = reset
    remote = client_of(server)
    model = FallbackModel(remote, MODEL, QUICK)
    for _ in range(3):
        model.predict(BATCH)
    assert model.stats().route is Route.LOCAL
    assert model.close() and not any(thread.name == "liveframe-probe" for thread in threading.enumerate())
    remote.close()


def test_models_of_different_shapes_cannot_stand_in_for_each_other(server):
    with client_of(server) as remote, pytest.raises(FrameError, match="same shapes"):
        FallbackModel(remote, Pixelate(size=64))


def test_spec_of_a_fallback_takes_the_smaller_batch():
    model = FallbackModel(Pixelate(size=32, max_batch=8), Pixelate(size=32, max_batch=4))
    assert model.spec == BatchSpec((32, 32, 3), (32, 32, 3), 4)
    assert model.close()


def test_json_of_the_wire_is_plain_json():
    from liveframe.remote.wire import batch_from_json, batch_to_json

    text = json.dumps(batch_to_json(BATCH))
    assert np.array_equal(batch_from_json(json.loads(text)), BATCH)


@pytest.mark.parametrize("is_first_good", [True, False])
def test_hedged_answer_in_hand_is_used_whichever_request_finished_first(is_first_good):
    for _ in range(50):  # sets are walked in the order of their hashes
        futures = [Future(), Future()]
        good, bad = futures if is_first_good else futures[::-1]
        bad.set_exception(WireError("torn"))
        good.set_result(BATCH)
        assert _first_good(futures, time.monotonic() + 1, "the endpoint") is BATCH


def test_hedged_requests_that_all_failed_tell_why():
    futures = [Future(), Future()]
    for future in futures:
        future.set_exception(WireError("torn"))
    with pytest.raises(WireError, match="torn"):
        _first_good(futures, time.monotonic() + 1, "the endpoint")


def test_remote_that_fails_without_a_word_is_left_as_well():
    class Mute:
        spec = MODEL.spec

        def predict(self, batch):
            raise TimeoutError

    switches = Switches()
    with FallbackModel(Mute(), MODEL, replace(QUICK, probe_s=30), switches) as model:
        for _ in range(QUICK.failures + 1):
            assert np.array_equal(model.predict(BATCH), MODEL.predict(BATCH))
        assert model.stats().route is Route.LOCAL and model.stats().reason == "TimeoutError"
