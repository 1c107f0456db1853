"""Where everything lies that the app, the commands and trainings make: one folder, one default for all of them."""

from collections.abc import Mapping
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]


def work_folder(environment: Mapping[str, str]) -> Path:
    """Return the folder of everything that is made here: `UNDERSTUDY_WORK`, or work/ in the checkout."""
    return Path(environment.get("UNDERSTUDY_WORK") or _ROOT / "work").expanduser().resolve()
