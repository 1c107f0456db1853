"""What marks everything that leaves: all of it by default; less only by a file, with a reason in writing.

`disclosure.toml` in the operator's folder (`trust_folder`), for one:

    label = false
    reason = "Feature film: disclosed in the credits, contract 2026-17."
    watermark_key_file = "watermark.key"

There is no switch in the app, on a command line or in the environment: turning a mark off is a decision on record.
"""

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from liveframe.errors import LiveframeError
from liveframe.gate import Paint
from understudy.consent.private_file import is_open_to_others
from understudy.draw.label import Label
from understudy.provenance.watermark import DEFAULT_KEY, Watermark, payload_of

_FILE = "disclosure.toml"
_MARKS = ("label", "watermark", "sign")
_LEAST_REASON = 12


class DisclosureError(LiveframeError, ValueError):
    """The operator's file cannot be followed; nothing is shown or exported until it can."""


@dataclass(frozen=True, slots=True)
class Disclosure:
    """Which marks are put on pictures and clips.

    Attributes:
        has_label: the visible "AI MODIFIED".
        has_watermark: the imperceptible one.
        is_signed: C2PA on exports.
        reason: why a mark is off; empty while all are on.
        watermark_key: whose watermark; left out of what is printed.
    """

    has_label: bool = True
    has_watermark: bool = True
    is_signed: bool = True
    reason: str = ""
    watermark_key: bytes = field(default=DEFAULT_KEY, repr=False)

    def overlays(self, bundle_digest: str) -> tuple[Paint, ...]:
        """Return what is painted on every picture: the watermark, then the label on top of it.

        Args:
            bundle_digest: `Bundle.digest`; its 16-bit stand-in is the watermark's payload.
        """
        payload = payload_of(bundle_digest)
        watermark: tuple[Paint, ...] = (Watermark(self.watermark_key, payload),) if self.has_watermark else ()
        return (*watermark, Label()) if self.has_label else watermark

    @property
    def sentence(self) -> str:
        """What an export carries, for whoever gets it; and why it lacks what it lacks."""
        marks = {
            "labelled “AI MODIFIED”": self.has_label,
            "watermarked": self.has_watermark,
            "signed (C2PA)": self.is_signed,
        }
        on, off = ([mark for mark, has in marks.items() if has is wanted] for wanted in (True, False))
        carried = " and ".join(filter(None, [", ".join(on[:-1]), *on[-1:]])) or "carries no mark"
        lacking = f" Not {' and not '.join(off)}: {self.reason}" if off else ""
        return f"{carried[0].upper()}{carried[1:]}.{lacking}"


def read_disclosure(folder: Path) -> Disclosure:
    """Read the operator's decision; all marks where there is none.

    Args:
        folder: `trust_folder(os.environ)`.

    Raises:
        DisclosureError: the file is broken, has unknown settings, or turns a mark off without a reason.
    """
    path = folder / _FILE
    if not path.exists():
        return Disclosure()
    try:
        settings = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DisclosureError(f"{path} must be TOML, but cannot be read: {error}. Correct or remove it.") from error
    return _parse(path, settings)


def _parse(path: Path, settings: dict[str, Any]) -> Disclosure:
    known = {*_MARKS, "reason", "watermark_key_file"}
    if unknown := set(settings) - known:
        names = ", ".join(sorted(unknown))
        raise DisclosureError(f"{path} may hold {', '.join(sorted(known))}, but holds {names}. Correct it.")
    marks = {name: settings.get(name, True) for name in _MARKS}
    if wrong := [name for name, value in marks.items() if not isinstance(value, bool)]:
        raise DisclosureError(f"{path}: {', '.join(wrong)} must be true or false. Correct it.")
    reason = str(settings.get("reason", "")).strip()
    if not all(marks.values()) and len(reason) < _LEAST_REASON:
        raise DisclosureError(
            f"{path} must give a 'reason' in writing where it turns a mark off. Add one, or remove the file."
        )
    key = _read_key(path.parent / str(settings["watermark_key_file"])) if "watermark_key_file" in settings else None
    return Disclosure(marks["label"], marks["watermark"], marks["sign"], reason, key or DEFAULT_KEY)


def _read_key(path: Path) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise DisclosureError(f"The watermark key {path} cannot be read: {error}. Correct the path.") from error
    if len(key) < 16:
        raise DisclosureError(f"The watermark key {path} must have at least 16 bytes. Make one: openssl rand -hex 32")
    if is_open_to_others(path):
        raise DisclosureError(f"{path} must be readable by its owner alone, but others may. Run: chmod 600 {path}")
    return key
