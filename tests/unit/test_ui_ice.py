"""TURN for both ends: short-lived, renewed between starts, never under a running connection."""

from pathlib import Path

import pytest

from serving.turn import TTL_S
from ui.relay.ice import ice_for, renewed
from ui.session.settings import AppSettings

TURN = {"UNDERSTUDY_TURN_URLS": "turn:turn.example.org:3478", "UNDERSTUDY_TURN_SECRET": "a-secret-of-twenty-one"}


def test_without_turn_no_server_is_named() -> None:
    ice = ice_for(AppSettings(Path("somewhere")))
    assert ice.browser == ice.server == {"iceServers": []}


def test_both_ends_get_credentials_of_their_own_that_expire() -> None:
    ice = ice_for(AppSettings.from_environment(TURN), now_s=1_000_000)
    (browser,), (server,) = ice.browser["iceServers"], ice.server["iceServers"]
    assert browser["urls"] == server["urls"] == ["turn:turn.example.org:3478"]
    assert browser["username"] != server["username"]
    assert browser["username"].startswith(f"{1_000_000 + TTL_S}:")
    assert "iceTransportPolicy" not in ice.browser


def test_browser_may_be_bound_to_the_relay() -> None:
    settings = AppSettings.from_environment({**TURN, "UNDERSTUDY_ICE_POLICY": "relay"})
    assert ice_for(settings).browser["iceTransportPolicy"] == "relay"


def test_old_credentials_are_renewed_but_not_under_a_connection() -> None:
    settings = AppSettings.from_environment(TURN)
    first = ice_for(settings, now_s=1000)
    assert renewed(first, settings, is_in_use=False, now_s=1000 + TTL_S / 2 - 1) is first
    assert renewed(first, settings, is_in_use=True, now_s=9000) is first
    assert renewed(first, settings, is_in_use=False, now_s=9000).made_s == 9000


@pytest.mark.parametrize(
    ("environment", "sentence"),
    [
        ({"UNDERSTUDY_ICE_POLICY": "relay"}, "UNDERSTUDY_TURN_URLS"),
        ({**TURN, "UNDERSTUDY_ICE_POLICY": "some"}, "must be all, or relay"),
        ({**TURN, "UNDERSTUDY_TURN_SECRET": "short"}, "at least 16"),
        ({"UNDERSTUDY_MODEL": "understudy"}, "models:/NAME@ALIAS"),
    ],
)
def test_senseless_settings_stop_the_start(environment: dict[str, str], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        AppSettings.from_environment(environment)
