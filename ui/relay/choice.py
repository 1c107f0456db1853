"""Which relay carries the frames, and why."""

from typing import NamedTuple

from ui.session.settings import AppSettings, RelayChoice

FAILED_STARTS = 2  # so many starts that never played, and WebRTC is given up


class Relay(NamedTuple):
    """The relay in use, and the reason, empty where it is the usual one."""

    choice: RelayChoice
    reason: str


def relay_for(
    settings: AppSettings, chosen: RelayChoice, failed_starts: int, in_use: RelayChoice | None = None
) -> Relay:
    """Decide between the relays.

    Args:
        settings: what whoever runs the app decided.
        chosen: what the viewer chose.
        failed_starts: WebRTC starts of this page, in a row, that never played.
        in_use: what carries the stream that runs now, which is not cut off by another choice; None: nothing runs.
    """
    relay = _next_relay(settings, chosen, failed_starts)
    if in_use is None or in_use is relay.choice:
        return relay
    return Relay(in_use, "Another connection was chosen: it takes effect when you stop the camera and start it again.")


def _next_relay(settings: AppSettings, chosen: RelayChoice, failed_starts: int) -> Relay:
    if chosen is not RelayChoice.AUTO:
        return Relay(chosen, "You chose it.")
    if settings.relay is not RelayChoice.AUTO:
        return Relay(settings.relay, "This server is set to it.")
    if not settings.has_udp:
        return Relay(RelayChoice.WEBSOCKET, "This server can be reached by TCP only, and WebRTC needs UDP.")
    if failed_starts >= FAILED_STARTS:
        return Relay(RelayChoice.WEBSOCKET, f"WebRTC did not connect in {failed_starts} starts.")
    return Relay(RelayChoice.WEBRTC, "")


def remedy_for(settings: AppSettings, chosen: RelayChoice) -> str:
    """Say what to do when WebRTC was started and no video arrives.

    Args:
        settings: what whoever runs the app decided.
        chosen: what the viewer chose.
    """
    trouble = "The camera's video does not arrive. One start in twenty may fail: try again."
    firewall = "A firewall that blocks UDP looks the same:"
    if chosen is not RelayChoice.AUTO:
        return f"{trouble} {firewall} choose WebSocket under “Camera”."
    if settings.relay is not RelayChoice.AUTO:
        return f"{trouble} {firewall} this server is set to WebRTC, so ask whoever runs it for the WebSocket relay."
    return f"{trouble} {firewall} after {FAILED_STARTS} failures in a row the page changes to WebSocket."
