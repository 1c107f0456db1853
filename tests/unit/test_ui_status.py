from dataclasses import replace

import pytest

from liveframe.gate import ShownState
from liveframe.stats import Phase, PipelineStats
from ui.live.status import badge_for

STATS = PipelineStats(
    state=ShownState.SWAPPED,
    phase=Phase.READY,
    frames=30,
    fps_in=30.0,
    fps_out=29.0,
    swapped=29,
    held=1,
    covered=0,
    off=0,
    incomplete=0,
    suspected=0,
    drops=0,
    late=0,
    errors={},
    breaker_opens=0,
    abandoned=0,
    model_swaps=0,
    stages={},
    note="The face is out of the picture.",
    last_error="the file is missing",
)


@pytest.mark.parametrize(
    ("state", "label", "colour"),
    [
        (ShownState.SWAPPED, "Swapped", "green"),
        (ShownState.HELD, "Swapped, holding", "orange"),
        (ShownState.COVERED, "Covered", "orange"),
        (ShownState.OFF, "Not swapped", "red"),
    ],
)
def test_badge_names_what_the_viewer_sees(state: ShownState, label: str, colour: str) -> None:
    badge = badge_for(replace(STATS, state=state), is_streaming=True)
    assert (badge.label, badge.colour) == (label, colour)


def test_covered_says_why() -> None:
    badge = badge_for(replace(STATS, state=ShownState.COVERED), is_streaming=True)
    assert badge.sentence == "The face is out of the picture."


def test_pass_through_says_whose_face_is_shown() -> None:
    assert "Your own face" in badge_for(replace(STATS, state=ShownState.OFF), is_streaming=True).sentence


def test_camera_that_stopped_is_off_whatever_was_shown_last() -> None:
    assert badge_for(STATS, is_streaming=False).label == "Camera off"


def test_model_that_failed_is_named_before_and_during_a_stream() -> None:
    failed = replace(STATS, phase=Phase.FAILED)
    for is_streaming in (True, False):
        assert "the file is missing" in badge_for(failed, is_streaming).sentence


def test_loading_model_asks_for_patience() -> None:
    assert badge_for(replace(STATS, phase=Phase.LOADING), is_streaming=False).label == "Getting ready"


def test_a_mix_is_not_called_swapped() -> None:
    badge = badge_for(replace(STATS, is_mixed=True), is_streaming=True)
    assert badge.label == "Mixed with your own face" and badge.colour == "orange"
