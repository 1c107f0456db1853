"""Signed provenance on every exported picture and clip (C2PA 2.1), or the export is not delivered.

`Provenance.sign_file` puts in the plain metadata and a C2PA manifest, reads the result back and verifies it against
our own anchor before it gives it its name. No method exists for WebRTC: live streams carry the label and the
watermark; recordings and snapshots get all three. Re-encoding strips the manifest; the watermark stays.

`python -m understudy.provenance verify FILE...` judges files.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from liveframe.errors import LiveframeError
from understudy.consent.trust_store import trust_folder
from understudy.media.limits import CLIP_RESULTS, EXTENSIONS
from understudy.provenance.certificates import SigningIdentity, development_identity, read_identity
from understudy.provenance.xmp import DIGITAL_SOURCE_TYPE, with_metadata

SIGNED_SUFFIXES = (*EXTENSIONS["jpeg"], ".png", ".webp", ".gif", *CLIP_RESULTS, ".webm")
_UNMARKED = (".gif", ".webm")  # no place for XMP that tools read: the manifest alone says it
_DETACHED = {".webm": "video/webm"}  # cannot hold a manifest: it lies beside the file
ASSERTION = "local.understudy.swap"
_EXTENDED_KEY_USAGES = "1.3.6.1.5.5.7.3.4\n1.3.6.1.4.1.62558.2.1\n"  # emailProtection, c2pa-kp-claimSigning
_MAX_SIGNED_BYTES = 16 << 30


class ProvenanceError(LiveframeError, RuntimeError):
    """A file could not be signed, or does not verify; it was not delivered."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What an export says about itself.

    Attributes:
        persona: the persona's name.
        model_version: the bundle's version, as people know it.
        model_digest: `Bundle.digest`, hex.
        consent_digest: `ConsentRecord.digest`, hex.
        watermark_payload: the payload of its watermark, None where it carries none.
    """

    persona: str
    model_version: str
    model_digest: str
    consent_digest: str
    watermark_payload: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the assertion as JSON values."""
        facts: dict[str, Any] = {
            "face_replaced": True,
            "persona": self.persona,
            "model_version": self.model_version,
            "model_sha256": self.model_digest,
            "consent_record_sha256": self.consent_digest,
        }
        if self.watermark_payload is not None:
            facts["watermark"] = {"scheme": "understudy-watermark-1", "payload": f"{self.watermark_payload:04x}"}
        return facts


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a file's manifest is worth.

    Attributes:
        state: "Trusted" (intact, and signed under an anchor of ours), "Valid" (intact, signed by somebody
            unknown), "Invalid" (changed after it was signed) or "Unsigned".
        failures: C2PA status codes, for one "assertion.dataHash.mismatch".
        digital_source_type: IPTC's term, the last part of its address; "" where it says none.
        facts: our own assertion (`Claim.to_json`); empty where there is none.
    """

    state: str
    failures: tuple[str, ...] = ()
    digital_source_type: str = ""
    facts: Mapping[str, Any] | None = None

    @property
    def is_trusted(self) -> bool:
        """Whether the file is intact and ours."""
        return self.state == "Trusted"


class Provenance:
    """Signs exports and verifies files. Thread-safe; nothing asks the network but a configured timestamp service.

    Args:
        identity: who signs, and whom to trust.
    """

    def __init__(self, identity: SigningIdentity) -> None:
        self.identity = identity

    def sign_file(self, path: Path, claim: Claim, target: Path | None = None) -> Path:
        """Sign a file that we wrote.

        Args:
            path: JPEG, PNG, WebP, GIF, MP4, MOV or WebM. WebM cannot hold a manifest: it goes beside the file, under
                its name with `.c2pa`, where readers look for it.
            claim: what it shall say.
            target: where the signed file goes; replaces `path` when left out. It appears at once, signed and
                verified, or not at all.

        Returns:
            The target.

        Raises:
            ProvenanceError: it could not be signed, or did not verify.
        """
        goal = target or path
        if path.suffix.lower() not in SIGNED_SUFFIXES or goal.suffix.lower() != path.suffix.lower():
            raise ProvenanceError(
                f"'{goal.name}' must be one of {', '.join(SIGNED_SUFFIXES)} to be signed, and keep its extension "
                "on the way. It was not delivered: choose MP4 for clips."
            )
        with tempfile.TemporaryDirectory(dir=goal.parent, prefix=".signing-") as room:
            signed = Path(room, f"signed{path.suffix.lower()}")
            self._sign(path, signed, claim, goal.name)
            verdict = self.verify(signed)
            if not verdict.is_trusted or verdict.facts != claim.to_json():
                raise ProvenanceError(
                    f"'{goal.name}' must verify as Trusted once signed, but reads {verdict.state} "
                    f"({', '.join(verdict.failures) or 'no failure named'}). It was not delivered: "
                    "check the certificate."
                )
            if signed.suffix in _DETACHED:
                os.replace(sidecar(signed), sidecar(goal))
            os.replace(signed, goal)
        return goal

    def sign_bytes(self, content: bytes, suffix: str, claim: Claim) -> bytes:
        """Sign a picture or clip held in memory, for one a snapshot to be downloaded.

        Args:
            content: a whole file.
            suffix: its extension, for one ".jpg".
            claim: what it shall say.

        Raises:
            ProvenanceError: as `sign_file`.
        """
        with tempfile.TemporaryDirectory(prefix="understudy-") as room:
            path = Path(room, f"export{suffix}")
            path.write_bytes(content)
            return self.sign_file(path, claim).read_bytes()

    def verify(self, path: Path) -> Verdict:
        """Read and judge a file's manifest; a file without one is "Unsigned", one that cannot be read "Invalid"."""
        import c2pa

        try:
            with c2pa.Context.from_dict(self._settings()) as context, _reader(path, context) as reader:
                return _verdict(json.loads(reader.json()), str(reader.get_validation_state()))
        except (c2pa.C2paError, OSError, ValueError, KeyError) as error:
            if str(error).startswith("ManifestNotFound"):  # its classes are private
                return Verdict("Unsigned")
            return Verdict("Invalid", (str(error),))

    def _sign(self, path: Path, signed: Path, claim: Claim, title: str) -> None:
        import c2pa

        marked = signed.with_name(f"marked{signed.suffix}")
        try:
            _mark(path, marked)
            info = c2pa.C2paSignerInfo(
                alg=self.identity.algorithm.encode(),
                sign_cert=self.identity.chain,
                private_key=self.identity.key,
                ta_url=self.identity.timestamp_url.encode() or None,
            )
            with (
                c2pa.Context.from_dict(self._settings()) as context,
                c2pa.Signer.from_info(info) as signer,
                c2pa.Builder(_manifest(claim, title), context) as builder,
            ):
                if path.suffix.lower() in _DETACHED:
                    _sign_beside(builder, signer, marked, signed)
                else:
                    builder.sign_file(str(marked), str(signed), signer)
        except (c2pa.C2paError, OSError, ValueError) as error:
            raise ProvenanceError(f"'{title}' could not be signed: {error}. It was not delivered.") from error
        finally:
            marked.unlink(missing_ok=True)

    def _settings(self) -> dict[str, Any]:
        return {
            "version": 1,
            "trust": {"user_anchors": self.identity.anchors.decode(), "trust_config": _EXTENDED_KEY_USAGES},
            "verify": {
                "verify_after_sign": False,
                "verify_trust": True,
                "remote_manifest_fetch": False,
                "ocsp_fetch": False,
            },
            "builder": {"thumbnail": {"enabled": False}},
        }


