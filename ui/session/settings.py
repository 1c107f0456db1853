"""What whoever runs the app decides, read from the environment once."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from pathlib import Path

from serving.turn import TurnSettings
from serving.vertex.client import RemoteSettings
from training.model.tracking_uri import tracking_uri, work_folder
from understudy.bundle.bundle import default_bundle
from understudy.consent.trust_store import trust_folder

_ROOT = Path(__file__).resolve().parents[2]
_MODEL = re.compile(r"models:/[^/@]+@[^/@]+")


class RelayChoice(StrEnum):
    """How frames travel between the browser and the app."""

    AUTO = "auto"
    WEBRTC = "webrtc"
    WEBSOCKET = "websocket"


@dataclass(frozen=True, slots=True)
class AppSettings:
    """What one server of the app runs with.

    Attributes:
        bundle: the personas to offer, UNDERSTUDY_BUNDLE (default: the one that ships).
        max_viewers: streams at the same time, UNDERSTUDY_MAX_VIEWERS (default 4).
        relay: UNDERSTUDY_RELAY, auto, webrtc or websocket (default auto).
        has_udp: whether browsers can reach the server by UDP; not on Cloud Run or App Engine.
        work: where Studio and Convert keep uploads, personas and jobs, UNDERSTUDY_WORK (default: work/ beside app.py).
        tracking: MLflow's address, MLFLOW_TRACKING_URI (default: sqlite in the work folder).
        trust: the operator's keys and revocations, UNDERSTUDY_HOME (default: .understudy in the home directory).
        model: a registered model to follow, UNDERSTUDY_MODEL, for one models:/understudy@champion (default: none).
        remote: a remote model to relay to, UNDERSTUDY_ENDPOINT and the variables beside it (default: none).
        turn: a TURN server, UNDERSTUDY_TURN_URLS and UNDERSTUDY_TURN_SECRET (default: none).
        is_relayed_only: whether browsers may connect by TURN alone, UNDERSTUDY_ICE_POLICY=relay (default all).
    """

    bundle: Path
    max_viewers: int = 4
    relay: RelayChoice = RelayChoice.AUTO
    has_udp: bool = True
    work: Path = _ROOT / "work"
    tracking: str = ""
    trust: Path = Path(".understudy")
    model: str = ""
    remote: RemoteSettings = field(default_factory=RemoteSettings)
    turn: TurnSettings = field(default_factory=TurnSettings)
    is_relayed_only: bool = False

    @property
    def tracking_uri(self) -> str:
        """MLflow's address, the default filled in."""
        return tracking_uri({"MLFLOW_TRACKING_URI": self.tracking, "UNDERSTUDY_WORK": str(self.work)})

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "AppSettings":
        """Read the settings.

        Raises:
            ValueError: a variable has a value that cannot be used.
        """
        relay = environment.get("UNDERSTUDY_RELAY", RelayChoice.AUTO)
        if relay not in set(RelayChoice):
            raise ValueError(f"UNDERSTUDY_RELAY must be one of {', '.join(RelayChoice)}, but is {relay!r}. Correct it.")
        viewers = environment.get("UNDERSTUDY_MAX_VIEWERS", "4")
        if not viewers.isdecimal() or int(viewers) < 1:
            raise ValueError(f"UNDERSTUDY_MAX_VIEWERS must be a whole number above 0, but is {viewers!r}. Correct it.")
        model = environment.get("UNDERSTUDY_MODEL", "")
        if model and not _MODEL.fullmatch(model):
            raise ValueError(f"UNDERSTUDY_MODEL must be models:/NAME@ALIAS, but is {model!r:.120}. Correct it.")
        turn = TurnSettings.from_environment(environment)
        policy = environment.get("UNDERSTUDY_ICE_POLICY", "") or "all"
        if policy not in ("all", "relay") or (policy == "relay" and not turn.urls):
            raise ValueError(
                "UNDERSTUDY_ICE_POLICY must be all, or relay where UNDERSTUDY_TURN_URLS names a TURN server, "
                f"but is {policy!r:.40}. Correct it."
            )
        return cls(
            bundle=Path(environment.get("UNDERSTUDY_BUNDLE") or default_bundle()),
            max_viewers=int(viewers),
            relay=RelayChoice(relay),
            has_udp=not ({"K_SERVICE", "GAE_SERVICE"} & environment.keys()),
            work=work_folder(environment),
            tracking=environment.get("MLFLOW_TRACKING_URI", ""),
            trust=trust_folder(environment),
            model=model,
            remote=RemoteSettings.from_environment(environment),
            turn=turn,
            is_relayed_only=policy == "relay",
        )


@cache
def app_settings() -> AppSettings:
    """The settings of this process. `app.py` asks first, so that a wrong one stops the start."""
    return AppSettings.from_environment(os.environ)
