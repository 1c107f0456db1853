"""What is public can be imported by its short name, and costs nothing before its first use."""

import subprocess
import sys

import pytest

import liveframe
import understudy
from understudy.__main__ import _COMMANDS


@pytest.mark.parametrize("package", [liveframe, understudy])
def test_every_public_name_is_there(package) -> None:
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="has no public name 'nothing'"):
        package.nothing  # noqa: B018


def test_importing_the_packages_loads_no_library(repository) -> None:
    code = "import sys, liveframe, understudy; print(*sorted({'cv2', 'numpy', 'onnxruntime'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == []


def test_the_one_command_knows_every_other(repository) -> None:
    for module, _ in _COMMANDS.values():
        path = repository.joinpath(*module.split("."))
        assert module == "streamlit" or path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


def test_the_one_command_runs_another_and_refuses_an_unknown_one(repository) -> None:
    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "understudy", *words]
        return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)

    listed = ask("personas")
    assert listed.returncode == 0 and len(listed.stdout.split()) >= 1
    unknown = ask("dance")
    assert unknown.returncode == 2 and "usage: understudy COMMAND" in unknown.stderr
