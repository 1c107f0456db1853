"""What the browser's recorder sends is believed only where it makes sense."""

import base64

import pytest

from ui.studio.recorder import MOST_TAKE_BYTES, MOVES, take_from


def sent(mime: str, content: bytes) -> dict[str, str]:
    return {"mime": mime, "data": base64.b64encode(content).decode()}


def test_a_take_becomes_an_upload_with_the_extension_of_its_kind() -> None:
    take = take_from(sent("video/webm;codecs=vp8", b"\x1aE\xdf\xa3 and more"))
    assert take is not None
    assert (take.name, take.getvalue()) == ("take.webm", b"\x1aE\xdf\xa3 and more")


@pytest.mark.parametrize(
    "nonsense",
    [
        None,
        "text",
        {},
        sent("text/html", b"<html>"),
        {"mime": "video/webm", "data": "not base64!"},
        {"mime": "video/mp4", "data": "A" * (MOST_TAKE_BYTES * 4 // 3 + 8)},
    ],
)
def test_nonsense_is_no_take(nonsense: object) -> None:
    assert take_from(nonsense) is None


def test_the_guidance_asks_for_both_sides_a_smile_and_a_line_in_under_half_a_minute() -> None:
    asked = " ".join(move.text for move in MOVES)
    assert all(word in asked for word in ("left", "right", "Smile", "Say"))
    assert sum(move.seconds for move in MOVES) < 30
