"""What a page's job runs: its uploads are vetted in a limited child first, then the job's own command takes over.

    python -m ui.parts.job_entry [--vet FILE]... [--environment NAME=VALUE]... [--to FILE] [--accept N]... -- COMMAND...

COMMAND may be several, with THEN between them: each runs when the one before it was done.
Run again after a stop, it does not vet again what was found good and has not changed.
"""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from understudy.media.guard import MediaError, vet_upload

THEN = "+then"


def job_command(
    *commands: Sequence[str],
    vet: Sequence[Path] = (),
    environment: dict[str, str] | None = None,
    to: Path | None = None,
    accept: Sequence[int] = (),
) -> tuple[str, ...]:
    """Return the command line of a job that runs commands behind this module, one after the other.

    Args:
        commands: what to run in the end.
        vet: uploads that they will read.
        environment: variables that they need.
        to: where their standard output goes; nowhere special where None.
        accept: exit statuses that count as done, besides 0.
    """
    options = [part for path in vet for part in ("--vet", str(path))]
    options += [part for name, value in (environment or {}).items() for part in ("--environment", f"{name}={value}")]
    options += ["--to", str(to)] if to else []
    options += [part for status in accept for part in ("--accept", str(status))]
    chained = [part for command in commands for part in (THEN, *command)][1:]
    return (sys.executable, "-m", "ui.parts.job_entry", *options, "--", *chained)


def vet_once(path: Path) -> None:
    """Vet an upload, unless it was found good before and is the same file.

    Raises:
        MediaError: it is refused.
    """
    mark = path.with_name(path.name + ".vetted")
    found = path.stat() if path.is_file() else None
    state = f"{found.st_size} {found.st_mtime_ns}" if found else ""
    if mark.is_file() and mark.read_text() == state:
        return
    vet_upload(path)
    mark.write_text(state)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="ui.parts.job_entry", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--vet", type=Path, action="append", default=[], metavar="FILE", help="an upload")
    parser.add_argument("--environment", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--to", type=Path, metavar="FILE", help="where the command's output goes")
    parser.add_argument("--accept", type=int, action="append", default=[], metavar="N", help="a status that is fine")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    try:
        for path in options.vet:
            vet_once(path)
    except MediaError as error:
        print(error, file=sys.stderr)
        return 1
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    """Run the commands and wait for them, however they are asked to stop: the signal reaches their whole group."""
    environment = os.environ | dict(part.split("=", 1) for part in options.environment)
    stops: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stops.append(number))
    with options.to.open("wb") if options.to else nullcontext() as output:
        for command in _split(options.command):
            status = subprocess.run(command, env=environment, stdout=output, check=False).returncode
            if stops or (status and status not in options.accept):
                # Ended by a signal, it says so as a shell does.
                return 128 - status if status < 0 else status or 128 + stops[0]
    return 0


def _split(parts: Sequence[str]) -> list[list[str]]:
    commands: list[list[str]] = [[]]
    for part in parts:
        if part == THEN:
            commands.append([])
        else:
            commands[-1].append(part)
    return commands


if __name__ == "__main__":
    sys.exit(main())
