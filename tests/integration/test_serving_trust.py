"""An operator's own personas on a replica: it trusts the list published beside its bundle, and reads it again."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import requests

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.serving_process import ROOT, serving
from benchmarks.harness.waiting import wait_until
from liveframe.remote.picture import Encoding
from liveframe.remote.wire import MEDIA_TYPE, decode_batch, encode_batch
from serving.deploy import main
from serving.server import routine as routine_module
from serving.server.routine import Routine
from tests.support.vertex_server import VertexServer
from understudy.bundle.bundle import Bundle
from understudy.consent.check import read_record
from understudy.consent.published_trust import PublishedTrust, parse_published, publish, read_published
from understudy.consent.record import ConsentError, ConsentFault
from understudy.consent.trust_store import TrustError, TrustStore

CROPS = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 3), np.uint8)


@pytest.fixture
def operator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrustStore:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "operator"))
    return TrustStore(tmp_path / "operator")


@pytest.fixture
def bundle(operator: TrustStore, tmp_path: Path) -> Path:
    return build_consented_bundle(tmp_path / "bundle", {"ada": "Ada", "ben": "Ben"}, operator.folder)


def revoke(operator: TrustStore, bundle: Path, name: str) -> None:
    operator.revoke(read_record(bundle / name / "consent.json").digest, datetime.now(UTC))


@pytest.fixture
def cloud() -> Iterator[VertexServer]:
    with VertexServer() as server:
        server.state.polls = 0
        yield server


def deployed(cloud: VertexServer, bundle: Path) -> dict[str, str]:
    """Ship a bundle; returns what Vertex AI sets for the replica's container."""
    where = ("--project", "demo", "--region", "europe-west4", "--api-endpoint", cloud.url)
    assert main(["release", *where, "--bundle", str(bundle)], {}) == 0
    (version,) = next(iter(cloud.state.versions.values()))
    variables = {entry["name"]: entry["value"] for entry in version["containerSpec"]["env"]}
    emulator = {"STORAGE_EMULATOR_HOST": cloud.url, "GOOGLE_CLOUD_PROJECT": "demo"}
    return {"AIP_STORAGE_URI": version["artifactUri"], **emulator, **variables}


def test_replica_that_knows_no_operator_serves_their_own_personas(
    cloud: VertexServer, bundle: Path, tmp_path: Path
) -> None:
    variables = {**deployed(cloud, bundle), "UNDERSTUDY_HOME": str(tmp_path / "nobody")}
    with serving(variables["AIP_STORAGE_URI"], extra=variables) as url:
        headers = {"Content-Type": f"{MEDIA_TYPE}; variant=ben"}
        answer = requests.post(f"{url}/predict", encode_batch(CROPS, Encoding.RAW), headers=headers, timeout=5)
    opened = Bundle.load(bundle)
    assert np.array_equal(decode_batch(answer.content).images, opened.swap_model("ben").predict(CROPS))
    assert answer.headers["X-Liveframe-Bundle"] == opened.digest
    assert answer.headers["Content-Type"] == f"{MEDIA_TYPE}; bundle={opened.digest}"


def test_local_server_says_in_a_sentence_why_a_bundle_of_strangers_is_not_served(bundle: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "UNDERSTUDY_HOME": str(tmp_path / "nobody"), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "serving.local_server", str(bundle)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "key" in done.stderr.splitlines()[-1]


def test_revocation_reaches_a_running_replica(
    operator: TrustStore, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routine_module, "CONSENT_S", 0.0)
    published = tmp_path / "trust.json"
    published.write_bytes(publish(operator.read()))
    trust = PublishedTrust(published.read_bytes, "the list", refresh_s=0.02)
    routine = Routine(trust)
    routine.load(str(bundle))
    assert routine.variant("ada") == "ada"
    revoke(operator, bundle, "ada")
    published.write_bytes(publish(operator.read()))

    def refusal() -> ConsentFault | None:
        try:
            routine.variant("ada")
        except ConsentError as error:
            return error.code
        return None

    wait_until(lambda: refusal() is ConsentFault.REVOKED)
    assert routine.variant("ben") == "ben"
    trust.close()


def test_list_that_cannot_be_read_counts_for_a_while_and_then_nothing_is_trusted(
    operator: TrustStore, tmp_path: Path
) -> None:
    published = tmp_path / "trust.json"
    published.write_bytes(publish(operator.read()))
    trust = PublishedTrust(published.read_bytes, "the list", refresh_s=0.02, max_age_s=0.3)
    published.unlink()
    assert trust.read() == parse_published(publish(operator.read()), "it")
    time.sleep(0.4)
    with pytest.raises(TrustError, match="what was revoked"):
        trust.read()
    published.write_bytes(publish(operator.read()))

    def is_trusted() -> bool:
        try:
            trust.read()
        except TrustError:
            return False
        return True

    wait_until(is_trusted)
    trust.close()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"schema": 2}', b'{"schema": 1, "keys": [{"public_key": "AA=="}], "revoked": []}']
)
def test_list_that_is_none_stops_the_start(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "trust.json").write_bytes(content)
    with pytest.raises(TrustError, match="must hold public keys"):
        read_published(tmp_path / "trust.json")


def test_what_is_published_holds_no_secret_and_no_word_about_anybody(operator: TrustStore, bundle: Path) -> None:
    operator.revoke("ab" * 32, datetime.now(UTC), "Jane asked for it")
    text = publish(operator.read()).decode()
    assert "ab" * 32 in text and "Jane" not in text and "operator" not in text
    assert parse_published(text.encode(), "it").keys.keys() == operator.read().keys.keys()
