"""A persona ready to perform outside the app: bundle verified, consent checked, networks and marks at hand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from liveframe.gate import Paint
from understudy.bundle.bundle import Bundle
from understudy.consent.persona import Persona
from understudy.consent.trust_store import TrustStore
from understudy.provenance.c2pa import Claim, Provenance
from understudy.provenance.disclosure import Disclosure, read_disclosure
from understudy.provenance.watermark import payload_of
from understudy.swap.own_personas import further_references
from understudy.swap.renderer import AnyRenderer
from understudy.swap.renderer import photo_persona as open_photo_persona
from understudy.swap.swapper import FaceSwapper, SwapSettings
from understudy.vision.track import TrackSettings


@dataclass(frozen=True, slots=True)
class VerifiedSwapper:
    """Who performs, and by what.

    Attributes:
        bundle: verified.
        persona: with its consent record.
        swapper: plays the persona; cold.
        use: what consent was checked for: "live" or "record".
        store: the operator's keys and revocations.
    """

    bundle: Bundle
    persona: Persona
    swapper: FaceSwapper
    use: str
    store: TrustStore

    @classmethod
    def open(
        cls,
        bundle: Path,
        settings: SwapSettings,
        use: str,
        store: TrustStore,
        threads: int = 1,
        photo_persona: Path | None = None,
        photo: Path | None = None,
    ) -> "VerifiedSwapper":
        """Open a bundle and check that its persona may be put to a use.

        Args:
            bundle: directory or .zip.
            settings: name the persona, or nobody: the bundle's first.
            use: "live" or "record".
            store: the operator's.
            threads: cores that one frame's networks use.
            photo_persona: folder of a persona as the Studio makes it (still.png, mesh.npy, consent.json): it plays, and
                takes the folder's name where the settings name nobody.
            photo: the picture that its record lists, where that is not the look's own still.

        Raises:
            BundleError: damaged, or without such a persona.
            ConsentError: the persona may not be put to this use.
            ModelError: the look is not there.
            TrustError: the operator's keys cannot be read.
        """
        opened, renderers = Bundle.load(bundle), dict[str, AnyRenderer]()
        if photo_persona is None:
            info = opened.persona(settings.persona) if settings.persona else opened.personas[0]
            persona = Persona.of(info)
        else:
            name = settings.persona or photo_persona.name
            still, record = photo or photo_persona / "still.png", photo_persona / "consent.json"
            persona = Persona.load(name, name.title(), still, record, further_references(photo_persona))
            settings = replace(settings, persona=name)
            renderers[name] = open_photo_persona(photo_persona, opened, threads)
        tracking = TrackSettings(far_every=4) if use == "record" else None  # a clip waits for nobody
        verified = cls(opened, persona, FaceSwapper(opened, settings, threads, renderers, tracking), use, store)
        verified.check_consent()
        return verified

    def check_consent(self) -> str:
        """Ask whether the persona may be put to the use now; returns the record's digest.

        Raises:
            ConsentError: it may not.
            TrustError: the operator's keys cannot be read.
        """
        return self.persona.check(self.use, self.store.read())

    @property
    def disclosure(self) -> Disclosure:
        """Which marks the operator has left on: all, unless their file says otherwise.

        Raises:
            DisclosureError: their file cannot be followed.
        """
        return read_disclosure(self.store.folder)

    def overlays(self) -> tuple[Paint, ...]:
        """What marks every picture: the watermark, then the label on top of it."""
        return self.disclosure.overlays(self.bundle.digest)

    def sealer(self, provenance: Provenance, others: Sequence["VerifiedSwapper"] = ()) -> Callable[[Path], None]:
        """Return what asks for consent once more and then signs a finished recording, in place, before it is published.

        `others` play in it too: the claim names them, and their consent is asked for as well.

        It raises ConsentError where consent expired or was revoked in the meantime, and ProvenanceError where the
        file cannot be signed. Where the operator's file says so (`disclosure`), it asks, but does not sign.
        """
        disclosure = self.disclosure

        def seal(path: Path) -> None:
            claim = Claim(
                persona=", ".join(each.persona.name for each in (self, *others)),
                model_version=self.bundle.manifest.version,
                model_digest=self.bundle.digest,
                consent_digest=", ".join(each.check_consent() for each in (self, *others)),
                watermark_payload=payload_of(self.bundle.digest) if disclosure.has_watermark else None,
            )
            if disclosure.is_signed:
                provenance.sign_file(path, claim)

        return seal
