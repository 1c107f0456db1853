"""A persona is checked with its still, and watched while it is live."""

import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from understudy.bundle.bundle import Bundle, default_bundle
from understudy.consent.check import USES, ConsentError, ConsentRecord, synthetic_record, write_record
from understudy.consent.persona import ConsentWatch, Persona
from understudy.consent.trust_store import (
    KINDS,
    TrustError,
    TrustStore,
    key_id,
    public_bytes,
    release_keys,
    trust_folder,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> TrustStore:
    """An operator's folder that does not exist yet."""
    return TrustStore(tmp_path / "home")


@pytest.fixture
def persona(tmp_path: Path, store: TrustStore) -> Persona:
    """A synthetic persona, signed by the store's operator."""
    still = tmp_path / "still.png"
    still.write_bytes(b"pixels")
    content = synthetic_record("ada", {"method": "composite"}, [still], store.signing_key(), NOW)
    write_record(tmp_path / "consent.json", ConsentRecord.from_json(content))
    return Persona.load("ada", "Ada", still, tmp_path / "consent.json")


def test_persona_is_covered_until_its_still_is_swapped(persona: Persona, store: TrustStore) -> None:
    assert (persona.kind, persona.recipe) == ("synthetic", {"method": "composite"})
    assert persona.check("live", store.read(), NOW) == persona.consent.digest
    persona.still.write_bytes(b"somebody else")
    with pytest.raises(ConsentError, match="not listed"):
        persona.check("live", store.read(), NOW)


def test_watch_tells_of_a_revocation_and_of_expiry(persona: Persona, store: TrustStore) -> None:
    clock, today = [0.0], [NOW]
    watch = ConsentWatch(persona, "live", store, every_s=10.0, clock=lambda: clock[0], today=lambda: today[0])
    assert watch.problem() == ""
    store.revoke(persona.consent.digest, NOW, "test")
    clock[0] = 9.9
    assert watch.problem() == ""
    clock[0] = 10.0
    assert "was revoked" in watch.problem()
    (store.folder / "revoked.json").unlink()
    clock[0], today[0] = 20.0, NOW + timedelta(days=365 * 21)
    assert "expired" in watch.problem()


@pytest.mark.parametrize("content", [b"not JSON", b"[]", b'{"keys": 1}', b'{"keys": [{"public_key": "AAAA"}]}'])
def test_watch_fails_closed_on_a_broken_trust_folder(persona: Persona, store: TrustStore, content: bytes) -> None:
    (store.folder / "trusted_keys.json").write_bytes(content)
    assert "trusted_keys.json" in ConsentWatch(persona, "live", store).problem()
    (store.folder / "trusted_keys.json").unlink()
    (store.folder / "revoked.json").write_bytes(content)
    assert ConsentWatch(persona, "live", store).problem() != ""


def test_key_is_made_once_and_for_its_owner_alone(store: TrustStore) -> None:
    keys: list[bytes] = []
    threads = [threading.Thread(target=lambda: keys.append(public_bytes(store.signing_key()))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(keys) == 8 and len(set(keys)) == 1
    assert stat.S_IMODE((store.folder / "signing_key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
    assert store.read().keys[key_id(keys[0])].kinds == KINDS
    assert sorted(path.name for path in store.folder.iterdir()) == [
        ".lock",
        "signing_key.pem",
        "trusted_keys.json",
    ]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_key_that_others_may_read_is_refused(store: TrustStore) -> None:
    store.signing_key()
    (store.folder / "signing_key.pem").chmod(0o644)
    with pytest.raises(TrustError, match="chmod 600"):
        store.signing_key()


def test_broken_key_and_wrong_public_key_are_refused(store: TrustStore) -> None:
    store.signing_key()
    (store.folder / "signing_key.pem").write_bytes(b"nonsense")
    with pytest.raises(TrustError, match="must hold a private key"):
        store.signing_key()
    with pytest.raises(TrustError, match="32 raw bytes"):
        store.trust(b"short", ("self",), "")
    with pytest.raises(TrustError, match="kinds must be of"):
        store.trust(bytes(32), ("anyone",), "")


def test_release_keys_vouch_for_synthetic_faces_alone() -> None:
    assert release_keys()
    assert {key.kinds for key in release_keys().values()} == {("synthetic",)}


def test_release_keys_stay_limited_when_the_folder_is_empty(store: TrustStore) -> None:
    assert store.read().keys == release_keys()


def test_folder_is_named_by_the_environment(tmp_path: Path) -> None:
    assert trust_folder({"UNDERSTUDY_HOME": str(tmp_path)}) == tmp_path
    assert trust_folder({}) == Path.home() / ".understudy"


def test_shipped_personas_are_covered_on_a_machine_that_trusts_the_release_alone(store: TrustStore) -> None:
    if not (default_bundle() / "manifest.json").is_file():
        pytest.skip("the default bundle is not in this checkout")
    for info in Bundle.load(default_bundle()).personas:
        persona = Persona.of(info)
        assert persona.kind == "synthetic"
        for use in USES:
            assert persona.check(use, store.read()) == persona.consent.digest


def test_watch_fails_closed_on_what_nobody_foresaw_and_goes_on(
    persona: Persona, store: TrustStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = ConsentWatch(persona, "live", store, every_s=0.0)
    with monkeypatch.context() as patch:
        patch.setattr(TrustStore, "read", lambda _: [][0])
        assert "could not be checked" in watch.problem()
    assert watch.problem() == ""


def test_revocations_and_keys_that_come_at_once_are_all_kept(store: TrustStore) -> None:
    """Six threads with a store of their own each, as six processes have."""
    digests = [f"{number:064x}" for number in range(30)]
    keys = [public_bytes(Ed25519PrivateKey.generate()) for _ in range(6)]

    def revoke(number: int) -> None:
        own = TrustStore(store.folder)
        own.trust(keys[number], KINDS, "at once")
        for digest in digests[number::6]:
            own.revoke(digest, NOW, "at once")

    threads = [threading.Thread(target=revoke, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    trust = store.read()
    assert trust.revoked == set(digests)
    assert {key_id(key) for key in keys} <= trust.keys.keys()
