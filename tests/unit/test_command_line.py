"""Whatever fails, a command ends with one sentence and a status."""

import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from liveframe.errors import ModelError
from understudy.jobs.command_line import STOPPED, command, sentence_for


@command
def failing(arguments: Sequence[str] | None = None) -> int:
    raise {"model": ModelError("The model must run, but does not.\nPick another."), "bug": KeyError("x"),
           "stop": KeyboardInterrupt(), "memory": MemoryError()}[(arguments or ["bug"])[0]]  # fmt: skip


@pytest.mark.parametrize(("how", "status", "words"), [
    ("model", 1, "The model must run, but does not. Pick another."),
    ("bug", 1, "nobody foresaw (KeyError: 'x')"),
    ("memory", 1, "more memory"),
    ("stop", STOPPED, "Stopped."),
])  # fmt: skip
def test_errors_become_one_sentence(capsys: pytest.CaptureFixture[str], how: str, status: int, words: str) -> None:
    assert failing([how]) == status
    error = capsys.readouterr().err
    assert words in error and len(error.strip().splitlines()) == 1 and "Traceback" not in error


def test_the_systems_errors_name_the_true_cause(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    causes = {"x" * 300: "name is too long", "file/inside": "a file, not a folder", "nowhere": "does not exist"}
    for name, cause in causes.items():
        with pytest.raises(OSError, match=r"\w") as caught:
            (tmp_path / name).open()
        assert cause in sentence_for(caught.value) and name in sentence_for(caught.value)
        assert "Make room" not in sentence_for(caught.value)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/out.mp4")
    assert "Make room" in sentence_for(full)
    for number in (errno.EACCES, errno.EROFS):
        sentence = sentence_for(OSError(number, os.strerror(number), "/closed/out.mp4"))
        assert "/closed/out.mp4" in sentence and "hoose another place" in sentence and "Make room" not in sentence


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    @command
    def speaking(arguments: Sequence[str] | None = None) -> int:
        print("holiday \N{BEACH WITH UMBRELLA}.mp4: 3 frames")
        return 0

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="latin-1"))
    assert speaking() == 0
    sys.stdout.flush()
    assert raw.getvalue() == b"holiday \\U0001f3d6.mp4: 3 frames\n"
