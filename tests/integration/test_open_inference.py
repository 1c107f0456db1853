"""The Open Inference Protocol, asked by Triton's own client; and models that take several named tensors."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.harness.ports import free_port
from benchmarks.harness.serving_process import serving
from liveframe.errors import FrameError, WireError
from liveframe.model import BatchSpec, TensorSpec, check_batch
from liveframe.remote.client import RemoteClient, RemotePolicy
from liveframe.remote.picture import Encoding
from liveframe.remote.wire import MEDIA_TYPE, decode_batch, encode_batch
from serving.local_server import build_app
from serving.server.exchange import Exchange
from serving.server.routine import Routine
from tests.support.serving_bundle import served_bundle
from understudy.bundle.bundle import Bundle
from understudy.bundle.pixelate import write_pixelate_bundle

triton = pytest.importorskip("tritonclient.http", reason="Triton's client is in the dependency group `peers`")

CROPS = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
MESHES = np.random.default_rng(1).random((3, 5, 3), np.float32)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with served_bundle(tmp_path_factory.mktemp("served")) as path:
        yield path


@pytest.fixture(scope="module")
def url(bundle: Path) -> Iterator[str]:
    """The container's own entry point."""
    with serving(str(bundle)) as address:
        yield address


def client_of(url: str) -> Any:
    return triton.InferenceServerClient(url.removeprefix("http://"))


def crop_input(crops: NDArray[np.uint8], is_binary: bool = True) -> Any:
    tensor = triton.InferInput("crop", list(crops.shape), "UINT8")
    tensor.set_data_from_numpy(crops, binary_data=is_binary)
    return tensor


def test_tritons_client_finds_a_persona_and_gets_the_bare_models_pixels(url: str, bundle: Path) -> None:
    client, opened = client_of(url), Bundle.load(bundle)
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("ben")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    metadata = client.get_model_metadata("ben")
    assert metadata["inputs"] == [{"name": "crop", "datatype": "UINT8", "shape": [-1, 32, 32, 3]}]
    assert metadata["outputs"] == [{"name": "swap", "datatype": "UINT8", "shape": [-1, 64, 64, 4]}]
    expected = opened.swap_model("ben").predict(CROPS)
    for is_binary_in, is_binary_out in ((True, True), (False, True), (True, False)):
        outputs = [triton.InferRequestedOutput("swap", binary_data=is_binary_out)]
        answer = client.infer("ben", [crop_input(CROPS, is_binary_in)], outputs=outputs, request_id="7")
        assert np.array_equal(answer.as_numpy("swap"), expected)
        assert answer.get_response()["id"] == "7"
        assert answer.get_response()["parameters"]["bundle"] == opened.digest
    version = client.infer("ben", [crop_input(CROPS)], model_version="1")
    assert np.array_equal(version.as_numpy("swap"), expected)
    client.close()


@pytest.mark.parametrize(
    ("model", "crops", "sentence"),
    [
        ("nobody", CROPS, "must be one of ada, ben"),
        ("ada", CROPS[:, :16], "crop must be UINT8"),
        ("ada", np.zeros((17, 32, 32, 3), np.uint8), r"1\.\.16"),
    ],
)
def test_what_is_wrong_is_an_error_that_tritons_client_understands(
    url: str, model: str, crops: NDArray[np.uint8], sentence: str
) -> None:
    from tritonclient.utils import InferenceServerException

    with pytest.raises(InferenceServerException, match=sentence):
        client_of(url).infer(model, [crop_input(crops)])


@pytest.mark.parametrize(
    ("body", "length", "sentence"),
    [
        (b"{", None, "JSON"),
        (b"[]", None, "JSON object"),
        (b'{"inputs": []}', None, "1 to 8 tensors"),
        (b'{"inputs": [{"name": "crop", "datatype": "BOOL", "shape": [1]}]}', None, "datatype"),
        (b'{"inputs": [{"name": "crop", "datatype": "UINT8", "shape": [1, -1]}]}', None, "shape"),
        (b'{"inputs": [{"name": "crop", "datatype": "UINT8", "shape": [2], "data": [1, 256]}]}', None, "0 to 255"),
        (
            b'{"inputs": [{"name": "crop", "datatype": "UINT8", "shape": [1048575, 1048575, 3], "data": []}]}',
            None,
            "numbers",
        ),
        (
            b'{"inputs": [{"name": "c", "datatype": "UINT8", "shape": [9], "parameters": {"binary_data_size": 9}}]}',
            None,
            "9",
        ),
        (b"{}", "3", "Content-Length"),
        (b'{"inputs": [{"name": "crop", "datatype": "UINT8", "shape": [1], "data": [1]}], "id": 1}x', "87", "bytes by"),
    ],
)
def test_bad_bodies_are_refused_with_a_sentence(url: str, body: bytes, length: str | None, sentence: str) -> None:
    headers = {"Inference-Header-Content-Length": length} if length else {}
    answer = requests.post(f"{url}/v2/models/ada/infer", data=body, headers=headers, timeout=5)
    assert answer.status_code == 400 and sentence in answer.json()["error"]


