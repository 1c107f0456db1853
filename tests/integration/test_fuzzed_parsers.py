"""Whatever bytes come: a parser reads them or refuses them with its own error; nothing else happens.

The wire format, the media guard and the fields of a consent record are fuzzed in their own tests.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import build_tiny_bundle
from tests.unit.test_faceset import INFO, SIZE, make_face, write
from understudy.bundle.bundle import Bundle, BundleError, pack
from understudy.bundle.dfm import export_dfm, load_dfm
from understudy.bundle.graph_check import check_graph
from understudy.bundle.manifest import MANIFEST, parse_manifest
from understudy.consent.check import read_record
from understudy.consent.record import ConsentError
from understudy.consent.trust_store import TrustError, TrustStore
from understudy.faceset.entry import FaceEntry
from understudy.faceset.faceset import Faceset, FacesetError
from understudy.provenance.disclosure import DisclosureError, read_disclosure

fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.just("../x"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
# Where to damage (a share of the length), and what to put there; then how much of it all stays.
DAMAGE = st.tuples(
    st.lists(st.tuples(st.floats(0, 0.999), st.binary(max_size=8)), max_size=5), st.just(1.0) | st.floats(0, 1)
)


def damaged(content: bytes, damage: tuple[list[tuple[float, bytes]], float]) -> bytes:
    """Overwrite some places of a file, and cut its end off."""
    spots, kept = damage
    changed = bytearray(content)
    for share, patch in spots:
        start = int(share * len(changed))
        changed[start : start + len(patch)] = patch
    return bytes(changed[: round(kept * len(changed))])


def with_value(content: bytes, place: int, value: object) -> bytes:
    """Put a value in place of one of those that a JSON document holds."""
    document = json.loads(content)
    slots: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            slots.append((node, key))
            walk(node[key])

    walk(document)
    holder, key = slots[place % len(slots)]
    holder[key] = value
    return json.dumps(document).encode()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("fuzzed") / "tiny")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a signed record, and the trust folder of who signed it."""
    folder = tmp_path_factory.mktemp("site")
    build_consented_bundle(folder / "bundle", {"ada": "Ada"}, folder / "trust")
    TrustStore(folder / "trust").signing_key()
    return folder


def reads_or_refuses(read: Callable[[], object], error: type[Exception]) -> None:
    """Anything but the parser's own error fails the test; and that error is a sentence."""
    sentence = "This text stands for what was read, and so refused nothing."
    try:
        read()
    except error as refusal:
        sentence = str(refusal)
    assert len(sentence) > 20


# ---------------------------------------------------------------- bundles


@fuzz
@given(damage=DAMAGE)
def test_damaged_manifest_is_read_or_refused(bundle: Path, damage: tuple[Any, float]) -> None:
    content = damaged((bundle / MANIFEST).read_bytes(), damage)
    reads_or_refuses(lambda: parse_manifest(content), BundleError)


@fuzz
@given(place=st.integers(0, 10_000), value=JSON_VALUES)
@example(place=1, value=[])  # a factory without a hash was a TypeError
def test_manifest_with_any_value_anywhere_is_read_or_refused(bundle: Path, place: int, value: object) -> None:
    content = with_value((bundle / MANIFEST).read_bytes(), place, value)
    reads_or_refuses(lambda: parse_manifest(content), BundleError)


