"""How the two ends of a WebRTC connection find each other: TURN where the operator has one, the same for both."""

import time
from dataclasses import dataclass
from typing import Any

from serving.turn import TTL_S, ice_servers
from ui.session.settings import AppSettings

_RENEW_S = TTL_S / 2  # so that a start finds credentials that are good for a while


@dataclass(frozen=True, slots=True)
class Ice:
    """One page's configuration.

    Attributes:
        browser: RTCConfiguration of the browser.
        server: RTCConfiguration of this process.
        made_s: when, Unix seconds.
    """

    browser: dict[str, Any]
    server: dict[str, Any]
    made_s: float

    def is_fresh(self, now_s: float | None = None) -> bool:
        """Whether its credentials are good for some minutes."""
        return (time.time() if now_s is None else now_s) - self.made_s < _RENEW_S


def ice_for(settings: AppSettings, now_s: float | None = None) -> Ice:
    """Make short-lived credentials, one pair for each end.

    Args:
        settings: the TURN server, and whether the browser may connect by it alone.
        now_s: Unix seconds; now when left out.
    """
    moment_s = time.time() if now_s is None else now_s
    browser: dict[str, Any] = {"iceServers": ice_servers(settings.turn, now_s=moment_s)}
    if settings.is_relayed_only:
        browser["iceTransportPolicy"] = "relay"
    return Ice(browser, {"iceServers": ice_servers(settings.turn, now_s=moment_s)}, moment_s)


def renewed(ice: Ice | None, settings: AppSettings, is_in_use: bool, now_s: float | None = None) -> Ice:
    """Keep a configuration while a connection uses it or it is fresh; make another one otherwise."""
    if ice is not None and (is_in_use or ice.is_fresh(now_s)):
        return ice
    return ice_for(settings, now_s)
