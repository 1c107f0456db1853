"""Exports are signed and verify as Trusted with our anchor, Invalid when tampered with, or are not delivered."""

import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import av
import c2pa
import cv2
import numpy as np
import pytest
from cryptography import x509
from numpy.typing import NDArray

from understudy.provenance.c2pa import Claim, Provenance, ProvenanceError, Verdict, main, provenance_from
from understudy.provenance.certificates import CertificateError, SigningIdentity, development_identity, read_identity
from understudy.provenance.xmp import DIGITAL_SOURCE_TYPE, with_metadata

CLAIM = Claim("ada", "2026.11", "ab" * 32, "cd" * 32, 0xBEEF)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An operator's folder."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def provenance(home: Path) -> Provenance:
    """Signing with a development certificate."""
    return provenance_from({"UNDERSTUDY_HOME": str(home)})


def write_export(path: Path, astronaut: NDArray[np.uint8]) -> Path:
    """Write a small export in the format of its extension."""
    image = np.ascontiguousarray(astronaut[:128, 128:256])
    if path.suffix in (".jpg", ".png"):
        cv2.imwrite(str(path), image)
        return path
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, width=128, height=128, pix_fmt="yuv420p")
        for index in range(10):
            frame = av.VideoFrame.from_ndarray(np.roll(image, index, axis=1), format="bgr24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.mp4", "a.mov"])
