"""A use is covered by a signed record, or refused with a code and a sentence."""

import contextlib
import copy
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.consent.check import (
    Consent,
    ConsentError,
    ConsentFault,
    ConsentRecord,
    check,
    check_same_person,
    hash_files,
    main,
    read_record,
    sign,
    synthetic_record,
    write_record,
)
from understudy.consent.trust_store import KINDS, Trust, TrustedKey, key_id, public_bytes

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FACES = ("0" * 63 + "1", "0" * 63 + "2")


def trust_in(key: Ed25519PrivateKey, *kinds: str, revoked: frozenset[str] = frozenset()) -> Trust:
    """Trust one key for some kinds (all when none is named)."""
    public = public_bytes(key)
    return Trust({key_id(public): TrustedKey(public, kinds or KINDS)}, revoked)


def consent(**changes: Any) -> Consent:
    """A person's consent to live use for a year."""
    fields: dict[str, Any] = {
        "persona": "ann",
        "kind": "person",
        "subject": "Ann Example",
        "statement": "I agree that a face model of me is used live.",
        "uses": ("train", "live"),
        "not_before": NOW,
        "not_after": NOW + timedelta(days=365),
        "reference": FACES,
        "recipe": {},
        "evidence": {"method": "form", "sha256": "0" * 64},
    }
    return Consent(**(fields | changes))


RECORD = sign(consent(), KEY)


def test_covered_use_gives_the_digest() -> None:
    assert check(RECORD, "live", trust_in(KEY), now=NOW, faces=FACES, persona="ann") == RECORD.digest
    assert len(RECORD.digest) == 64


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (ConsentFault.USE_NOT_GRANTED, {"use": "record"}),
        (ConsentFault.EXPIRED, {"now": NOW + timedelta(days=366)}),
        (ConsentFault.NOT_YET, {"now": NOW - timedelta(hours=1)}),
        (ConsentFault.REVOKED, {"trust": trust_in(KEY, revoked=frozenset({RECORD.digest}))}),
        (ConsentFault.UNKNOWN_KEY, {"trust": Trust()}),
        (ConsentFault.UNKNOWN_KEY, {"trust": trust_in(KEY, "synthetic")}),
        (ConsentFault.FACE_NOT_LISTED, {"faces": [*FACES, "f" * 64]}),
        (ConsentFault.OTHER_PERSONA, {"persona": "bob"}),
    ],
)
def test_uncovered_use_is_refused_with_its_code(code: ConsentFault, arguments: dict[str, Any]) -> None:
    asked = {"use": "live", "trust": trust_in(KEY), "now": NOW} | arguments
    with pytest.raises(ConsentError) as caught:
        check(RECORD, asked.pop("use"), asked.pop("trust"), **asked)
    assert caught.value.code is code
    assert "'ann'" in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_clock_four_minutes_slow_is_forgiven() -> None:
    assert check(RECORD, "live", trust_in(KEY), now=NOW - timedelta(minutes=4))


@pytest.mark.parametrize(
    "edit",
    [
        lambda body: body.update(uses=["train", "live", "record"]),
        lambda body: body.update(not_after="2099-01-01T00:00:00+00:00"),
        lambda body: body.update(persona="bob"),
        lambda body: body.update(kind="self"),
        lambda body: body.update(reference=sorted([*FACES, "e" * 64])),
        lambda body: body.update(evidence={"method": "none"}),
    ],
)
def test_every_edit_breaks_the_signature(edit: Callable[[dict[str, Any]], None]) -> None:
    content = copy.deepcopy(RECORD.to_json())
    edit(content["consent"])
    with pytest.raises(ConsentError) as caught:
        check(ConsentRecord.from_json(content), "live", trust_in(KEY), now=NOW)
    assert caught.value.code is ConsentFault.EDITED


def test_resigning_with_another_key_does_not_help() -> None:
    stolen = sign(consent(uses=("train", "live", "record")), Ed25519PrivateKey.generate())
    with pytest.raises(ConsentError) as caught:
        check(stolen, "record", trust_in(KEY), now=NOW)
    assert caught.value.code is ConsentFault.UNKNOWN_KEY


