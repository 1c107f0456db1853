"""List the personas that can play, one name a line, your own from the Studio last: `python -m understudy.personas`."""

import argparse
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from understudy.bundle.bundle import Bundle, BundleError, default_bundle
from understudy.bundle.manifest import FileEntry
from understudy.jobs.command_line import command
from understudy.jobs.work_folder import work_folder
from understudy.swap.own_personas import OwnPersona, further_references, own_personas


def describe(bundle: Bundle, own: Sequence[OwnPersona] = (), is_long: bool = False) -> list[str]:
    """A line per persona: its name; in the long form also its title, size or pictures, and still, tab-separated."""
    if not is_long:
        return [*(persona.name for persona in bundle.personas), *(persona.name for persona in own)]
    files = bundle.manifest.files.items()
    lines = [
        f"{each.name}\t{each.title}\t{_megabytes(files, each.name):.1f} MB\t{each.still}" for each in bundle.personas
    ]
    for each in own:
        more = len(further_references(each.folder))
        played = f"by its photo and {more} more" if more else "by its photo"
        lines.append(f"{each.name}\t{each.title}\t{played}\t{each.folder / 'still.png'}")
    return lines


def _megabytes(files: Iterable[tuple[str, FileEntry]], persona: str) -> float:
    return sum(entry.size_bytes for name, entry in files if name.startswith(f"{persona}/")) / 1e6


@command
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 2 when the bundle is refused."""
    parser = argparse.ArgumentParser(prog="understudy.personas", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="a bundle's directory or .zip")
    parser.add_argument("--long", action="store_true", help="also print title, what plays it, and still")
    options = parser.parse_args(arguments)
    try:
        bundle = Bundle.load(options.bundle)
    except BundleError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(describe(bundle, own_personas(work_folder(os.environ)), options.long)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
