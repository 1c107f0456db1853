"""Look for the watermark in recordings: `python -m understudy.watermark detect CLIP`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from understudy.media.guard import MediaError
from understudy.provenance.watermark import DEFAULT_KEY
from understudy.provenance.watermark_detector import detect_file


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="understudy.watermark", description="Look for the watermark in recordings.")
    commands = parser.add_subparsers(dest="command", required=True)
    detect = commands.add_parser("detect", help="exit status 0: found; 1: not found; 2: could not be read")
    detect.add_argument("clip", type=Path, help="a recording or a picture")
    detect.add_argument("--key-file", type=Path, help="the operator's secret key; the public one where left out")
    detect.add_argument("--frames", type=int, default=60, help="how many to look at, spread over the clip (60)")
    detect.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args(arguments)
    try:
        key = options.key_file.read_bytes().strip() if options.key_file else DEFAULT_KEY
        found = detect_file(options.clip, key, options.frames)
    except (MediaError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(found.to_json() | {"clip": str(options.clip)}))
    else:
        print(f"{options.clip.name}: {found.describe()}")
    return 0 if found.is_found else 1


if __name__ == "__main__":
    sys.exit(main())