@pytest.mark.parametrize(
    "edit",
    [
        lambda whole: whole.update(extra=1),
        lambda whole: whole["consent"].update(extra=1),
        lambda whole: whole["consent"].update(schema=True),
        lambda whole: whole["consent"].update(not_before="2026-11-23T12:00:00Z"),
        lambda whole: whole["consent"].update(not_before="2026-11-23T12:00:00"),
        lambda whole: whole["consent"].update(uses=["broadcast"]),
        lambda whole: whole["consent"].update(uses="live"),
        lambda whole: whole["consent"].update(reference=[]),
        lambda whole: whole["consent"].update(reference=list(reversed(FACES))),
        lambda whole: whole["consent"].update(kind="synthetic"),
        lambda whole: whole["consent"].update(persona=7),
        lambda whole: whole["signature"].update(value="AAAA"),
        lambda whole: whole.pop("signature"),
    ],
)
def test_malformed_records_are_refused_before_any_key_is_asked(edit: Callable[[dict[str, Any]], None]) -> None:
    content = copy.deepcopy(RECORD.to_json())
    edit(content)
    with pytest.raises(ConsentError) as caught:
        ConsentRecord.from_json(content)
    assert caught.value.code is ConsentFault.MALFORMED


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(field=st.sampled_from(sorted(RECORD.body())), value=JSON_VALUES)
def test_any_value_in_any_field_is_refused_or_changes_nothing(field: str, value: object) -> None:
    content = copy.deepcopy(RECORD.to_json())
    content["consent"][field] = value
    digest = RECORD.digest
    with contextlib.suppress(ConsentError):  # refused or unharmed: anything else is a fault
        digest = check(ConsentRecord.from_json(content), "live", trust_in(KEY), now=NOW)
    assert digest == RECORD.digest


def test_record_survives_its_file(tmp_path: Path) -> None:
    write_record(tmp_path / "consent.json", RECORD)
    assert read_record(tmp_path / "consent.json") == RECORD
    with pytest.raises(ConsentError, match=r"understudy\.consent make"):
        read_record(tmp_path / "none.json")
    (tmp_path / "deep.json").write_text("[" * 200_000)
    with pytest.raises(ConsentError, match="not JSON"):
        read_record(tmp_path / "deep.json")


def test_synthetic_record_carries_its_recipe_and_its_still(tmp_path: Path) -> None:
    still = tmp_path / "still.png"
    still.write_bytes(b"pixels")
    recipe = {"method": "composite", "count": 60, "seed": 7}
    record = ConsentRecord.from_json(json.loads(json.dumps(synthetic_record("ada", recipe, [still], KEY, NOW))))
    assert record.consent.recipe == recipe
    trust = trust_in(KEY, "synthetic")
    assert check(record, "record", trust, now=NOW, faces=hash_files([still]), persona="ada") == record.digest
    still.write_bytes(b"other pixels")
    with pytest.raises(ConsentError) as caught:
        check(record, "record", trust, now=NOW, faces=hash_files([still]))
    assert caught.value.code is ConsentFault.FACE_NOT_LISTED


def test_faceset_of_another_person_is_refused() -> None:
    random = np.random.default_rng(0)
    ann, bob = random.normal(size=(2, 16))
    near_ann = [ann + 0.05 * random.normal(size=16) for _ in range(10)]

    def compare(faces: list[np.ndarray]) -> float:
        return check_same_person(
            [ann], faces, embed=lambda face: face, distance=lambda a, b: float(np.linalg.norm(a - b)), same_person=1.0
        )

    assert compare(near_ann) == 1.0
    assert compare([*near_ann[:9], bob]) == pytest.approx(0.9)
    with pytest.raises(ConsentError, match="in 80%") as caught:
        compare([*near_ann[:8], bob, bob])
    assert caught.value.code is ConsentFault.OTHER_PERSON
    with pytest.raises(ConsentError, match="must show a face"):
        compare([])


def test_command_makes_checks_and_revokes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    photo, form, out = tmp_path / "ann.jpg", tmp_path / "form.pdf", tmp_path / "consent.json"
    photo.write_bytes(b"photo")
    form.write_bytes(b"signed form")
    words = ["--persona", "ann", "--kind", "person", "--subject", "Ann", "--statement", "I agree.", "--use", "live"]
    assert main(["make", *words, "--evidence", str(form), "--out", str(out), "--files", str(photo)]) == 0
    assert main(["check", str(out), "--use", "live", "--files", str(photo)]) == 0
    assert main(["check", str(out), "--use", "record"]) == 2
    assert "must grant 'record', but grants live" in capsys.readouterr().err
    assert main(["revoke", str(out), "--reason", "asked by mail"]) == 0
    assert main(["check", str(out), "--use", "live"]) == 2
    assert "was revoked here" in capsys.readouterr().err


def test_command_trusts_another_machines_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "theirs"))
    assert main(["key"]) == 0
    public_key = capsys.readouterr().out.strip()
    out = tmp_path / "consent.json"
    photo = tmp_path / "ann.jpg"
    photo.write_bytes(b"photo")
    words = ["--persona", "ann", "--kind", "self", "--subject", "Ann", "--statement", "Me.", "--use", "live"]
    assert main(["make", *words, "--evidence", str(photo), "--out", str(out), "--files", str(photo)]) == 0
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "ours"))
    assert main(["check", str(out), "--use", "live"]) == 2
    assert "not trusted here" in capsys.readouterr().err
    assert main(["trust", public_key, "--kind", "self", "--note", "Ann's laptop, read to me by her"]) == 0
    assert main(["check", str(out), "--use", "live"]) == 0
