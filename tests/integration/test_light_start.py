"""The app starts without TensorFlow: everything that the live page can reach is imported in a fresh process."""

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
import liveframe, serving, ui, understudy
for package in (liveframe, understudy, ui):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
heavy = {"tensorflow", "keras", "mlflow", "kfp", "google.cloud.aiplatform"}
print(*sorted(heavy & set(sys.modules)))
"""


def test_what_the_app_imports_brings_no_training_library(repository):
    answer = subprocess.run([sys.executable, "-c", IMPORT_ALL], cwd=repository, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split() == []
