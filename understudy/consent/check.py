"""The one check that every use of a persona's face goes through, and the command that makes and revokes records.

A record (`understudy.consent.record`) lists the SHA-256 of every reference file. It stops accidents, stale
permissions and scope creep; it does not prove who signed, and whoever changes this code can remove the check:
see docs/trust.md. Make, check and revoke records with `python -m understudy.consent`.
"""

import argparse
import base64
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from understudy.consent.record import (
    DOMAIN,
    USES,
    Consent,
    ConsentError,
    ConsentFault,
    ConsentRecord,
    canonical,
    malformed,
    sign,
)
from understudy.consent.trust_store import KINDS, Trust, TrustError, TrustStore, public_bytes, trust_folder
from understudy.jobs.atomic_file import write_json

__all__ = [
    "USES",
    "Consent",
    "ConsentError",
    "ConsentFault",
    "ConsentRecord",
    "check",
    "check_same_person",
    "extended",
    "hash_files",
    "read_record",
    "sign",
    "synthetic_record",
    "write_record",
]

CLOCK_SKEW = timedelta(minutes=5)
_MAX_RECORD_BYTES = 1 << 20
# In a record's evidence: digests of those that it extends.
_EXTENDS = "extends"
_SYNTHETIC_YEARS = 20
Face = TypeVar("Face")
Vector = TypeVar("Vector")


def hash_files(paths: Iterable[Path]) -> tuple[str, ...]:
    """Return the SHA-256 (hex) of files: sorted, each once."""
    digests: set[str] = set()
    for path in paths:
        with path.open("rb") as file:
            digests.add(hashlib.file_digest(file, "sha256").hexdigest())
    return tuple(sorted(digests))


def synthetic_record(
    name: str,
    recipe: Mapping[str, Any],
    reference_files: Iterable[Path],
    key: Ed25519PrivateKey,
    now: datetime | None = None,
) -> dict[str, Any]:
    """Make the record of a face that is nobody's.

    Args:
        name: the persona's name.
        recipe: how the face was made (sources, count, method, seed), JSON values.
        reference_files: the persona's still, and the machine-made faces that it was averaged from.
        key: the maker's, from `TrustStore.signing_key`.
        now: when it is made; the record counts from then on, for 20 years.

    Returns:
        JSON values, to be written as the persona's `consent.json`.

    Raises:
        ConsentError: MALFORMED: no reference file, or no recipe.
    """
    start = (now or datetime.now(UTC)).replace(microsecond=0)
    consent = Consent(
        persona=name,
        kind="synthetic",
        subject="nobody: a machine-made face",
        statement="This face was made by a machine and belongs to nobody; the recipe tells how.",
        uses=USES,
        not_before=start,
        not_after=start + timedelta(days=365 * _SYNTHETIC_YEARS),
        reference=hash_files(reference_files),
        recipe=recipe,
        evidence={},
    )
    return sign(consent, key).to_json()


def extended(record: ConsentRecord, files: Iterable[Path], key: Ed25519PrivateKey) -> ConsentRecord:
    """Return a record that lists more files of the same face, signed anew. Whoever revokes the first revokes both.

    Args:
        record: checked (`check`).
        files: that show the same person's face (`understudy.consent.same_person`).
        key: the operator's, from `TrustStore.signing_key`.
    """
    consent = record.consent
    listed = tuple(sorted({*consent.reference, *hash_files(files)}))
    earlier = [*consent.evidence.get(_EXTENDS, ()), record.digest]
    return sign(replace(consent, reference=listed, evidence={**consent.evidence, _EXTENDS: earlier}), key)


def read_record(path: Path) -> ConsentRecord:
    """Read a `consent.json`.

    Raises:
        ConsentError: MISSING or MALFORMED.
    """
    if not path.is_file():
        raise ConsentError(
            ConsentFault.MISSING,
            f"A consent record must lie at {path}, but there is none. "
            "Make one with: python -m understudy.consent make --help",
        )
    if path.stat().st_size > _MAX_RECORD_BYTES:
        raise malformed(f"{path} has over {_MAX_RECORD_BYTES} bytes")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise malformed(f"{path} is not JSON: {error}") from error
    return ConsentRecord.from_json(content)


