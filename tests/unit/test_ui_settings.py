from pathlib import Path

import pytest

from ui.relay.choice import FAILED_STARTS, relay_for, remedy_for
from ui.session.settings import AppSettings, RelayChoice
from understudy.bundle.bundle import default_bundle

BUNDLE = Path("somewhere")


def test_empty_environment_gives_the_shipped_bundle_and_four_seats() -> None:
    settings = AppSettings.from_environment({})
    assert (settings.bundle, settings.max_viewers, settings.relay) == (default_bundle(), 4, RelayChoice.AUTO)
    assert settings.has_udp


def test_environment_sets_bundle_seats_and_relay() -> None:
    environment = {"UNDERSTUDY_BUNDLE": "b", "UNDERSTUDY_MAX_VIEWERS": "9", "UNDERSTUDY_RELAY": "websocket"}
    settings = AppSettings.from_environment(environment)
    assert (settings.bundle, settings.max_viewers, settings.relay) == (Path("b"), 9, RelayChoice.WEBSOCKET)


@pytest.mark.parametrize("value", ["0", "-1", "many", "1.5"])
def test_senseless_number_of_viewers_is_refused_with_its_name(value: str) -> None:
    with pytest.raises(ValueError, match="UNDERSTUDY_MAX_VIEWERS must be"):
        AppSettings.from_environment({"UNDERSTUDY_MAX_VIEWERS": value})


def test_unknown_relay_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="auto, webrtc, websocket"):
        AppSettings.from_environment({"UNDERSTUDY_RELAY": "pigeon"})


def test_webrtc_is_the_usual_relay() -> None:
    assert relay_for(AppSettings(BUNDLE), RelayChoice.AUTO, failed_starts=0) == (RelayChoice.WEBRTC, "")


@pytest.mark.parametrize("service", ["K_SERVICE", "GAE_SERVICE"])
def test_hosts_without_udp_get_the_websocket_and_the_reason(service: str) -> None:
    settings = AppSettings.from_environment({service: "app"})
    choice, reason = relay_for(settings, RelayChoice.AUTO, failed_starts=0)
    assert choice is RelayChoice.WEBSOCKET
    assert "UDP" in reason


def test_webrtc_that_never_plays_gives_way_to_the_websocket() -> None:
    settings = AppSettings(BUNDLE)
    assert relay_for(settings, RelayChoice.AUTO, FAILED_STARTS - 1).choice is RelayChoice.WEBRTC
    assert relay_for(settings, RelayChoice.AUTO, FAILED_STARTS).choice is RelayChoice.WEBSOCKET


def test_viewer_overrules_the_server_and_the_failures() -> None:
    settings = AppSettings(BUNDLE, relay=RelayChoice.WEBSOCKET, has_udp=False)
    assert relay_for(settings, RelayChoice.WEBRTC, failed_starts=9).choice is RelayChoice.WEBRTC


@pytest.mark.parametrize(
    ("set_to", "chosen", "remedy"),
    [
        (RelayChoice.AUTO, RelayChoice.AUTO, "in a row the page changes to WebSocket"),
        (RelayChoice.AUTO, RelayChoice.WEBRTC, "choose WebSocket under"),
        (RelayChoice.WEBRTC, RelayChoice.AUTO, "ask whoever runs it"),
    ],
)
def test_what_to_do_about_a_dead_start_fits_who_chose_the_relay(
    set_to: RelayChoice, chosen: RelayChoice, remedy: str
) -> None:
    sentence = remedy_for(AppSettings(BUNDLE, relay=set_to), chosen)
    assert "does not arrive" in sentence
    assert remedy in sentence
