"""The container's entry point and the local server as processes, and the way there through Vertex AI's own surface."""

import base64
import json
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.ports import free_port
from benchmarks.harness.serving_process import OUR_SERVER, SDK_SERVER, running, serving
from liveframe.errors import ModelError
from liveframe.remote.client import RemotePolicy
from liveframe.remote.picture import Encoding, encode_picture
from liveframe.remote.wire import MEDIA_TYPE, decode_batch, encode_batch
from serving.deploy import main
from serving.vertex.client import (
    RemoteModel,
    RemoteSettings,
    Served,
    TokenProvider,
    fetch_bundle,
    look_up,
    open_remote,
    predict_url,
)
from tests.support.serving_bundle import served_bundle
from tests.support.vertex_server import VertexServer
from understudy.bundle.bundle import Bundle, BundleError

CROPS = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with served_bundle(tmp_path_factory.mktemp("served")) as path:
        yield path


@pytest.fixture(scope="module")
def expected(bundle: Path) -> Any:
    return Bundle.load(bundle).swap_model("ben").predict(CROPS)


@pytest.fixture(scope="module")
def container(bundle: Path) -> Iterator[str]:
    with local_server(bundle) as url:
        yield url


def local_server(bundle: Path) -> AbstractContextManager[str]:
    """Serve at home, in a process that could not import Google's SDK if it tried."""
    port = free_port()
    code = (
        "import sys; sys.modules['google.cloud.aiplatform'] = None\n"
        "from serving.local_server import main\n"
        f"sys.exit(main([{str(bundle)!r}, '--port', '{port}']))"
    )
    return running([sys.executable, "-c", code], f"http://127.0.0.1:{port}", os.environ)


@pytest.fixture
def vertex(container: str) -> Iterator[VertexServer]:
    host, port = container.removeprefix("http://").split(":")
    with VertexServer() as server:
        server.state.polls = 0
        server.state.backends = {"1": (host, int(port)), "2": (host, int(port))}
        yield server


@pytest.fixture
def google_credentials(vertex: VertexServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Google's default credentials: a service account whose tokens the local server issues."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = {
        "type": "service_account",
        "project_id": "demo",
        "client_email": "app@demo.iam.gserviceaccount.com",
        "private_key": key.decode(),
        "token_uri": f"{vertex.url}/token",
    }
    (tmp_path / "account.json").write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "account.json"))


def released(vertex: VertexServer, bundle: Path, *options: str) -> str:
    """Ship the bundle; returns the endpoint's resource name."""
    where = ("--project", "demo", "--region", "europe-west4", "--api-endpoint", vertex.url)
    assert main(["release", *where, "--bundle", str(bundle), *options], {}) == 0
    return next(iter(vertex.state.endpoints))


def settings_for(vertex: VertexServer, name: str) -> RemoteSettings:
    environment = {"UNDERSTUDY_ENDPOINT": name, "UNDERSTUDY_API": vertex.url, "UNDERSTUDY_REMOTE_DEADLINE_MS": "4000"}
    return RemoteSettings.from_environment(environment)


@pytest.mark.usefixtures("google_credentials")
def test_crops_go_to_a_dedicated_endpoint_and_back_exactly(vertex: VertexServer, bundle: Path, expected: Any) -> None:
    settings = settings_for(vertex, released(vertex, bundle))
    policy = RemotePolicy(deadline_s=4.0, encoding=Encoding.RAW)
    spec = Bundle.load(bundle).swap_model("ben").spec
    with open_remote(settings, spec, "ben", policy) as client:
        assert np.array_equal(client.predict(CROPS), expected)
        client.predict(CROPS)
    assert len(vertex.state.tokens) == 1, "one token serves many requests"
    assert any(path.endswith(":rawPredict") for _, path in vertex.state.calls)


