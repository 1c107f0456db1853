"""Write environment.yml from uv.lock, or check that the two agree.

    python .ci/export_environment.py           # write
    python .ci/export_environment.py --check   # exit 1 where environment.yml is not what the lock says

uv.lock is the one source of versions; environment.yml is for those who live in conda.
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / "environment.yml"
PYTHON = "3.11"
REWRITE = "python .ci/export_environment.py"
EXPORT = ["export", "--frozen", "--quiet", "--no-hashes", "--no-header", "--no-annotate", "--no-emit-project"]
EVERYTHING = [*EXPORT, "--all-groups"]


def locked_requirements() -> list[str]:
    """Read every locked package, one requirement line each, sorted as uv sorts them.

    Raises:
        RuntimeError: uv is missing or cannot read the lock.
    """
    uv = os.environ.get("UV", "uv")
    try:
        export = subprocess.run([uv, *EVERYTHING], cwd=ROOT, capture_output=True, text=True, check=True)
    except FileNotFoundError as error:
        raise RuntimeError("uv must be installed, but it was not found. Run `pip install uv`.") from error
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"uv.lock must be readable, but uv said: {error.stderr.strip()} Run `uv lock`.") from error
    return [line for line in export.stdout.splitlines() if line.strip()]


def environment(requirements: list[str]) -> str:
    """Return environment.yml's text for these requirement lines."""
    head = [
        f"# Generated from uv.lock by `{REWRITE}`; do not edit. CI fails when the two drift apart.",
        "name: understudy",
        "channels:",
        "  - conda-forge",
        "dependencies:",
        f"  - python={PYTHON}",
        "  - pip",
        "  - pip:",
    ]
    # Markers hold quotes and colons: a YAML single-quoted string takes both, with quotes doubled.
    pins = ["      - '" + line.replace("'", "''") + "'" for line in requirements]
    return "\n".join(head + pins) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the command line; give its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 on drift")
    arguments = parser.parse_args(argv)
    wanted = environment(locked_requirements())
    if not arguments.check:
        ENVIRONMENT.write_text(wanted)
        return 0
    if ENVIRONMENT.is_file() and ENVIRONMENT.read_text() == wanted:
        return 0
    print(f"environment.yml must be what uv.lock says, but it differs. Run `{REWRITE}`.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
