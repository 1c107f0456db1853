"""Google's SDK, driven by `serving.deploy`, against a local server that is as strict as Google's."""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.harness.consented_bundle import build_consented_bundle
from serving.deploy import main
from tests.support.serving_bundle import served_bundle
from tests.support.vertex_server import VertexServer
from understudy.bundle.bundle import Bundle, write_manifest
from understudy.consent.check import read_record
from understudy.consent.trust_store import TrustStore

RUN = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with served_bundle(tmp_path_factory.mktemp("served")) as path:
        yield path


@pytest.fixture
def vertex() -> Iterator[VertexServer]:
    with VertexServer() as server:
        server.state.polls = 0
        yield server


class Shell:
    """The command line against one local server."""

    def __init__(self, server: VertexServer, bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.server, self.bundle, self.capsys = server, bundle, capsys
        self.errors = ""

    def run(self, command: str, *options: str) -> tuple[int, dict[str, Any]]:
        """Run one command; returns its status and what it printed."""
        where = ("--project", "demo", "--region", "europe-west4", "--api-endpoint", self.server.url)
        status = main([command, *where, "--bundle", str(self.bundle), "--mlflow-run", RUN, *options], {})
        out, self.errors = self.capsys.readouterr()
        return status, json.loads(out) if out else {}


@pytest.fixture
def shell(vertex: VertexServer, bundle: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(vertex, bundle, capsys)


def test_release_copies_uploads_creates_and_deploys(shell: Shell) -> None:
    shell.server.state.polls = 1  # no operation is done when first asked
    scaling = ("--min-replicas", "2", "--max-replicas", "9", "--requests-per-minute", "1200")
    gpu = ("--machine", "g2-standard-8", "--accelerator", "NVIDIA_L4", "--gpu-duty-percent", "70")
    status, outcome = shell.run("release", *scaling, *gpu)
    state = shell.server.state
    assert status == 0, shell.errors
    (version,) = next(iter(state.versions.values()))
    assert version["versionAliases"] == ["challenger", "default"]
    assert version["labels"]["mlflow_run"] == RUN and version["labels"]["mlflow_alias"] == "challenger"
    assert version["containerSpec"]["imageUri"].endswith("/serving-gpu:latest")
    (name,) = [key for key in state.objects if key.endswith("/bundle.zip")]
    assert version["artifactUri"] == f"gs://{name.removesuffix('/bundle.zip')}"
    (endpoint,) = state.endpoints.values()
    assert endpoint["dedicatedEndpointEnabled"] is True
    assert outcome["dns"] == endpoint["dedicatedEndpointDns"]
    resources = endpoint["deployedModels"][0]["dedicatedResources"]
    assert (resources["minReplicaCount"], resources["maxReplicaCount"]) == (2, 9)
    targets = {spec["metricName"].rsplit("online/")[1]: spec["target"] for spec in resources["autoscalingMetricSpecs"]}
    assert targets == {"cpu/utilization": 60, "accelerator/duty_cycle": 70, "request_count": 1200}
    assert [entry["percent"] for entry in outcome["deployed"]] == [100]


def test_bundle_in_the_cloud_is_the_bundle_that_was_verified(shell: Shell, bundle: Path, tmp_path: Path) -> None:
    from understudy.bundle.bundle import Bundle

    assert shell.run("upload")[0] == 0, shell.errors
    content = _stored_bundle(shell)
    (tmp_path / "bundle.zip").write_bytes(content)
    assert Bundle.load(tmp_path / "bundle.zip").digest == Bundle.load(bundle).digest


def test_canary_then_promotion_then_rollback_move_viewers_and_alias(shell: Shell) -> None:
    state = shell.server.state
    assert shell.run("release")[0] == 0, shell.errors
    assert _aliases(shell) == [["challenger", "default"]], "an upload never is the champion"
    assert shell.run("promote")[0] == 0, shell.errors
    assert _aliases(shell) == [["challenger", "champion", "default"]]
    _, outcome = shell.run("release", "--traffic", "25")
    stable, canary = state.endpoints.values()
    assert outcome["canary"]["percent_of_viewers"] == 25 and outcome["canary"]["endpoint"] == canary["name"]
    assert stable["labels"] == {"canary": canary["name"].rsplit("/", 1)[1], "canary_percent": "25"}
    (old,) = (entry["id"] for entry in stable["deployedModels"])
    assert stable["trafficSplit"] == {old: 100}, "no frame of a viewer who is not among the 25 % goes elsewhere"
    assert _aliases(shell) == [["champion", "default"], ["challenger"]]
    assert shell.run("canary", "--traffic", "50")[1]["canary"]["percent_of_viewers"] == 50
    assert shell.run("promote")[0] == 0, shell.errors
    _, new = (entry["id"] for entry in stable["deployedModels"])
    assert {key: share for key, share in stable["trafficSplit"].items() if share} == {new: 100}
    assert stable["labels"]["canary_percent"] == "0"
    assert _aliases(shell) == [[], ["challenger", "champion", "default"]]
    assert shell.run("rollback")[0] == 0, shell.errors
    assert stable["trafficSplit"] == {old: 100}
    assert _aliases(shell) == [["champion", "default"], ["challenger"]]
    assert shell.run("promote")[0] == 2 and "canary" in shell.errors, "what was rolled back stays so"
    assert shell.run("rollback")[0] == 2 and "none is deployed" in shell.errors
    undeployed = shell.run("undeploy")[1]["undeployed"]
    assert undeployed[0] == new and canary["deployedModels"] == []
    assert [entry["id"] for entry in stable["deployedModels"]] == [old]
    assert shell.run("undeploy", "--all")[0] == 0, shell.errors
    assert state.endpoints == {}


def test_rollback_of_a_canary_takes_it_from_the_viewers_and_a_promotion_does_not_bring_it_back(shell: Shell) -> None:
    for command in ("release", "promote", "release", "rollback"):
        assert shell.run(command)[0] == 0, shell.errors
    stable, canary = shell.server.state.endpoints.values()
    assert stable["labels"]["canary_percent"] == "0" and len(canary["deployedModels"]) == 1
    assert _aliases(shell) == [["champion", "default"], ["challenger"]]
    assert shell.run("promote")[0] == 2 and "canary" in shell.errors
    assert _aliases(shell) == [["champion", "default"], ["challenger"]]


def test_upload_as_champion_is_refused(shell: Shell) -> None:
    assert shell.run("upload", "--alias", "champion")[0] == 2
    assert "promote" in shell.errors and shell.server.state.objects == {}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--accelerator", "NVIDIA_TESLA_T4"), "n1-standard-4"),  # the default machine takes none
        (("--machine", "g2-standard-8"), "NVIDIA_L4"),
        (("--machine", "g2-standard-24", "--accelerator", "NVIDIA_L4"), "g2-standard-8"),
        (("--machine", "a2-highgpu-2g", "--accelerator", "NVIDIA_TESLA_A100"), "a2-highgpu-1g"),
        (("--gpu-duty-percent", "60"), "--accelerator"),
        (("--image", "europe-west4-docker.pkg.dev/demo/understudy/serving-gpu:1"), "--accelerator"),
    ],
)
def test_machines_and_accelerators_that_vertex_refuses_are_refused_first(
    shell: Shell, options: tuple[str, ...], sentence: str
) -> None:
    assert shell.run("release", *options)[0] == 2
    assert sentence in shell.errors and shell.server.state.calls == []