@pytest.mark.usefixtures("google_credentials")
def test_canary_has_a_model_of_its_own_for_the_same_viewers_always(
    vertex: VertexServer, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    newer = build_consented_bundle(tmp_path / "newer", {"ada": "Ada"}, Path(os.environ["UNDERSTUDY_HOME"]))
    settings = settings_for(vertex, released(vertex, bundle))
    assert look_up(settings, TokenProvider()).canary is None
    released(vertex, newer, "--traffic", "30")
    fleet = look_up(settings, TokenProvider())
    assert fleet.canary is not None and fleet.percent == 30
    viewers = [f"viewer {number}" for number in range(400)]
    chosen = [fleet.has_canary_for(viewer) for viewer in viewers]
    assert chosen == [fleet.has_canary_for(viewer) for viewer in viewers]
    assert 0.2 < sum(chosen) / len(chosen) < 0.4
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", vertex.url)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "demo")
    for served, path in ((fleet.stable, bundle), (fleet.canary, newer)):
        assert Bundle.load(fetch_bundle(served, tmp_path / "cache")).digest == Bundle.load(path).digest
    # The server on loopback plays the stable bundle whoever asks: at the canary's address that is the wrong one.
    wrong = RemoteModel(fleet.canary.settings, Bundle.load(newer).swap_model("ada"), "ada", Bundle.load(newer).digest)
    right = RemoteModel(fleet.stable.settings, Bundle.load(bundle).swap_model("ada"), "ada", Bundle.load(bundle).digest)
    for _ in range(4):
        assert np.array_equal(wrong.predict(CROPS), Bundle.load(newer).swap_model("ada").predict(CROPS))
        right.predict(CROPS)
    assert "must play the bundle" in wrong.stats().reason and wrong.stats().remote_calls == 0
    assert right.stats().reason == "" and right.stats().remote_calls == 4
    wrong.close()
    right.close()


def test_bundle_that_is_not_the_one_the_registry_names_is_refused(
    vertex: VertexServer, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    released(vertex, bundle)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", vertex.url)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "demo")
    (name,) = [key for key in vertex.state.objects if key.endswith("/bundle.zip")]
    served = Served(RemoteSettings("x"), "0" * 12, f"gs://{name.removesuffix('/bundle.zip')}")
    with pytest.raises(BundleError, match="must hold the bundle 000000000000"):
        fetch_bundle(served, tmp_path)


@pytest.mark.usefixtures("google_credentials")
def test_endpoint_that_goes_away_is_answered_by_the_embedded_model(vertex: VertexServer, bundle: Path) -> None:
    local = Bundle.load(bundle).swap_model("ada")
    settings = settings_for(vertex, released(vertex, bundle))
    model = RemoteModel(settings, local, "ada")
    model.predict(CROPS)
    vertex.state.faults["rawPredict"] = [503] * 50
    answers = [model.predict(CROPS) for _ in range(5)]
    assert all(np.array_equal(answer, local.predict(CROPS)) for answer in answers)
    stats = model.stats()
    model.close()
    assert stats.remote_calls == 1 and stats.local_calls == 5


@pytest.mark.usefixtures("google_credentials")
@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_googles_own_sdk_predicts_by_json_and_by_bytes(vertex: VertexServer, bundle: Path, expected: Any) -> None:
    from google.cloud import aiplatform
    from google.oauth2.credentials import Credentials
    from requests.adapters import HTTPAdapter

    name = released(vertex, bundle)
    requests.post(f"{vertex.url}/token", timeout=5)

    class Loopback(HTTPAdapter):
        """The SDK hard-codes https; the server here has no certificate."""

        def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
            request.url = str(request.url).replace("https://", "http://")
            return super().send(request, *args, **kwargs)

    endpoint = aiplatform.Endpoint(name, credentials=Credentials(token=vertex.state.tokens[-1]))
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {vertex.state.tokens[-1]}"
    session.mount("https://", Loopback())
    endpoint.authorized_session = session
    raw = endpoint.raw_predict(encode_batch(CROPS, Encoding.RAW), {"Content-Type": f"{MEDIA_TYPE}; variant=ben"})
    assert np.array_equal(decode_batch(raw.content).images, expected)
    instances = [{"b64": base64.b64encode(encode_picture(crop, Encoding.PNG)).decode()} for crop in CROPS]
    body = {"instances": instances, "parameters": {"variant": "ben"}}
    answer = endpoint.raw_predict(json.dumps(body).encode(), {"Content-Type": "application/json"}).json()
    predicted = endpoint.predict(instances, parameters={"variant": "ben"})
    assert [item["b64"] for item in predicted.predictions] == [item["b64"] for item in answer["predictions"]]
    bad = endpoint.raw_predict(b"LFRB", {"Content-Type": MEDIA_TYPE})
    assert bad.status_code == 400 and "header" in bad.text


@pytest.mark.parametrize("entry", [SDK_SERVER, OUR_SERVER], ids=["the-sdks-own", "the-images"])
def test_entry_point_serves_a_bundle_from_cloud_storage(entry: tuple[str, ...], bundle: Path, expected: Any) -> None:
    with VertexServer() as cloud:
        cloud.state.polls = 0
        released(cloud, bundle)
        (version,) = next(iter(cloud.state.versions.values()))
        emulator = {"STORAGE_EMULATOR_HOST": cloud.url, "GOOGLE_CLOUD_PROJECT": "demo"}
        with serving(version["artifactUri"], entry, emulator) as url:
            body, headers = encode_batch(CROPS, Encoding.RAW), {"Content-Type": f"{MEDIA_TYPE}; variant=ben"}
            answer = requests.post(f"{url}/predict", body, headers=headers, timeout=5)
            health = requests.get(f"{url}/health", timeout=5)
    assert health.status_code == 200 and (entry is SDK_SERVER or health.json()["items"] == 2)
    assert np.array_equal(decode_batch(answer.content).images, expected)


@pytest.mark.slow
def test_container_with_a_damaged_bundle_never_turns_healthy(bundle: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(bundle, tmp_path / "damaged")
    (tmp_path / "damaged" / "ada" / "decoder.onnx").write_bytes(b"not a network")
    with pytest.raises(RuntimeError, match="ended with"), serving(str(tmp_path / "damaged")):
        pass


def test_local_server_serves_the_same_without_googles_sdk(bundle: Path, expected: Any) -> None:
    with local_server(bundle) as url:
        settings = RemoteSettings(endpoint=f"{url}/predict", deadline_ms=4000)
        policy = RemotePolicy(deadline_s=4.0, encoding=Encoding.PNG)
        with open_remote(settings, Bundle.load(bundle).swap_model("ben").spec, "ben", policy) as client:
            assert np.array_equal(client.predict(CROPS), expected)
        assert requests.get(f"{url}/health", timeout=5).json()["items"] == 2


def test_endpoint_names_that_make_no_sense_are_refused_with_a_sentence() -> None:
    with pytest.raises(ModelError, match="UNDERSTUDY_ENDPOINT must be"):
        predict_url(RemoteSettings(endpoint="my-endpoint"), None)


def test_missing_credentials_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    settings = RemoteSettings(endpoint="projects/demo/locations/europe-west4/endpoints/1", dns="localhost")
    from liveframe.model import BatchSpec

    with pytest.raises(ModelError, match="gcloud auth application-default login"):
        open_remote(settings, BatchSpec((32, 32, 3), (64, 64, 4)))
