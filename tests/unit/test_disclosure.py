"""All marks are on by default; turning one off takes a file and a reason."""

import os
from pathlib import Path

import numpy as np
import pytest

from liveframe.gate import Paint
from understudy.draw.label import Label
from understudy.provenance.disclosure import Disclosure, DisclosureError, read_disclosure
from understudy.provenance.watermark import Watermark, payload_of
from understudy.provenance.watermark_detector import detect

REASON = 'reason = "Disclosed in the credits, contract 2026-17."\n'


def settled(folder: Path, text: str) -> Disclosure:
    """Read a file with this text."""
    (folder / "disclosure.toml").write_text(text)
    return read_disclosure(folder)


def kinds(overlays: tuple[Paint, ...]) -> list[type]:
    """Name what paints."""
    return [type(paint) for paint in overlays]


def test_everything_is_on_without_a_file(tmp_path: Path) -> None:
    disclosure = read_disclosure(tmp_path / "nothing here")
    assert disclosure == Disclosure()
    assert disclosure.is_signed
    assert kinds(disclosure.overlays("ab" * 32)) == [Watermark, Label]


def test_the_payload_names_the_bundle() -> None:
    frame = np.full((480, 640, 3), 120, np.uint8)
    for paint in Disclosure().overlays("ab" * 32):
        frame = paint(frame)
    found = detect([frame])
    assert found.is_found and found.payload == payload_of("ab" * 32)


@pytest.mark.parametrize(
    ("text", "left"),
    [("label = false\n", [Watermark]), ("watermark = false\n", [Label]), ("label = false\nwatermark = false\n", [])],
)
def test_a_mark_is_turned_off_with_a_reason_and_not_without(tmp_path: Path, text: str, left: list[type]) -> None:
    with pytest.raises(DisclosureError, match="'reason' in writing"):
        settled(tmp_path, text)
    with pytest.raises(DisclosureError, match="'reason' in writing"):
        settled(tmp_path, text + 'reason = "  x  "\n')
    disclosure = settled(tmp_path, text + REASON)
    assert kinds(disclosure.overlays("ab" * 32)) == left
    assert disclosure.is_signed and disclosure.reason.endswith("2026-17.")


def test_signing_is_turned_off_the_same_way(tmp_path: Path) -> None:
    with pytest.raises(DisclosureError, match="reason"):
        settled(tmp_path, "sign = false\n")
    assert not settled(tmp_path, "sign = false\n" + REASON).is_signed


@pytest.mark.parametrize(
    "text", ["labels = false\n" + REASON, "label = 0\n" + REASON, "label = \n", "[label]\non = false\n"]
)
def test_a_file_that_cannot_be_followed_stops_everything(tmp_path: Path, text: str) -> None:
    with pytest.raises(DisclosureError, match=r"disclosure\.toml"):
        settled(tmp_path, text)


def test_an_own_watermark_key_is_read_for_its_owner_alone(tmp_path: Path) -> None:
    key = tmp_path / "watermark.key"
    named = 'watermark_key_file = "watermark.key"\n'
    with pytest.raises(DisclosureError, match="cannot be read"):
        settled(tmp_path, named)
    key.write_bytes(b"short\n")
    with pytest.raises(DisclosureError, match="at least 16 bytes"):
        settled(tmp_path, named)
    key.write_bytes(b"0123456789abcdef0123\n")
    key.chmod(0o600)
    disclosure = settled(tmp_path, named)
    assert disclosure.watermark_key == b"0123456789abcdef0123"
    assert "0123456789abcdef" not in repr(disclosure)
    if os.name == "posix":
        key.chmod(0o640)
        with pytest.raises(DisclosureError, match="chmod 600"):
            settled(tmp_path, named)


def test_sentence_names_the_marks_that_are_on_and_why_others_are_off(tmp_path: Path) -> None:
    assert Disclosure().sentence == "Labelled “AI MODIFIED”, watermarked and signed (C2PA)."
    unsigned = settled(tmp_path, "sign = false\n" + REASON).sentence
    assert unsigned.startswith("Labelled “AI MODIFIED” and watermarked. Not signed (C2PA): Disclosed in the credits")
    bare = Disclosure(has_label=False, has_watermark=False, is_signed=False, reason="A test.").sentence
    assert bare.startswith("Carries no mark. Not labelled") and bare.endswith("A test.")
