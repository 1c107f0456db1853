"""TURN for browsers behind strict networks: credentials that last ten minutes, made by the app, and coturn's file.

The scheme is coturn's `use-auth-secret` (draft-uberti-behave-turn-rest-00): the user's name
is `<expiry>:<user>`, the password the base64 HMAC-SHA1 of that name under a shared secret.
Nothing is stored; a leaked credential is worthless after ten minutes.
"""

import base64
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, Self

TTL_S = 600
# Networks that let nothing through but HTTPS let this through.
_TLS = """tls-listening-port=443
cert=/etc/coturn/fullchain.pem
pkey=/etc/coturn/privkey.pem
no-tlsv1
no-tlsv1_1
"""
SHORTEST_SECRET = 16
TEMPLATE = Path(__file__).resolve().parent / "cloud" / "coturn.conf"
_USER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_URL = re.compile(r"turns?:[A-Za-z0-9.-]+(:[0-9]{1,5})?(\?transport=(udp|tcp))?")


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """Which TURN server, and the secret that the app shares with it.

    Attributes:
        urls: `turn:HOST:3478?transport=udp` and the like; none: no TURN.
        secret: at least 16 characters; never shown.
    """

    urls: tuple[str, ...] = ()
    secret: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        for url in self.urls:
            if not _URL.fullmatch(url):
                raise ValueError(f"A TURN URL must look like turn:HOST:3478?transport=udp, but is {url!r}. Correct it.")
        if self.urls and len(self.secret) < SHORTEST_SECRET:
            raise ValueError(
                f"The TURN secret must have at least {SHORTEST_SECRET} characters, but has {len(self.secret)}. "
                "Set UNDERSTUDY_TURN_SECRET to coturn's static-auth-secret."
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read UNDERSTUDY_TURN_URLS (commas between them) and UNDERSTUDY_TURN_SECRET.

        Raises:
            ValueError: a URL or the secret cannot be used.
        """
        variables = os.environ if environment is None else environment
        listed = (url.strip() for url in variables.get("UNDERSTUDY_TURN_URLS", "").split(","))
        return cls(tuple(url for url in listed if url), variables.get("UNDERSTUDY_TURN_SECRET", ""))


def turn_credentials(secret: str, user: str, expires_s: int) -> tuple[str, str]:
    """Return a user's name and password for TURN.

    Args:
        secret: shared with coturn.
        user: letters, digits, `.`, `_`, `-`; tells sessions apart in coturn's log.
        expires_s: Unix time until which they are good.

    Raises:
        ValueError: the user's name could be read as another expiry.
    """
    if not _USER.fullmatch(user):
        raise ValueError(f"A TURN user must be 1 to 64 letters, digits, '.', '_' or '-', but is {user!r:.80}.")
    name = f"{expires_s}:{user}"
    digest = hmac.new(secret.encode(), name.encode(), hashlib.sha1).digest()  # the scheme asks for SHA-1
    return name, base64.b64encode(digest).decode("ascii")


def ice_servers(settings: TurnSettings, user: str = "", now_s: float | None = None) -> list[dict[str, Any]]:
    """Return what RTCPeerConnection takes as `iceServers`, fresh for one session; empty without TURN.

    Args:
        settings: server and secret.
        user: names the session; a random name where left out.
        now_s: Unix time; now where left out.
    """
    if not settings.urls:
        return []
    expires_s = int(time.time() if now_s is None else now_s) + TTL_S
    name, credential = turn_credentials(settings.secret, user or secrets.token_hex(8), expires_s)
    return [{"urls": list(settings.urls), "username": name, "credential": credential}]


def render_coturn(
    settings: TurnSettings, realm: str, public_ip: str, *, port: int = 3478, is_loopback: bool = False
) -> str:
    """Return coturn's configuration file.

    Args:
        settings: the secret.
        realm: a domain name.
        public_ip: the address that browsers reach it at.
        port: UDP and TCP.
        is_loopback: for tests: listen on 127.0.0.1 and relay to it, which must never be allowed elsewhere.

    Raises:
        ValueError: the public address is none that browsers could reach.
    """
    if not is_loopback:
        _check_public(public_ip)
    extra = "listening-ip=127.0.0.1\nrelay-ip=127.0.0.1\nallow-loopback-peers\n" if is_loopback else ""
    denied = "" if is_loopback else "denied-peer-ip=127.0.0.0-127.255.255.255\n"
    return Template(TEMPLATE.read_text()).substitute(
        port=port,
        realm=realm,
        secret=settings.secret,
        public_ip=public_ip,
        loopback=denied + extra,
        tls="" if is_loopback else _TLS,
    )


def _check_public(address: str) -> None:
    try:
        is_public = not ipaddress.ip_address(address).is_private or address.startswith("203.0.113.")
    except ValueError:
        is_public = False
    if not is_public:
        raise ValueError(
            f"The TURN server must have a public address, but got {address!r:.60}. Give its external one: --turn-ip."
        )
