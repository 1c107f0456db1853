"""What a persona's consent record says today, in a word and a sentence; and the way to take it back."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import streamlit as st

from understudy.bundle.bundle import PersonaInfo
from understudy.consent.check import USES, ConsentError, read_record
from understudy.consent.persona import Persona
from understudy.consent.trust_store import TrustError, TrustStore

_KINDS = {"synthetic": "nobody’s face", "self": "their own face", "person": "a person who agreed"}
_SOON_DAYS = 14


@dataclass(frozen=True, slots=True)
class ConsentStatus:
    """How a record stands.

    Attributes:
        label: in a few words.
        colour: of the badge.
        sentence: more.
        uses: what it covers now.
    """

    label: str
    colour: Literal["green", "orange", "red"]
    sentence: str
    uses: tuple[str, ...]


def consent_status(info: PersonaInfo, store: TrustStore) -> ConsentStatus:
    """Check a persona's record for every use."""
    try:
        persona = Persona.of(info)
        trust = store.read()
    except (ConsentError, TrustError) as error:
        return ConsentStatus("No consent", "red", str(error), ())
    granted: list[str] = []
    why = ""
    for use in persona.consent.consent.uses:
        try:
            persona.check(use, trust)
            granted.append(use)
        except (ConsentError, OSError) as error:
            why = str(error)
    if not granted:
        return ConsentStatus("No consent", "red", why, ())
    consent = persona.consent.consent
    days = (consent.not_after - datetime.now(UTC)).days
    sentence = (
        f"{_KINDS[consent.kind].capitalize()} ({consent.subject}), for {', '.join(granted)}, "
        f"until {consent.not_after:%d %B %Y}."
    )
    colour: Literal["green", "orange"] = "orange" if days < _SOON_DAYS or len(granted) < len(USES) else "green"
    return ConsentStatus(f"Consent to {consent.not_after:%m/%Y}", colour, sentence, tuple(granted))


def consent_badge(info: PersonaInfo, store: TrustStore) -> ConsentStatus:
    """Draw the status."""
    status = consent_status(info, store)
    icon = ":material/gpp_bad:" if status.colour == "red" else ":material/verified_user:"
    st.badge(status.label, icon=icon, color=status.colour, help=status.sentence)
    return status


def revoke_button(info: PersonaInfo, store: TrustStore) -> None:
    """Draw the button that takes a permission back at once and for good."""
    st.button(
        "Take the permission back",
        key=f"revoke-{info.name}",
        icon=":material/block:",
        help="The persona stops playing at once, here and in every export made from now on. This cannot be undone.",
        on_click=_revoke,
        args=(info, store),
    )


def _revoke(info: PersonaInfo, store: TrustStore) -> None:
    try:
        digest = read_record(info.consent).digest
        store.revoke(digest, datetime.now(UTC), "taken back on the page")
    except (ConsentError, TrustError) as error:
        st.toast(str(error), icon=":material/error:")