def test_export_reads_trusted_and_says_what_made_it(
    tmp_path: Path, provenance: Provenance, astronaut: NDArray[np.uint8], name: str
) -> None:
    path = write_export(tmp_path / name, astronaut)
    assert provenance.verify(path) == Verdict("Unsigned")
    assert provenance.sign_file(path, CLAIM) == path
    verdict = provenance.verify(path)
    assert (verdict.state, verdict.failures) == ("Trusted", ())
    assert verdict.digital_source_type == "compositeWithTrainedAlgorithmicMedia"
    assert verdict.facts == {
        "face_replaced": True,
        "persona": "ada",
        "model_version": "2026.11",
        "model_sha256": "ab" * 32,
        "consent_record_sha256": "cd" * 32,
        "watermark": {"scheme": "understudy-watermark-1", "payload": "beef"},
    }
    assert [file.name for file in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.mp4"])
def test_signing_changes_no_pixel_and_plain_metadata_is_there(
    tmp_path: Path, provenance: Provenance, astronaut: NDArray[np.uint8], name: str
) -> None:
    path = write_export(tmp_path / name, astronaut)
    signed = provenance.sign_file(path, CLAIM, tmp_path / f"signed{path.suffix}")

    def first_frame(file: Path) -> NDArray[np.uint8]:
        with av.open(str(file)) as container:
            return next(container.decode(video=0)).to_ndarray(format="bgr24")

    np.testing.assert_array_equal(first_frame(path), first_frame(signed))
    assert f'Iptc4xmpExt:DigitalSourceType="{DIGITAL_SOURCE_TYPE}"'.encode() in signed.read_bytes()
    assert DIGITAL_SOURCE_TYPE.encode() not in path.read_bytes()


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.mp4"])
def test_a_flipped_bit_reads_invalid(
    tmp_path: Path, provenance: Provenance, astronaut: NDArray[np.uint8], name: str
) -> None:
    path = provenance.sign_file(write_export(tmp_path / name, astronaut), CLAIM)
    raw = bytearray(path.read_bytes())
    raw[len(raw) * 9 // 10 - 2000 if name == "a.mp4" else len(raw) * 9 // 10] ^= 1
    path.write_bytes(bytes(raw))
    verdict = provenance.verify(path)
    assert verdict.state == "Invalid"
    assert any("mismatch" in failure.lower() for failure in verdict.failures)


def test_an_edited_manifest_reads_invalid(tmp_path: Path, provenance: Provenance, astronaut: NDArray[np.uint8]) -> None:
    path = provenance.sign_file(write_export(tmp_path / "a.jpg", astronaut), CLAIM)
    assert b"2026.11" in path.read_bytes()
    path.write_bytes(path.read_bytes().replace(b"2026.11", b"2026.12"))
    assert provenance.verify(path).state == "Invalid"


def test_a_strangers_signature_is_valid_but_not_trusted(
    tmp_path: Path, provenance: Provenance, astronaut: NDArray[np.uint8]
) -> None:
    stranger = Provenance(development_identity(tmp_path / "stranger"))
    path = stranger.sign_file(write_export(tmp_path / "a.jpg", astronaut), CLAIM)
    verdict = provenance.verify(path)
    assert (verdict.state, verdict.is_trusted) == ("Valid", False)
    assert "signingCredential.untrusted" in verdict.failures


def test_reencoding_strips_the_manifest(tmp_path: Path, provenance: Provenance, astronaut: NDArray[np.uint8]) -> None:
    path = provenance.sign_file(write_export(tmp_path / "a.jpg", astronaut), CLAIM)
    image = cv2.imread(str(path))
    assert image is not None
    cv2.imwrite(str(path), image)
    assert provenance.verify(path) == Verdict("Unsigned")


def test_bytes_in_memory_are_signed(tmp_path: Path, provenance: Provenance, astronaut: NDArray[np.uint8]) -> None:
    ok, encoded = cv2.imencode(".jpg", astronaut)
    assert ok
    path = tmp_path / "a.jpg"
    path.write_bytes(provenance.sign_bytes(encoded.tobytes(), ".jpg", CLAIM))
    assert provenance.verify(path).is_trusted


@pytest.mark.parametrize(("name", "content"), [("a.mkv", b"\x1aE\xdf\xa3"), ("a.jpg", b"no picture"), ("a.mp4", b"")])
def test_what_cannot_be_signed_is_not_delivered(
    tmp_path: Path, provenance: Provenance, name: str, content: bytes
) -> None:
    path, target = tmp_path / name, tmp_path / f"out{Path(name).suffix}"
    path.write_bytes(content)
    with pytest.raises(ProvenanceError, match="not delivered"):
        provenance.sign_file(path, CLAIM, target)
    assert not target.exists()
    assert path.read_bytes() == content
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_signature_that_does_not_verify_is_not_delivered(
    tmp_path: Path, provenance: Provenance, astronaut: NDArray[np.uint8]
) -> None:
    other = development_identity(tmp_path / "other")
    mine = provenance.identity
    mismatched = Provenance(SigningIdentity(mine.chain, mine.key, other.anchors, mine.algorithm))
    path, target = write_export(tmp_path / "a.png", astronaut), tmp_path / "b.png"
    with pytest.raises(ProvenanceError, match=r"reads Valid \(signingCredential.untrusted\)"):
        mismatched.sign_file(path, CLAIM, target)
    assert not target.exists()


def test_manifest_is_read_by_a_stock_c2pa_reader(
    tmp_path: Path, provenance: Provenance, astronaut: NDArray[np.uint8]
) -> None:
    path = provenance.sign_file(write_export(tmp_path / "a.jpg", astronaut), CLAIM)
    with c2pa.Reader(str(path)) as reader:
        store = json.loads(reader.json())
    manifest = store["manifests"][store["active_manifest"]]
    actions = next(a["data"]["actions"] for a in manifest["assertions"] if a["label"].startswith("c2pa.actions"))
    assert [(action["action"], action["digitalSourceType"]) for action in actions] == [
        ("c2pa.created", DIGITAL_SOURCE_TYPE)
    ]
    assert manifest["title"] == "a.jpg"


def test_development_certificate_is_made_once_for_its_owner_alone(home: Path, provenance: Provenance) -> None:
    again = provenance_from({"UNDERSTUDY_HOME": str(home)})
    assert again.identity == provenance.identity
    assert "PRIVATE" not in repr(again.identity) + str(again.identity)
    folder = home / "provenance"
    assert sorted(file.name for file in folder.iterdir()) == ["root.pem", "root_key.pem", "signer.pem"]
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    leaf, root = x509.load_pem_x509_certificates(again.identity.chain)
    leaf.verify_directly_issued_by(root)


def test_two_processes_make_one_certificate(tmp_path: Path, repository: Path) -> None:
    code = (
        "import sys, pathlib; from understudy.provenance.certificates import development_identity as make;"
        "print(make(pathlib.Path(sys.argv[1])).anchors.hex())"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "provenance")]
    running = [subprocess.Popen(command, cwd=repository, stdout=subprocess.PIPE) for _ in range(3)]
    anchors = {process.communicate(timeout=60)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(anchors) == 1


def test_an_operators_certificate_is_used_and_checked(
    tmp_path: Path, provenance: Provenance, astronaut: NDArray[np.uint8]
) -> None:
    chain, key, anchors = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "roots.pem"
    chain.write_bytes(provenance.identity.chain)
    key.write_bytes(provenance.identity.key)
    key.chmod(0o600)
    anchors.write_bytes(provenance.identity.anchors)
    named = {"UNDERSTUDY_C2PA_CHAIN": str(chain), "UNDERSTUDY_C2PA_KEY": str(key)}
    chosen = provenance_from(named | {"UNDERSTUDY_C2PA_ANCHORS": str(anchors)})
    assert chosen.verify(chosen.sign_file(write_export(tmp_path / "a.jpg", astronaut), CLAIM)).is_trusted
    with pytest.raises(ProvenanceError, match="must both be set"):
        provenance_from({"UNDERSTUDY_C2PA_KEY": str(key)})
    other = development_identity(tmp_path / "other")
    key.write_bytes(other.key)
    with pytest.raises(CertificateError, match="but is another's"):
        provenance_from(named)
    if os.name == "posix":
        key.write_bytes(provenance.identity.key)
        key.chmod(0o644)
        with pytest.raises(CertificateError, match="chmod 600"):
            provenance_from(named)
    with pytest.raises(CertificateError, match="cannot be used"):
        read_identity(tmp_path / "none.pem", key)


def test_command_judges_files(
    tmp_path: Path,
    home: Path,
    provenance: Provenance,
    astronaut: NDArray[np.uint8],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(home))
    signed = provenance.sign_file(write_export(tmp_path / "a.jpg", astronaut), CLAIM)
    unsigned = write_export(tmp_path / "b.jpg", astronaut)
    assert main(["verify", str(signed)]) == 0
    assert main(["verify", str(signed), str(unsigned)]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last)["state"] == "Unsigned"


def test_metadata_is_put_in_once_and_only_where_it_belongs(astronaut: NDArray[np.uint8]) -> None:
    from PIL import Image as Pictures

    for suffix in (".jpg", ".png"):
        ok, encoded = cv2.imencode(suffix, astronaut)
        assert ok
        once = with_metadata(encoded.tobytes(), suffix)
        assert with_metadata(once, suffix) == once
        with Pictures.open(io.BytesIO(once)) as picture:
            packet = picture.info["xmp"]
            picture.load()
        assert b"compositeWithTrainedAlgorithmicMedia" in (packet if isinstance(packet, bytes) else packet.encode())
    with pytest.raises(ValueError, match="JPEG, PNG, WebP, MP4 and MOV"):
        with_metadata(b"GIF89a", ".gif")