def write_record(path: Path, record: ConsentRecord) -> None:
    """Write a `consent.json`; whole or not at all."""
    write_json(path, record.to_json(), indent=2)


def check(
    record: ConsentRecord,
    use: str,
    trust: Trust,
    *,
    now: datetime | None = None,
    faces: Iterable[str] = (),
    persona: str | None = None,
) -> str:
    """Refuse a use that the record does not cover; under a millisecond.

    Called by the trainer before it reads faces, at promotion, at load, and on a timer while a persona is live.

    Args:
        record: the persona's record.
        use: "train", "live" or "record".
        trust: whose signatures count, and what is revoked (`TrustStore.read`).
        now: aware; the present when left out. A clock that is 5 minutes slow is forgiven.
        faces: SHA-256 (hex) of the files about to be used; each must be listed (`hash_files`).
        persona: the persona that is about to be used; must be the record's.

    Returns:
        The record's digest, to be written beside whatever is made.

    Raises:
        ConsentError: with the code and a sentence.
    """
    consent = record.consent
    _check_signature(record, trust)
    if not trust.revoked.isdisjoint({record.digest, *consent.evidence.get(_EXTENDS, ())}):
        raise _refusal(ConsentFault.REVOKED, record, "was revoked here. Ask for a new one")
    moment = now or datetime.now(UTC)
    if moment + CLOCK_SKEW < consent.not_before:
        raise _refusal(ConsentFault.NOT_YET, record, f"counts from {consent.not_before} on. Wait, or check the clock")
    if moment > consent.not_after:
        raise _refusal(ConsentFault.EXPIRED, record, f"expired at {consent.not_after}. Ask for a new one")
    if use not in consent.uses:
        granted = ", ".join(consent.uses)
        raise _refusal(ConsentFault.USE_NOT_GRANTED, record, f"must grant '{use}', but grants {granted}. Ask for it")
    if persona is not None and persona != consent.persona:
        raise _refusal(ConsentFault.OTHER_PERSONA, record, f"does not cover '{persona}'. Give that persona its own")
    if strange := len(set(faces) - set(consent.reference)):
        sentence = f"must list every file that shows the face, but {strange} are not listed. Remove them or sign anew"
        raise _refusal(ConsentFault.FACE_NOT_LISTED, record, sentence)
    return record.digest


def check_same_person(
    reference: Sequence[Face],
    faces: Sequence[Face],
    embed: Callable[[Face], Vector],
    distance: Callable[[Vector, Vector], float],
    same_person: float,
    least_share: float = 0.9,
) -> float:
    """Refuse a faceset that shows somebody else than the record's reference pictures.

    The embeddings live for this call alone: face embeddings that identify a person are GDPR Art. 9 data.

    Args:
        reference: faces from files that the record lists.
        faces: a sample of the faceset's.
        embed: gives a face's embedding (for one, `SFaceEmbedder.embed` on its image and landmarks).
        distance: how unlike two embeddings are (`Embedder.distance`).
        same_person: the largest distance of one person (`Embedder.same_person`).
        least_share: how many of the faces must be near a reference face, 0 to 1.

    Returns:
        The share of the faces that are the reference's person, 0 to 1.

    Raises:
        ConsentError: MISSING when there is nothing to compare, OTHER_PERSON when too few match.
    """
    if not reference or not faces:
        raise ConsentError(ConsentFault.MISSING, "Both the record's files and the faceset must show a face. Add some.")
    known = [embed(face) for face in reference]
    near = [min(distance(vector, other) for other in known) <= same_person for vector in map(embed, faces)]
    share = sum(near) / len(near)
    if share < least_share:
        raise ConsentError(
            ConsentFault.OTHER_PERSON,
            f"The faceset must show the person of the consent record in {least_share:.0%} of its faces, "
            f"but does so in {share:.0%}. Remove the other faces.",
        )
    return share