def provenance_from(environment: Mapping[str, str]) -> Provenance:
    """Choose the certificate: the operator's where the environment names one, else this machine's own.

    Args:
        environment: os.environ, handed in by the entry point. `UNDERSTUDY_C2PA_CHAIN` and `UNDERSTUDY_C2PA_KEY`
            (PEM files; both or neither), `UNDERSTUDY_C2PA_ANCHORS` (PEM file), `UNDERSTUDY_C2PA_TIMESTAMP` (URL).

    Raises:
        CertificateError: the named files cannot be used.
        ProvenanceError: only one of chain and key is named.
    """
    chain, key = environment.get("UNDERSTUDY_C2PA_CHAIN", ""), environment.get("UNDERSTUDY_C2PA_KEY", "")
    if bool(chain) != bool(key):
        raise ProvenanceError("UNDERSTUDY_C2PA_CHAIN and UNDERSTUDY_C2PA_KEY must both be set, but one is. Set both.")
    if not chain:
        return Provenance(development_identity(trust_folder(environment) / "provenance"))
    anchors = environment.get("UNDERSTUDY_C2PA_ANCHORS", "")
    timestamp_url = environment.get("UNDERSTUDY_C2PA_TIMESTAMP", "")
    return Provenance(read_identity(Path(chain), Path(key), Path(anchors) if anchors else None, timestamp_url))


