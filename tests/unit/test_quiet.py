"""No dependency phones home unless the operator asked it to."""

import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from understudy.jobs.quiet_logs import keep_quiet


def test_telemetry_is_off_by_default_and_the_operators_word_counts() -> None:
    environment = {"MLFLOW_DISABLE_TELEMETRY": "false"}
    keep_quiet(environment)
    assert environment["MLFLOW_DISABLE_TELEMETRY"] == "false"
    assert environment["DO_NOT_TRACK"] == "true"


def test_streamlit_reports_nothing_and_listens_to_this_machine_alone(repository: Path) -> None:
    settings = tomllib.loads((repository / ".streamlit" / "config.toml").read_text())
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["server"]["address"] == "127.0.0.1"
    assert settings["server"]["enableCORS"] is True
    assert settings["server"]["enableXsrfProtection"] is True
    assert settings["server"]["maxUploadSize"] <= 50
    assert settings["client"]["showErrorDetails"] == "none"


def test_the_installed_mlflow_still_knows_the_switch() -> None:
    try:
        mlflow = distribution("mlflow")
    except PackageNotFoundError:
        pytest.skip("MLflow is not installed: the light environment has none")
    switches = Path(str(mlflow.locate_file("mlflow/environment_variables.py"))).read_text()
    assert '_BooleanEnvironmentVariable("MLFLOW_DISABLE_TELEMETRY"' in switches
