"""What a browser remembers of a viewer's choices: kept small, and nothing of it believed that is no setting."""

import base64
import json

import pytest

from ui.session.remembered import LOOK, MOST_PRESETS, decoded, encoded


def cookie(stored: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(stored).encode()).decode().rstrip("=")


def test_settings_and_presets_come_back_as_they_went() -> None:
    stored = {"persona": "mei", "strength": 0.85, "is_mirrored": False, "camera_size": "1080p", "camera_rate": 60}
    presets = {"Dämmerung 1": {"persona": "kofi", "strength": 0.9}}
    assert decoded(encoded({**stored, "presets": presets})) == {**stored, "presets": presets}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("", id="none"),
        pytest.param("%%%", id="no base64"),
        pytest.param("ÄÖ", id="no ascii"),
        pytest.param(base64.urlsafe_b64encode(b"\xff\xfe").decode(), id="no text"),
        pytest.param(cookie([1, 2]), id="no object"),
        pytest.param(cookie({"presets": [1], "strength": "1"}), id="wrong kinds"),
    ],
)
def test_what_cannot_be_read_is_as_if_nothing_was_kept(value: str) -> None:
    assert {key: kept for key, kept in decoded(value).items() if kept} == {}


def test_values_out_of_range_and_unknown_settings_are_left_out() -> None:
    stored = {
        "strength": 7,
        "mask_size": 0.1,
        "persona": "../x",
        "faces": 3,
        "cover": "none",
        "colour_match": 1,
        "hm": 1,
    }
    assert decoded(cookie({**stored, "mask_feather": 0.5})) == {"mask_feather": 0.5, "presets": {}}


@pytest.mark.parametrize("key", ["is_off", "beside", "microphone"])
def test_what_shows_or_sends_the_viewer_themselves_is_never_remembered(key: str) -> None:
    assert decoded(cookie({key: True})) == {"presets": {}}


def test_presets_that_do_not_fit_a_cookie_are_left_out_newest_first() -> None:
    look = dict.fromkeys(LOOK, "x" * 60)
    value = encoded({"strength": 0.9, "presets": {f"look {number}": look for number in range(MOST_PRESETS)}})
    assert len(value) <= 3800
    kept = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    assert kept["strength"] == 0.9
    assert list(kept["presets"]) == [f"look {number}" for number in range(len(kept["presets"]))]
    assert 0 < len(kept["presets"]) < MOST_PRESETS
