"""List the personas that a bundle ships, one name a line: `python -m understudy.personas`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from understudy.bundle.bundle import Bundle, BundleError, default_bundle


def describe(bundle: Bundle, is_long: bool = False) -> list[str]:
    """A line per persona: its name; in the long form also its title, still and decoder size, tab-separated."""
    if not is_long:
        return [persona.name for persona in bundle.personas]
    files = bundle.manifest.files
    sizes = [files[entry.decoder].size_bytes / 1e6 for entry in bundle.manifest.personas]
    return [
        f"{persona.name}\t{persona.title}\t{size:.1f} MB\t{persona.still}"
        for persona, size in zip(bundle.personas, sizes, strict=True)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 2 when the bundle is refused."""
    parser = argparse.ArgumentParser(prog="understudy.personas", description=__doc__)
    parser.add_argument("--bundle", type=Path, default=default_bundle(), help="a bundle's directory or .zip")
    parser.add_argument("--long", action="store_true", help="also print title, decoder size and still")
    options = parser.parse_args(arguments)
    try:
        lines = describe(Bundle.load(options.bundle), options.long)
    except BundleError as error:
        print(error, file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
