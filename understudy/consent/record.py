"""A consent record: what is agreed to, spelled in the one way that is signed.

Canonical JSON (sorted keys, no spaces, UTF-8) under an Ed25519 signature (RFC 8032) with a domain prefix, so that
a signature made here means nothing elsewhere.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from liveframe.errors import LiveframeError
from understudy.consent.trust_store import KINDS, key_id, public_bytes

USES = ("train", "live", "record")
DOMAIN = b"understudy-consent-v1\0"


class ConsentFault(StrEnum):
    """Why a record does not count; programs branch on it, people read the sentence."""

    MISSING = "missing"
    MALFORMED = "malformed"
    UNKNOWN_KEY = "unknown_key"
    EDITED = "edited"
    REVOKED = "revoked"
    NOT_YET = "not_yet"
    EXPIRED = "expired"
    USE_NOT_GRANTED = "use_not_granted"
    OTHER_PERSONA = "other_persona"
    FACE_NOT_LISTED = "face_not_listed"
    OTHER_PERSON = "other_person"


class ConsentError(LiveframeError):
    """A use is refused.

    Attributes:
        code: why.
    """

    def __init__(self, code: ConsentFault, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


@dataclass(frozen=True, slots=True)
class Consent:
    """What is agreed to, before anybody signs it.

    Attributes:
        persona: the persona's name.
        kind: "synthetic" (nobody's face), "self" (the operator's) or "person" (somebody who agreed).
        subject: the person's name, or what the synthetic face is.
        statement: what they agree to, in their words.
        uses: of "train", "live", "record".
        not_before: aware, whole seconds.
        not_after: aware, whole seconds.
        reference: SHA-256 (hex) of every file that shows the face, sorted; the persona's still among them.
        recipe: how a synthetic face was made; empty for people.
        evidence: for "self" what the live check hashed (method, phrase, SHA-256 of the take, time);
            for "person" where the signed form is kept, and its SHA-256.
    """

    persona: str
    kind: str
    subject: str
    statement: str
    uses: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    reference: tuple[str, ...]
    recipe: Mapping[str, Any]
    evidence: Mapping[str, Any]

    def __post_init__(self) -> None:
        """Refuse a consent that could never count."""
        _require(self.kind in KINDS, f"kind must be of {', '.join(KINDS)}, but got '{self.kind}'")
        _require(bool(self.persona and self.subject and self.statement), "persona, subject and statement need text")
        _require(bool(self.uses) and set(self.uses) <= set(USES), f"uses must be of {', '.join(USES)}")
        _require(len(set(self.uses)) == len(self.uses), "uses must not repeat")
        for moment in (self.not_before, self.not_after):
            _require(moment.tzinfo is not None and moment.microsecond == 0, "times need an offset and whole seconds")
        _require(self.not_before < self.not_after, "not_before must be earlier than not_after")
        _require(all(_is_sha256(h) for h in self.reference), "every reference must be a SHA-256 in lower-case hex")
        _require(bool(self.reference), "at least one reference file must be listed")
        _require(list(self.reference) == sorted(set(self.reference)), "references must be sorted, each once")
        _require(self.kind != "synthetic" or bool(self.recipe), "a synthetic persona must carry its recipe")
        _require(self.kind == "synthetic" or bool(self.evidence), "a person's record must carry evidence")


@dataclass(frozen=True, slots=True)
class ConsentRecord:
    """A signed consent.

    Attributes:
        consent: what was signed.
        public_key: 32 raw bytes, Ed25519: the signer's.
        signature: 64 bytes over the domain prefix and the canonical body.
    """

    consent: Consent
    public_key: bytes
    signature: bytes

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical body: what MLflow tags, bundles and C2PA manifests name, and revocation."""
        return hashlib.sha256(canonical(self.body())).hexdigest()

    @property
    def key_id(self) -> str:
        """The signer's key id."""
        return key_id(self.public_key)

    def body(self) -> dict[str, Any]:
        """Return the signed part as JSON values."""
        consent = self.consent
        return {
            "schema": 1,
            "persona": consent.persona,
            "kind": consent.kind,
            "subject": consent.subject,
            "statement": consent.statement,
            "uses": list(consent.uses),
            "not_before": consent.not_before.isoformat(),
            "not_after": consent.not_after.isoformat(),
            "reference": list(consent.reference),
            "recipe": dict(consent.recipe),
            "evidence": dict(consent.evidence),
            "key_id": self.key_id,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the whole record as JSON values, as `consent.json` holds it."""
        signature = {
            "algorithm": "Ed25519",
            "public_key": base64.b64encode(self.public_key).decode(),
            "value": base64.b64encode(self.signature).decode(),
        }
        return {"consent": self.body(), "signature": signature}

    @classmethod
    def from_json(cls, content: object) -> "ConsentRecord":
        """Parse a record; the signature is verified by `check`, not here.

        Raises:
            ConsentError: MALFORMED.
        """
        try:
            whole = cast(dict[str, Any], content)
            body, signature = whole["consent"], whole["signature"]
            record = cls(_parse_body(body), _decode(signature["public_key"], 32), _decode(signature["value"], 64))
            is_same = canonical(record.to_json()) == canonical(whole)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise malformed(repr(error)) from error
        if not is_same:  # unknown fields, another order, another spelling of a time: nothing is read past
            raise malformed("it has fields or spellings that this version does not write")
        return record


def canonical(content: Mapping[str, Any]) -> bytes:
    """Spell JSON values in the one way that is signed: sorted keys, no spaces, UTF-8, no NaN."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


def sign(consent: Consent, key: Ed25519PrivateKey) -> ConsentRecord:
    """Sign a consent with the signer's key (`TrustStore.signing_key`)."""
    unsigned = ConsentRecord(consent, public_bytes(key), b"")
    return ConsentRecord(consent, unsigned.public_key, key.sign(DOMAIN + canonical(unsigned.body())))


def _parse_body(body: Mapping[str, Any]) -> Consent:
    """Turn JSON values into a Consent; odd ones fail in its own checks or do not survive the way back."""
    if body["schema"] != 1:
        raise ValueError(f"schema {body['schema']} is not 1; update Understudy")
    texts = {name: body[name] for name in ("persona", "kind", "subject", "statement")}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError(f"{', '.join(texts)} must be text")
    return Consent(
        **texts,
        uses=tuple(body["uses"]),
        not_before=datetime.fromisoformat(body["not_before"]),
        not_after=datetime.fromisoformat(body["not_after"]),
        reference=tuple(body["reference"]),
        recipe=dict(body["recipe"]),
        evidence=dict(body["evidence"]),
    )


def _decode(text: str, size: int) -> bytes:
    raw = base64.b64decode(text, validate=True)
    if len(raw) != size:
        raise ValueError(f"must have {size} bytes, but has {len(raw)}")
    return raw


def _is_sha256(text: object) -> bool:
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def _require(holds: bool, rule: str) -> None:
    if not holds:
        raise malformed(rule)


def malformed(why: str) -> ConsentError:
    """Say what is wrong with a record's form."""
    return ConsentError(ConsentFault.MALFORMED, f"The consent record is malformed: {why}. Make it anew.")
