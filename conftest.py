"""Brings what the tests need before they begin: `uv run` installs the app and pytest, and no more."""

import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution

import pytest

pytest_plugins = ["tests.support.side_by_side", "tests.support.recorded_once"]

_ONE_OF_EACH_GROUP = ("keras", "google-cloud-aiplatform", "kfp", "hypothesis")
_BROUGHT = "UNDERSTUDY_TEST_GROUPS"


def is_missing(package: str) -> bool:
    """Whether a package is not installed here."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return True
    return False


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """Start pytest anew with every group; the earliest hook that may end the capturing of what is printed."""
    if not any(map(is_missing, _ONE_OF_EACH_GROUP)):
        return
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None or os.environ.get(_BROUGHT):
        pytest.exit("The tests need every dependency group. Install them: uv sync --all-groups", returncode=4)
    pluginmanager.getplugin("capturemanager").stop_global_capturing()
    print("The tests need more than the app: installing every dependency group (3 GB).", flush=True)
    os.environ[_BROUGHT] = "1"
    os.execv(uv, [uv, "run", "--all-groups", "pytest", *sys.argv[1:]])