def _check_signature(record: ConsentRecord, trust: Trust) -> None:
    trusted = trust.keys.get(record.key_id)
    if trusted is None or trusted.public_key != record.public_key or record.consent.kind not in trusted.kinds:
        sentence = (
            f"is signed by key {record.key_id}, which is not trusted here for {record.consent.kind} faces. "
            "If you know whose key it is: python -m understudy.consent trust --help"
        )
        raise _refusal(ConsentFault.UNKNOWN_KEY, record, sentence)
    try:
        key = Ed25519PublicKey.from_public_bytes(record.public_key)
        key.verify(record.signature, DOMAIN + canonical(record.body()))
    except (InvalidSignature, ValueError) as error:
        raise _refusal(ConsentFault.EDITED, record, "was changed after it was signed. Restore or re-sign it") from error


def _refusal(code: ConsentFault, record: ConsentRecord, why: str) -> ConsentError:
    return ConsentError(code, f"The consent record of '{record.consent.persona}' {why}.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="understudy.consent", description="Make, check and revoke consent records.")
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="sign a record with this machine's key (made on first use)")
    make.add_argument("--persona", required=True, help="the persona's name")
    make.add_argument("--kind", choices=("self", "person"), required=True, help="whose face it is")
    make.add_argument("--subject", required=True, help="the person's name")
    make.add_argument("--statement", required=True, help="what they agree to, in their words")
    make.add_argument("--use", action="append", choices=USES, required=True, help="repeat for each use")
    make.add_argument("--days", type=int, default=365, help="how long it counts (365)")
    make.add_argument("--evidence", type=Path, required=True, help="the signed form or the recorded statement")
    make.add_argument("--out", type=Path, default=Path("consent.json"))
    make.add_argument(
        "--files", type=Path, nargs="+", required=True, help="every file that shows the face, the persona's still too"
    )
    verify = commands.add_parser("check", help="say whether a record covers a use")
    verify.add_argument("record", type=Path)
    verify.add_argument("--use", choices=USES, required=True)
    verify.add_argument("--files", type=Path, nargs="+", default=[], help="files about to be used")
    revoke = commands.add_parser("revoke", help="refuse a record on this machine from now on")
    revoke.add_argument("record", type=Path)
    revoke.add_argument("--reason", default="")
    trust = commands.add_parser("trust", help="let another key's records count here")
    trust.add_argument("public_key", help="as `key` prints it on the other machine")
    trust.add_argument("--kind", action="append", choices=KINDS, required=True, help="repeat for each kind")
    trust.add_argument("--note", required=True, help="whose key it is, and how you know")
    commands.add_parser("key", help="print this machine's public key")
    return parser


def _run(options: argparse.Namespace, store: TrustStore, now: datetime) -> str:
    """Do what was asked; returns the line to print."""
    if options.command == "key":
        return base64.b64encode(public_bytes(store.signing_key())).decode()
    if options.command == "trust":
        public_key = base64.b64decode(options.public_key)
        return f"trusted: {store.trust(public_key, tuple(options.kind), options.note)}"
    if options.command == "make":
        record = sign(_consent_from(options, now), store.signing_key())
        write_record(options.out, record)
        return f"{options.out}: {record.digest}"
    record = read_record(options.record)
    if options.command == "revoke":
        store.revoke(record.digest, now, options.reason)
        return f"revoked: {record.digest}"
    return f"valid: {check(record, options.use, store.read(), now=now, faces=hash_files(options.files))}"


def _consent_from(options: argparse.Namespace, now: datetime) -> Consent:
    return Consent(
        persona=options.persona,
        kind=options.kind,
        subject=options.subject,
        statement=options.statement,
        uses=tuple(use for use in USES if use in options.use),
        not_before=now,
        not_after=now + timedelta(days=options.days),
        reference=hash_files(options.files),
        recipe={},
        evidence={"method": "file", "name": options.evidence.name, "sha256": hash_files([options.evidence])[0]},
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 2 when it is refused."""
    options = _parser().parse_args(arguments)
    try:
        print(_run(options, TrustStore(trust_folder(os.environ)), datetime.now(UTC).replace(microsecond=0)))
    except (ConsentError, TrustError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