def _aliases(shell: Shell) -> list[list[str]]:
    (versions,) = shell.server.state.versions.values()
    return [sorted(version["versionAliases"]) for version in versions]


# ---------------------------------------------------------------------- own personas


@pytest.fixture
def own_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle that this operator signed, and nobody else knows."""
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "own"))
    return build_consented_bundle(tmp_path / "bundle", {"ada": "Ada"}, tmp_path / "own")


def _revoke(bundle: Path, home: Path) -> None:
    TrustStore(home).revoke(read_record(bundle / "ada" / "consent.json").digest, datetime.now(UTC), "a private reason")


def test_public_keys_and_revocations_travel_with_the_bundle(shell: Shell, own_bundle: Path, tmp_path: Path) -> None:
    shell.bundle = own_bundle
    assert shell.run("release")[0] == 0, shell.errors
    state = shell.server.state
    (name,) = [key for key in state.objects if key.endswith("/trust.json")]
    (version,) = next(iter(state.versions.values()))
    variables = {entry["name"]: entry["value"] for entry in version["containerSpec"]["env"]}
    assert variables["UNDERSTUDY_TRUST"] == f"gs://{name}"
    _revoke(own_bundle, tmp_path / "own")
    assert shell.run("trust")[1] == {"published": [f"gs://{name}"]}
    published = state.objects[name]
    assert read_record(own_bundle / "ada" / "consent.json").digest in published.decode()
    assert b"PRIVATE" not in published and b"private reason" not in published


def test_deploy_refuses_what_the_replica_would_refuse(shell: Shell, own_bundle: Path, tmp_path: Path) -> None:
    shell.bundle = own_bundle
    _revoke(own_bundle, tmp_path / "own")
    for options in ((), ("--dry-run",)):
        assert shell.run("release", *options)[0] == 2
        assert "revoked" in shell.errors
    assert shell.server.state.objects == {}


@pytest.mark.parametrize("verb", ["upload", "GET models", "deployModel"])
def test_busy_cloud_is_asked_again(shell: Shell, verb: str) -> None:
    shell.server.state.faults[verb] = [429]
    assert shell.run("release")[0] == 0, shell.errors
    assert len(next(iter(shell.server.state.endpoints.values()))["deployedModels"]) == 1


def test_upload_that_the_cloud_dropped_is_reported_not_repeated(shell: Shell) -> None:
    shell.server.state.faults["upload"] = [503]
    status, _ = shell.run("upload")
    assert status == 1 and "503" in shell.errors
    assert shell.server.state.versions == {}


def test_strict_server_refuses_what_google_refuses(vertex: VertexServer, bundle: Path) -> None:
    import requests

    url = f"{vertex.url}/v1/{vertex.state.parent}/models:upload"
    answer = requests.post(url, json={"model": {"displayName": "x", "surprise": 1}}, timeout=5)
    assert answer.status_code == 400 and "surprise" in answer.json()["error"]["message"]


def test_dry_run_prints_the_calls_that_the_real_run_makes(shell: Shell, bundle: Path) -> None:
    options = ["--project", "demo", "--region", "europe-west4", "--bundle", str(bundle), "--mlflow-run", RUN]
    assert main([*options, "--dry-run"], {}) == 0
    lines = [json.loads(line) for line in shell.capsys.readouterr().out.splitlines()]
    written = [(line["method"], line["url"].split("?")[0].split("googleapis.com")[1]) for line in lines]
    assert all(line["url"].startswith("https://") for line in lines)
    assert shell.run("release")[0] == 0
    real = [(method, path) for method, path in shell.server.state.calls if method != "GET"]
    rehearsed = [call for call in written if call[0] != "GET"]
    assert [_without_ids(call) for call in rehearsed] == [_without_ids(call) for call in real]
    upload = next(line["body"] for line in lines if line["url"].split("?")[0].endswith("models:upload"))
    assert upload["model"]["labels"]["mlflow_run"] == RUN


def test_bundle_too_large_for_one_request_goes_by_a_session_rehearsed_or_real(
    shell: Shell, bundle: Path, tmp_path: Path
) -> None:
    large = shutil.copytree(bundle, tmp_path / "large")
    (large / "sheet.bin").write_bytes(np.random.default_rng(0).bytes(9 << 20))  # beyond the client's 8 MiB
    known = Bundle.load(bundle).manifest
    write_manifest(
        large,
        name=known.name,
        version=known.version,
        personas={persona.name: persona.title for persona in known.personas},
        input_shape=known.input_shape,
        output_shape=known.output_shape,
        licence=known.licence,
    )
    options = ["--project", "demo", "--region", "europe-west4", "--bundle", str(large)]
    assert main([*options, "--dry-run"], {}) == 0
    lines = [json.loads(line) for line in shell.capsys.readouterr().out.splitlines()]
    stored = [line["body"]["bytes"] for line in lines if line["method"] == "PUT"]
    assert stored and stored[0] > 9 << 20
    shell.bundle = large
    assert shell.run("upload")[0] == 0, shell.errors
    content = _stored_bundle(shell)
    (tmp_path / "bundle.zip").write_bytes(content)
    assert Bundle.load(tmp_path / "bundle.zip").digest == Bundle.load(large).digest
    sent = [method for method, path in shell.server.state.calls if "/upload/storage/" in path]
    # The bundle in a session, the published keys in one request.
    assert sent == [line["method"] for line in lines if "/upload/storage/" in line["url"]] == ["POST", "PUT", "POST"]


def _stored_bundle(shell: Shell) -> bytes:
    (content,) = [value for name, value in shell.server.state.objects.items() if name.endswith("/bundle.zip")]
    return content


def _without_ids(call: tuple[str, str]) -> tuple[str, str]:
    method, path = call
    return method, "".join("N" if c.isdigit() else c for c in path.removeprefix("/v1/")).replace("NNNN", "N")
