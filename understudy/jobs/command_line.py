"""How every command ends: with a sentence for a person and a status, never with a traceback."""

import errno
import os
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TextIO

from liveframe.errors import LiveframeError

FAILED = 1
STOPPED = 75  # stopped on request, run again to go on (EX_TEMPFAIL)
_DEBUG = "UNDERSTUDY_DEBUG"
_FULL = "Make room, then run the same command again."
_REMEDIES = {
    errno.ENOSPC: ("there is no room left (No space left on device)", _FULL),
    errno.EDQUOT: ("your share of the disk is used up", _FULL),
    errno.EACCES: ("you may not use it", "Change its permissions, or choose another place."),
    errno.EPERM: ("you may not use it", "Change its permissions, or choose another place."),
    errno.EROFS: ("it lies on a disk that cannot be written", "Choose another place."),
    errno.ENAMETOOLONG: ("its name is too long", "Choose a shorter name."),
    errno.ENOENT: ("it does not exist", "Check the path."),
    errno.EISDIR: ("it is a folder", "Name a file in it."),
    errno.ENOTDIR: ("a part of its path is a file, not a folder", "Check the path."),
}

Main = Callable[[Sequence[str] | None], int]


def command(main: Main) -> Callable[..., int]:
    """Wrap a command's `main(arguments) -> status` so that whatever fails becomes one sentence and status 1.

    Ctrl-C gives `STOPPED`. What a terminal cannot show is escaped, not a reason to fail. Where UNDERSTUDY_DEBUG is
    set, errors that have no sentence of their own are raised as they are.
    """

    @wraps(main)
    def guarded(arguments: Sequence[str] | None = None) -> int:
        for stream in (sys.stdout, sys.stderr):
            _escape(stream)
        try:
            return main(arguments)
        except KeyboardInterrupt:
            print("Stopped.", file=sys.stderr)
            return STOPPED
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nothing more to say
            return FAILED
        except Exception as error:
            sentence = sentence_for(error)
            if not sentence and os.environ.get(_DEBUG):
                raise
            print(sentence or _unexpected(error), file=sys.stderr)
            return FAILED

    return guarded


def sentence_for(error: BaseException) -> str:
    """Say what is wrong and what to do; "" for an error that nobody wrote a sentence for."""
    if isinstance(error, LiveframeError):
        return _one_line(error)
    if isinstance(error, MemoryError):
        return "This needs more memory than there is. Close other programs, or choose something smaller."
    if isinstance(error, OSError):
        return _system_sentence(error)
    if isinstance(error, ValueError) and type(error) is ValueError:
        return _one_line(error)
    return ""


def _system_sentence(error: OSError) -> str:
    what, remedy = _REMEDIES.get(error.errno or 0, (error.strerror or str(error), "Check the path, then try again."))
    where = f"'{os.fsdecode(error.filename)}'" if isinstance(error.filename, (str, bytes)) else "A file"
    home = os.environ.get("UNDERSTUDY_HOME") or str(Path("~").expanduser() / ".understudy")
    if home in where:
        remedy += " (UNDERSTUDY_HOME names the folder of your keys.)"
    return f"{where} must be readable and writable, but {what}. {remedy}"


def _unexpected(error: BaseException) -> str:
    said = f"{type(error).__name__}: {_one_line(error)}".rstrip(": ")
    return f"This failed in a way that nobody foresaw ({said}). Set {_DEBUG}=1 to see where, and report it."


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _escape(stream: TextIO) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