def sidecar(path: Path) -> Path:
    """Where the manifest of a file lies that cannot hold one."""
    return path.with_suffix(".c2pa")


def _reader(path: Path, context: Any) -> Any:
    import c2pa

    kind = _DETACHED.get(path.suffix.lower())
    if kind is None or not sidecar(path).is_file():
        return c2pa.Reader(str(path), context=context)
    with path.open("rb") as file:
        return c2pa.Reader(kind, file, sidecar(path).read_bytes(), context=context)


def _sign_beside(builder: Any, signer: Any, marked: Path, signed: Path) -> None:
    builder.set_no_embed()
    with marked.open("rb") as source, signed.open("w+b") as target:
        manifest = builder.sign(signer, _DETACHED[signed.suffix], source, target)
    sidecar(signed).write_bytes(manifest)


def _mark(path: Path, marked: Path) -> None:
    """Copy a file with the plain metadata put in; clips are appended to, never held in memory."""
    suffix = path.suffix.lower()
    if path.stat().st_size > _MAX_SIGNED_BYTES:
        raise ValueError(f"it has over {_MAX_SIGNED_BYTES >> 30} GiB; convert it in parts")
    if suffix in _UNMARKED:
        shutil.copyfile(path, marked)
    elif suffix in CLIP_RESULTS:
        with path.open("rb") as file:
            head = file.read(8)
        shutil.copyfile(path, marked)
        with marked.open("ab") as file:
            file.write(with_metadata(head, suffix)[len(head) :])
    else:
        marked.write_bytes(with_metadata(path.read_bytes(), suffix))


def _manifest(claim: Claim, title: str) -> dict[str, Any]:
    agent = {"name": "Understudy"}
    with contextlib.suppress(metadata.PackageNotFoundError):  # run from a checkout, it is not installed
        agent["version"] = metadata.version("understudy")
    action = {
        "action": "c2pa.created",
        "digitalSourceType": DIGITAL_SOURCE_TYPE,
        "softwareAgent": agent,
        "description": "A face was replaced by a neural network.",
    }
    return {
        "claim_generator_info": [agent],
        "title": title,
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": [action]}},
            {"label": ASSERTION, "data": claim.to_json()},
        ],
    }


def _verdict(store: Mapping[str, Any], state: str) -> Verdict:
    """Pick what counts from c2pa's report."""
    results = store.get("validation_results", {}).get("activeManifest", {})
    failures = tuple(str(failure["code"]) for failure in results.get("failure", []))
    assertions = store["manifests"][store["active_manifest"]].get("assertions", [])
    source_type, facts = "", None
    for assertion in assertions:
        if assertion["label"].startswith("c2pa.actions"):
            for action in assertion["data"].get("actions", []):
                source_type = str(action.get("digitalSourceType", source_type)).rsplit("/", 1)[-1]
        elif assertion["label"] == ASSERTION:
            facts = assertion["data"]
    return Verdict(state, failures, source_type, facts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status: 0 when every file is trusted, 1 when one is not, 2 on a bad setting."""
    parser = argparse.ArgumentParser(prog="understudy.provenance", description="Judge the C2PA manifests of files.")
    parser.add_argument("command", choices=["verify"])
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args(arguments)
    try:
        provenance = provenance_from(os.environ)
    except LiveframeError as error:
        print(error, file=sys.stderr)
        return 2
    verdicts = [provenance.verify(file) for file in options.files]
    for file, verdict in zip(options.files, verdicts, strict=True):
        print(json.dumps({"file": str(file)} | asdict(verdict)))
    return 0 if all(verdict.is_trusted for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