def test_metrics_are_read_by_prometheus_own_parser(url: str) -> None:
    client_of(url).infer("ada", [crop_input(CROPS)])
    headers = {"Content-Type": MEDIA_TYPE}
    requests.post(f"{url}/predict", encode_batch(CROPS, Encoding.JPEG), headers=headers, timeout=5)
    requests.post(f"{url}/predict", b"LFRB", headers=headers, timeout=5)
    answer = requests.get(f"{url}/metrics", timeout=5)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["understudy_requests_total", "200"] >= 2 and samples["understudy_requests_total", "400"] >= 1
    for stage in ("decode", "queue", "model", "encode"):
        assert samples["understudy_stage_seconds_count", stage] >= 1
    assert samples["understudy_batch_items_sum",] >= 6 and samples["understudy_queued_items",] == 0


# ---------------------------------------------------------------------- several tensors a request


class Tinted:
    """A model of two tensors: it adds the mean of a face's mesh to every pixel of its crop."""

    spec = BatchSpec((32, 32, 3), (32, 32, 3), extras=(TensorSpec("mesh", "float32", (5, 3)),))

    def predict(self, batch: NDArray[np.uint8], **extras: NDArray[np.float32]) -> NDArray[np.uint8]:
        check_batch(batch, self.spec, extras)
        tint = (extras["mesh"].mean(axis=(1, 2)) * 50).astype(np.uint8)
        return batch // 2 + tint[:, None, None, None]


class TintedRoutine(Routine):
    """A routine whose model takes a mesh beside every crop."""

    def model(self, variant: str = "") -> Any:
        return Tinted()


@pytest.fixture(scope="module")
def tinted_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    import threading

    import uvicorn

    from benchmarks.harness.waiting import wait_until

    routine = TintedRoutine()
    routine.load(str(write_pixelate_bundle(tmp_path_factory.mktemp("tinted") / "bundle", size=32)))
    port = free_port()
    config = uvicorn.Config(build_app(Exchange(routine)), port=port, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(10)


def test_crop_and_mesh_travel_together_by_either_protocol(tinted_url: str) -> None:
    expected = Tinted().predict(CROPS, mesh=MESHES)
    assert len(np.unique(expected - CROPS // 2)) == 3, "every face has its own mesh"
    mesh = triton.InferInput("mesh", list(MESHES.shape), "FP32")
    mesh.set_data_from_numpy(MESHES)
    answer = client_of(tinted_url).infer("pixelate", [mesh, crop_input(CROPS)])
    assert np.array_equal(answer.as_numpy("swap"), expected)
    policy = RemotePolicy(deadline_s=9, encoding=Encoding.RAW)
    with RemoteClient(f"{tinted_url}/predict", Tinted.spec, policy) as client:
        assert np.array_equal(client.predict(CROPS, mesh=MESHES), expected)
        futures = [client.submit(CROPS[k : k + 1], mesh=MESHES[k : k + 1]) for k in range(3)]  # may share a call
        assert np.array_equal(np.concatenate([future.result(9) for future in futures]), expected)
        with pytest.raises(FrameError, match="must come with mesh"):
            client.predict(CROPS)


def test_mesh_that_is_missing_or_no_number_is_refused(tinted_url: str) -> None:
    headers = {"Content-Type": MEDIA_TYPE}
    for extras in ({}, {"mesh": MESHES * np.float32("nan")}, {"mesh": MESHES[:, :4]}, {"face": MESHES}):
        body = encode_batch(CROPS, Encoding.RAW, extras=extras)
        assert requests.post(f"{tinted_url}/predict", body, headers=headers, timeout=5).status_code == 400
    document = {"inputs": [{"name": "crop", "datatype": "UINT8", "shape": [1, 32, 32, 3], "data": [0] * 3072}]}
    answer = requests.post(f"{tinted_url}/v2/models/pixelate/infer", json.dumps(document), timeout=5)
    assert answer.status_code == 400 and "crop, mesh" in answer.json()["error"]


def test_one_face_takes_less_than_30_kilobytes() -> None:
    import cv2

    noise = np.random.default_rng(0).integers(0, 256, (1, 256, 256, 3), np.uint8)
    smooth = np.asarray(cv2.GaussianBlur(noise[0], (0, 0), 3), np.uint8)[None]
    body = encode_batch(smooth, Encoding.JPEG, extras={"mesh": np.zeros((1, 478, 3), np.float32)})
    assert len(body) < 30_000
    read = decode_batch(body)
    assert read.extras["mesh"].shape == (1, 478, 3) and read.images.shape == smooth.shape


@pytest.mark.parametrize("cut", [1, 5, 20, 60, 100])
def test_body_cut_off_in_its_tensors_is_refused(cut: int) -> None:
    body = encode_batch(CROPS, Encoding.RAW, extras={"mesh": MESHES, "gaze": MESHES[:, 0]})
    assert set(decode_batch(body).extras) == {"mesh", "gaze"}
    with pytest.raises(WireError):
        decode_batch(body[:-cut])
    with pytest.raises(WireError):
        decode_batch(body + bytes(cut))
