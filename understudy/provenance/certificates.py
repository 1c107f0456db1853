"""The certificate that signs exports: a real one from files, or a development one made on first use.

The development chain is a root of our own (path length 0) and a leaf that meets the C2PA certificate profile
(C2PA 2.1, 14.5.1): ES256, digitalSignature, an accepted extended key usage, key identifiers. Nobody else trusts it.
"""

import contextlib
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from liveframe.errors import LiveframeError
from understudy.consent.private_file import is_open_to_others, write_private

_ROOT_DAYS = 3650
_LEAF_DAYS = 3 * 365
_RENEW_DAYS = 30
_ALGORITHMS = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}


class CertificateError(LiveframeError, ValueError):
    """A signing certificate or its key cannot be used."""


@dataclass(frozen=True, slots=True)
class SigningIdentity:
    """Who signs.

    Attributes:
        chain: PEM, the leaf first.
        key: PEM, the leaf's private key.
        anchors: PEM, the roots that `verify` trusts.
        algorithm: "es256", "es384", "es512" or "ed25519".
        timestamp_url: an RFC 3161 service, so that signatures outlive the certificate; "" for none (no network).
    """

    chain: bytes
    key: bytes
    anchors: bytes
    algorithm: str
    timestamp_url: str = ""

    def __repr__(self) -> str:
        """Name the subject; never the key."""
        return f"SigningIdentity({x509.load_pem_x509_certificates(self.chain)[0].subject.rfc4514_string()!r})"


def read_identity(chain: Path, key: Path, anchors: Path | None = None, timestamp_url: str = "") -> SigningIdentity:
    """Read a real certificate.

    Args:
        chain: PEM, the leaf first, then its issuers.
        key: PEM, unencrypted, readable by its owner alone.
        anchors: PEM, the roots to trust; the chain's last certificate when left out.
        timestamp_url: see `SigningIdentity`.

    Raises:
        CertificateError: a file is missing or broken, the key does not fit, or the leaf is out of date.
    """
    try:
        private = load_pem_private_key(key.read_bytes(), None)
        certificates = x509.load_pem_x509_certificates(chain.read_bytes())
        algorithm = _algorithm(certificates[0], private)
        anchors_pem = anchors.read_bytes() if anchors else certificates[-1].public_bytes(Encoding.PEM)
    except (OSError, ValueError, TypeError) as error:
        if isinstance(error, CertificateError):
            raise
        raise CertificateError(
            f"The certificate {chain} with key {key} cannot be used: {error}. Check both."
        ) from error
    if is_open_to_others(key):
        raise CertificateError(f"{key} must be readable by its owner alone, but others may. Run: chmod 600 {key}")
    until = certificates[0].not_valid_after_utc
    if until < datetime.now(UTC):
        raise CertificateError(f"The certificate {chain} must be in date, but ended at {until}. Renew it.")
    chain_pem = b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)
    key_pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return SigningIdentity(chain_pem, key_pem, anchors_pem, algorithm, timestamp_url)


def development_identity(folder: Path) -> SigningIdentity:
    """Return this machine's own certificate; made on first use, its leaf renewed a month before it ends.

    Args:
        folder: holds `root.pem` (to hand to whoever shall trust this machine), `root_key.pem` and `signer.pem`
            (key and chain in one file, so that they always fit); keys are mode 0600.

    Raises:
        CertificateError: a file in the folder is broken.
    """
    signer, root = folder / "signer.pem", folder / "root.pem"
    if not root.exists():
        _make_root(folder)
    if not signer.exists():
        _make_leaf(folder, is_first=True)
    elif _ends_soon(signer):
        _make_leaf(folder, is_first=False)
    return read_identity(signer, signer, root)


def _algorithm(leaf: x509.Certificate, key: PrivateKeyTypes) -> str:
    """Name the C2PA algorithm of a key, once it is seen to be the leaf's."""
    encoding = Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    if key.public_key().public_bytes(*encoding) != leaf.public_key().public_bytes(*encoding):
        raise CertificateError("The private key must be that of the chain's first certificate, but is another's.")
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _ALGORITHMS:
        return _ALGORITHMS[key.curve.name]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise CertificateError("The private key must be of P-256, P-384, P-521 or Ed25519. Ask for such a certificate.")


def _ends_soon(chain: Path) -> bool:
    try:
        leaf = x509.load_pem_x509_certificates(chain.read_bytes())[0]
    except ValueError as error:
        raise CertificateError(
            f"{chain} must hold certificates, but {error}. Remove its folder to start anew."
        ) from error
    return leaf.not_valid_after_utc < datetime.now(UTC) + timedelta(days=_RENEW_DAYS)


def _name(common: str) -> x509.Name:
    organisation = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Understudy, this machine alone")
    return x509.Name([organisation, x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _usage(is_root: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_root,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_root,
        crl_sign=is_root,
        encipher_only=False,
        decipher_only=False,
    )


def _builder(subject: str, key: ec.EllipticCurvePrivateKey, days: int, is_root: bool) -> x509.CertificateBuilder:
    start = datetime.now(UTC) - timedelta(minutes=5)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(subject))
        .issuer_name(_name("Understudy development root"))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_root, path_length=0 if is_root else None), critical=True)
        .add_extension(_usage(is_root), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _make_root(folder: Path) -> None:
    """Make the root in a folder of its own and give that its name: of two at once, one wins, whole."""
    key = ec.generate_private_key(ec.SECP256R1())
    root = _builder("Understudy development root", key, _ROOT_DAYS, is_root=True).sign(key, hashes.SHA256())
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as made:
        write_private(Path(made, "root_key.pem"), _private_pem(key))
        write_private(Path(made, "root.pem"), root.public_bytes(Encoding.PEM))
        with contextlib.suppress(OSError):  # somebody else's root has come first
            Path(made).rename(folder)
    if not (folder / "root.pem").exists():
        raise CertificateError(f"{folder} must hold root.pem or be missing, but is neither. Remove it to start anew.")


def _make_leaf(folder: Path, is_first: bool) -> None:
    """Make the leaf. The first stays: of several processes at once, none reads a key beside another's chain."""
    root_key = load_pem_private_key((folder / "root_key.pem").read_bytes(), None)
    if not isinstance(root_key, ec.EllipticCurvePrivateKey):
        raise CertificateError(f"{folder / 'root_key.pem'} must hold an EC key. Remove {folder} to start anew.")
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        _builder("Understudy development signer", key, _LEAF_DAYS, is_root=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION]), critical=True)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()), critical=False)
        .sign(root_key, hashes.SHA256())
    )
    parts = (_private_pem(key), leaf.public_bytes(Encoding.PEM), (folder / "root.pem").read_bytes())
    write_private(folder / "signer.pem", b"".join(parts), is_exclusive=is_first)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
