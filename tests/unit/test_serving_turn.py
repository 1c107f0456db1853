"""TURN credentials and the cloud files: what they say, and what they must never say."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.cloud_files import CloudApp, main, render_app_engine, render_cloud_run
from serving.turn import TurnSettings, ice_servers, render_coturn, turn_credentials
from serving.vertex.plan import HEALTH_ROUTE, PORT, PREDICT_ROUTE

SECRET = "a-secret-of-twenty-one"
TURN = TurnSettings(("turn:turn.example.org:3478?transport=udp",), SECRET)
APP = CloudApp("demo", "europe-west4", "europe-west4-docker.pkg.dev/demo/understudy/app:1", "projects/1/x", TURN)


def test_credentials_are_the_hmac_that_coturn_computes() -> None:
    # The password by `printf 1700000600:s1 | openssl dgst -sha1 -hmac north -binary | base64`.
    name, password = turn_credentials("north", "s1", 1700000600)
    assert name == "1700000600:s1"
    assert password == "PFyU92I6sYdvtManYU7HTqcdLfw="


def test_credentials_last_ten_minutes_and_differ_by_session() -> None:
    (first,), (second,) = ice_servers(TURN, now_s=1000.0), ice_servers(TURN, now_s=1000.0)
    assert first["username"].split(":")[0] == "1600"
    assert first["username"] != second["username"] and first["credential"] != second["credential"]


def test_without_turn_there_are_no_servers() -> None:
    assert ice_servers(TurnSettings.from_environment({})) == []


def test_secret_is_not_shown() -> None:
    assert SECRET not in repr(TURN) and SECRET not in str(ice_servers(TURN)) and SECRET not in repr(APP)


@pytest.mark.parametrize("urls", ["http://turn.example.org", "turn:host name", "turn:a:1?transport=carrier"])
def test_urls_that_are_no_turn_urls_are_refused(urls: str) -> None:
    with pytest.raises(ValueError, match="TURN URL"):
        TurnSettings.from_environment({"UNDERSTUDY_TURN_URLS": urls, "UNDERSTUDY_TURN_SECRET": SECRET})


def test_short_secret_and_ambiguous_user_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 16"):
        TurnSettings(TURN.urls, "short")
    with pytest.raises(ValueError, match="TURN user"):
        turn_credentials(SECRET, "9999999999:mallory", 1)


def test_coturn_file_keeps_private_networks_out_of_reach() -> None:
    lines = render_coturn(TURN, "example.org", "203.0.113.7").splitlines()
    assert f"static-auth-secret={SECRET}" in lines and "use-auth-secret" in lines and "external-ip=203.0.113.7" in lines
    assert {"denied-peer-ip=169.254.0.0-169.254.255.255", "denied-peer-ip=127.0.0.0-127.255.255.255"} <= set(lines)
    assert {"denied-peer-ip=fc00::-fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "no-tcp-relay"} <= set(lines)
    assert "tls-listening-port=443" in lines
    for address in ("", "10.0.0.7", "turn.example.org"):
        with pytest.raises(ValueError, match="public address"):
            render_coturn(TURN, "example.org", address)
    assert "allow-loopback-peers" not in lines and not any("$" in line for line in lines)


def test_cloud_run_file_holds_what_a_live_stream_needs_and_no_secret() -> None:
    text = render_cloud_run(APP)
    service: Any = yaml.safe_load(text)
    template = service["spec"]["template"]
    (container,) = template["spec"]["containers"]
    assert (service["apiVersion"], service["kind"]) == ("serving.knative.dev/v1", "Service")
    assert template["metadata"]["annotations"]["run.googleapis.com/sessionAffinity"] == "true"
    assert template["spec"]["timeoutSeconds"] == 3600
    assert container["ports"][0]["containerPort"] == _exposed_port("app.Dockerfile")
    assert container["startupProbe"]["httpGet"]["path"] == "/_stcore/health"
    environment = {entry["name"]: entry for entry in container["env"]}
    assert environment["UNDERSTUDY_TURN_SECRET"]["valueFrom"]["secretKeyRef"]["name"] == "understudy-turn"
    assert environment["UNDERSTUDY_ENDPOINT"]["value"] == "projects/1/x"
    assert SECRET not in text


def test_app_engine_file_is_flexible_sticky_and_checked() -> None:
    app: Any = yaml.safe_load(render_app_engine(APP))
    assert (app["env"], app["runtime"]) == ("flex", "custom") and app["network"]["session_affinity"] is True
    assert app["readiness_check"]["path"] == app["liveness_check"]["path"] == "/_stcore/health"
    assert app["env_variables"]["UNDERSTUDY_TURN_SECRET"] == SECRET
    bare: Any = yaml.safe_load(render_app_engine(CloudApp("demo", "europe-west4", "x")))
    assert "UNDERSTUDY_TURN_SECRET" not in bare["env_variables"]


def test_names_that_could_break_out_of_the_yaml_are_refused() -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        CloudApp("demo", "europe-west4", 'x"\n  evil: "1')


def test_serving_image_serves_the_routes_and_the_port_that_deploy_tells_vertex() -> None:
    from benchmarks.harness.serving_process import container_environment

    environment = container_environment(PORT, "")
    assert (environment["AIP_PREDICT_ROUTE"], environment["AIP_HEALTH_ROUTE"]) == (PREDICT_ROUTE, HEALTH_ROUTE)
    text = _dockerfile("serving.Dockerfile")
    assert _exposed_port("serving.Dockerfile") == PORT
    for name in ("HANDLER_MODULE", "HANDLER_CLASS", "PREDICTOR_MODULE", "PREDICTOR_CLASS"):
        assert f"{name}={environment[name]}" in text


def test_command_line_writes_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_TURN_SECRET", SECRET)
    options = [
        "--project",
        "demo",
        "--out",
        str(tmp_path),
        "--turn-host",
        "turn.example.org",
        "--turn-ip",
        "203.0.113.7",
    ]
    assert main(options) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"cloud_run.yaml", "app.yaml", "coturn.conf"}
    assert (tmp_path / "app.yaml").stat().st_mode & 0o077 == 0, "it holds the secret"


def _dockerfile(name: str) -> str:
    return (Path(__file__).resolve().parents[2] / "serving" / "cloud" / name).read_text()


def _exposed_port(name: str) -> int:
    return int(next(line for line in _dockerfile(name).splitlines() if line.startswith("EXPOSE")).split()[1])
