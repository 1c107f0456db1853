"""`python -m understudy.personas` lists what a bundle ships."""

from pathlib import Path

import pytest

from benchmarks.harness.tiny_bundle import build_tiny_bundle
from understudy.personas import main


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("personas") / "tiny")


def test_names_come_one_a_line(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(directory)]) == 0
    assert capsys.readouterr().out == "ada\nben\n"


def test_long_form_adds_title_and_existing_still(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(directory), "--long"]) == 0
    name, title, _, still = capsys.readouterr().out.splitlines()[1].split("\t")
    assert (name, title) == ("ben", "Ben")
    assert Path(still).is_file()


def test_long_form_reads_the_bundle_that_ships(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--long"]) == 0
    name, _, size, still = capsys.readouterr().out.splitlines()[0].split("\t")
    assert Path(still).parent.name == name and 0.1 < float(size.removesuffix(" MB")) < 2


def test_refused_bundle_is_explained_on_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--bundle", str(tmp_path / "nowhere")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "does not exist" in captured.err