@fuzz
@given(damage=DAMAGE)
@example(damage=([(0.828125, b"\0")], 1.0))  # a deflated stream that is broken was a zlib.error
def test_damaged_archive_is_loaded_or_refused_and_leaves_nothing(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: tuple[Any, float]
) -> None:
    """Loaded only as what it was; and nothing is written outside the folder that goes with the bundle."""
    pristine = pack(bundle, tmp_path / "pristine.zip")
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(unpacked))
    archive = tmp_path / "damaged.zip"
    archive.write_bytes(damaged(pristine.read_bytes(), damage))
    digest = Bundle.load(bundle).digest
    reads_or_refuses(lambda: _same(Bundle.load(archive).digest, digest), BundleError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.zip", "pristine.zip", "unpacked"]
    assert list(unpacked.iterdir()) == []


def _same(one: str, other: str) -> None:
    assert one == other


@fuzz
@given(damage=DAMAGE)
def test_damaged_graph_is_accepted_or_refused(bundle: Path, damage: tuple[Any, float]) -> None:
    content = damaged((bundle / "encoder.onnx").read_bytes(), damage)
    reads_or_refuses(lambda: check_graph(content, "encoder.onnx"), BundleError)


@fuzz
@given(damage=DAMAGE)
@example(damage=([(0.03125, b"\x80")], 1.0))  # a name that is no UTF-8 was a TypeError
def test_damaged_dfm_is_loaded_or_refused(bundle: Path, tmp_path: Path, damage: tuple[Any, float]) -> None:
    pristine = export_dfm(Bundle.load(bundle), "ada", {})
    path = tmp_path / "model.dfm"
    path.write_bytes(damaged(pristine, damage))
    reads_or_refuses(lambda: load_dfm(path), BundleError)


@fuzz
@given(node=st.integers(0, 30), op=st.sampled_from(["If", "Loop", "Constant", "Resize", "Slice", "Reshape", "x"]))
def test_dfm_with_another_operator_anywhere_is_loaded_or_refused(
    bundle: Path, tmp_path: Path, node: int, op: str
) -> None:
    model = onnx.ModelProto.FromString(export_dfm(Bundle.load(bundle), "ada", {}))
    model.graph.node[node % len(model.graph.node)].op_type = op
    path = tmp_path / "model.dfm"
    path.write_bytes(model.SerializeToString())
    reads_or_refuses(lambda: load_dfm(path), BundleError)


# ---------------------------------------------------------------- consent, keys, marks


@fuzz
@given(damage=DAMAGE)
def test_damaged_record_is_read_or_refused(site: Path, tmp_path: Path, damage: tuple[Any, float]) -> None:
    path = tmp_path / "consent.json"
    path.write_bytes(damaged((site / "bundle" / "ada" / "consent.json").read_bytes(), damage))
    reads_or_refuses(lambda: read_record(path), ConsentError)


@fuzz
@given(damage=DAMAGE, name=st.sampled_from(["trusted_keys.json", "signing_key.pem", "revoked.json"]))
def test_damaged_trust_folder_is_read_or_refused(
    site: Path, tmp_path: Path, damage: tuple[Any, float], name: str
) -> None:
    pristine = site / "trust" / name
    content = pristine.read_bytes() if pristine.exists() else b'{"schema": 1, "records": {"%064d": {}}}' % 0
    path = tmp_path / name
    path.write_bytes(damaged(content, damage))
    path.chmod(0o600)
    store = TrustStore(tmp_path)
    reads_or_refuses(store.signing_key if name.endswith("pem") else store.read, TrustError)
    for left in tmp_path.iterdir():
        left.unlink()


@fuzz
@given(place=st.integers(0, 100), value=JSON_VALUES)
def test_trusted_keys_with_any_value_anywhere_are_read_or_refused(
    site: Path, tmp_path: Path, place: int, value: object
) -> None:
    content = (site / "trust" / "trusted_keys.json").read_bytes()
    (tmp_path / "trusted_keys.json").write_bytes(with_value(content, place, value))
    reads_or_refuses(TrustStore(tmp_path).read, TrustError)


@fuzz
@given(damage=DAMAGE)
def test_damaged_disclosure_is_read_or_refused(tmp_path: Path, damage: tuple[Any, float]) -> None:
    pristine = b'label = false\nwatermark = true\nsign = false\nreason = "Feature film, contract 2026-17."\n'
    (tmp_path / "disclosure.toml").write_bytes(damaged(pristine, damage))
    reads_or_refuses(lambda: read_disclosure(tmp_path), DisclosureError)


# ---------------------------------------------------------------- facesets


@fuzz
@given(place=st.integers(0, 500), value=JSON_VALUES)
def test_face_with_any_value_anywhere_is_read_or_refused(place: int, value: object) -> None:
    line = with_value(make_face(3)[0].to_line(SIZE).encode(), place, value)
    reads_or_refuses(lambda: FaceEntry.from_line(line, SIZE), ValueError)


@fuzz
@given(damage=DAMAGE, name=st.sampled_from(["faceset.json", "manifest.jsonl", "journal.jsonl"]))
def test_damaged_faceset_is_opened_or_refused(tmp_path: Path, damage: tuple[Any, float], name: str) -> None:
    root = tmp_path / "faces"
    if not root.exists():
        write(root, [make_face(frame) for frame in range(3)])
    pristine = (root / name).read_bytes()
    (root / name).write_bytes(damaged(pristine, damage))
    try:
        reads_or_refuses(lambda: Faceset.open(root), FacesetError)
    finally:
        (root / name).write_bytes(pristine)
    assert INFO.size == SIZE
