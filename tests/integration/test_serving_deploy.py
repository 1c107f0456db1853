"""Google's SDK, driven by `serving.deploy`, against a local server that is as strict as Google's."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.deploy import main
from tests.support.serving_bundle import served_bundle
from tests.support.vertex_server import VertexServer
from understudy.bundle.bundle import Bundle, write_manifest

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
    gpu = ("--accelerator", "NVIDIA_TESLA_T4", "--gpu-duty-percent", "70")
    status, outcome = shell.run("release", *scaling, *gpu)
    state = shell.server.state
    assert status == 0, shell.errors
    (version,) = next(iter(state.versions.values()))
    assert version["versionAliases"] == ["champion", "default"]
    assert version["labels"]["mlflow_run"] == RUN and version["labels"]["mlflow_alias"] == "champion"
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
    (content,) = shell.server.state.objects.values()
    (tmp_path / "bundle.zip").write_bytes(content)
    assert Bundle.load(tmp_path / "bundle.zip").digest == Bundle.load(bundle).digest


def test_canary_then_promotion_then_rollback_move_traffic_and_alias(shell: Shell) -> None:
    for options in ((), ("--traffic", "10", "--alias", "candidate")):
        assert shell.run("release", *options)[0] == 0, shell.errors
    state = shell.server.state
    (endpoint,) = state.endpoints.values()
    old, new = (entry["id"] for entry in endpoint["deployedModels"])
    assert endpoint["trafficSplit"] == {old: 90, new: 10}
    assert shell.run("canary", "--traffic", "25")[1] == {"traffic_split": {new: 25, old: 75}}
    assert endpoint["trafficSplit"] == {old: 75, new: 25}
    assert shell.run("promote")[0] == 0, shell.errors
    assert endpoint["trafficSplit"] == {new: 100}
    assert _aliases(shell) == [[], ["candidate", "champion", "default"]]
    assert shell.run("rollback")[0] == 0, shell.errors
    assert endpoint["trafficSplit"] == {old: 100}
    assert _aliases(shell) == [["champion", "default"], ["candidate"]]
    status, _ = shell.run("rollback")
    assert status == 2 and "none is deployed" in shell.errors
    assert shell.run("undeploy")[1] == {"undeployed": [new]}
    assert [entry["id"] for entry in endpoint["deployedModels"]] == [old]
    assert shell.run("undeploy", "--all")[0] == 0, shell.errors
    assert state.endpoints == {}


def _aliases(shell: Shell) -> list[list[str]]:
    (versions,) = shell.server.state.versions.values()
    return [sorted(version["versionAliases"]) for version in versions]


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
    (content,) = shell.server.state.objects.values()
    (tmp_path / "bundle.zip").write_bytes(content)
    assert Bundle.load(tmp_path / "bundle.zip").digest == Bundle.load(large).digest
    sent = [method for method, path in shell.server.state.calls if "/upload/storage/" in path]
    assert sent == [line["method"] for line in lines if "/upload/storage/" in line["url"]] == ["POST", "PUT"]


def _without_ids(call: tuple[str, str]) -> tuple[str, str]:
    method, path = call
    return method, "".join("N" if c.isdigit() else c for c in path.removeprefix("/v1/")).replace("NNNN", "N")
