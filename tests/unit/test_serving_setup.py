"""What a project must have before a deployment: all that our files name, and no right more."""

import re
import shlex
from pathlib import Path

import pytest

from serving.cloud_files import CloudApp, render_cloud_run
from serving.setup import main


def test_dry_run_prints_all_that_the_cloud_files_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--project", "demo", "--turn", "--dry-run"]) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    assert all(line[0] == "gcloud" for line in lines)
    text = render_cloud_run(CloudApp("demo", "europe-west4", "europe-west4-docker.pkg.dev/demo/understudy/app:1"))
    (bucket,) = re.findall(r"bucketName: (\S+)", text)
    (account,) = re.findall(r"serviceAccountName: (\S+)@", text)
    assert any(f"gs://{bucket}" in line and "create" in line for line in lines)
    assert any(account in line and "create" in line for line in lines)
    assert any("understudy-turn" in line for line in lines)
    granted = [(line[-2].split(":")[1].split("@")[0], line[-1]) for line in lines if "add-iam-policy-binding" in line]
    assert ("understudy-serving", "--role=roles/storage.objectViewer") in granted
    assert not [role for _, role in granted if role.endswith(("owner", "editor", "admin"))]


def test_running_without_gcloud_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path("/nowhere")))
    assert main(["--project", "demo", "--run"]) == 2
    assert "gcloud must be installed" in capsys.readouterr().err
