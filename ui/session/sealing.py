"""What leaves the Live page as a file: marked, covered by consent, signed and verified, or not delivered."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from liveframe.errors import LiveframeError
from ui.session.consent_timer import ConsentChecker
from ui.session.settings import app_settings
from understudy.bundle.bundle import Bundle, PersonaInfo
from understudy.consent.check import hash_files
from understudy.consent.trust_store import TrustStore
from understudy.provenance.c2pa import Claim, Provenance, provenance_from
from understudy.provenance.disclosure import read_disclosure
from understudy.provenance.watermark import payload_of

OWN_VERSION = "a viewer's own"


class SealError(LiveframeError, RuntimeError):
    """There is nothing that could be delivered; says why."""


@dataclass(frozen=True, slots=True)
class Sealer:
    """Asks for consent to "record", signs and verifies.

    Attributes:
        trust: the operator's folder.
        provenance: who signs.
    """

    trust: Path
    provenance: Provenance

    def claim(self, bundle: Bundle, played: Sequence[PersonaInfo]) -> Claim:
        """Say what an export shows; asks every persona's record whether it may be recorded.

        Args:
            bundle: what plays in the stream; its digest is the watermark's payload.
            played: who played, at least one; a viewer's own personas too.

        Raises:
            SealError: nobody played.
            ConsentError: one of them may not be recorded.
            TrustError: the operator's keys cannot be read.
            DisclosureError: the operator's file on marks cannot be followed.
        """
        if not played:
            raise SealError("No persona was shown, so there is nothing to deliver. Wait until the badge says Swapped.")
        consent = ConsentChecker(TrustStore(self.trust))
        models = [_model_of(bundle, info) for info in played]
        has_watermark = read_disclosure(self.trust).has_watermark
        return Claim(
            persona=", ".join(info.name for info in played),
            model_version=", ".join(dict.fromkeys(version for version, _ in models)),
            model_digest=", ".join(dict.fromkeys(digest for _, digest in models)),
            consent_digest=", ".join(consent.digest(info, "record") for info in played),
            watermark_payload=payload_of(bundle.digest) if has_watermark else None,
        )

    def seal_bytes(self, content: bytes, suffix: str, claim: Claim) -> bytes:
        """Sign a picture in memory, for one with suffix ".jpg"; unsigned only where the operator's file says so.

        Raises:
            ProvenanceError: it could not be signed.
        """
        if not read_disclosure(self.trust).is_signed:
            return content
        return self.provenance.sign_bytes(content, suffix, claim)

    def seal_file(self, path: Path, claim: Claim) -> Path:
        """Sign a clip in place; a clip that cannot be signed is removed.

        Raises:
            ProvenanceError: it could not be signed.
        """
        if not read_disclosure(self.trust).is_signed:
            return path
        try:
            return self.provenance.sign_file(path, claim)
        except BaseException:
            path.unlink(missing_ok=True)
            raise


@cache
def sealer() -> Sealer:
    """This server's. Reads the certificate at the first use, or makes a development one.

    Raises:
        CertificateError: the certificate that the environment names cannot be used.
        ProvenanceError: only half of it is named.
    """
    return Sealer(app_settings().trust, provenance_from(os.environ))


def _model_of(bundle: Bundle, info: PersonaInfo) -> tuple[str, str]:
    """Version and digest of what plays a persona; a viewer's own is told by its still."""
    if info in bundle.personas:
        return bundle.manifest.version, bundle.digest
    return OWN_VERSION, hash_files([info.still])[0]
