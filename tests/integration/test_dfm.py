"""Personas leave as .dfm files that ONNX Runtime runs as DeepFaceLive does, and .dfm files come in as bundles."""

import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.harness.consented_bundle import build_consented_bundle
from benchmarks.harness.tiny_bundle import INPUT_SIZE, OUTPUT_SIZE
from training import dfm
from understudy.bundle.bundle import Bundle, BundleError
from understudy.bundle.dfm import export_dfm, load_dfm, read_dfm
from understudy.consent.check import synthetic_record
from understudy.consent.trust_store import TrustStore

PORTS = ["out_face_mask:0", "out_celeb_face:0", "out_celeb_face_mask:0"]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def bundle(tmp_path: Path, home: Path) -> Bundle:
    return Bundle.load(build_consented_bundle(tmp_path / "bundle", {"ada": "Ada", "ben": "Ben"}, home))


def faces(side: int, count: int = 2) -> NDArray[np.uint8]:
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (count, side // 8, side // 8, 3), np.uint8)
    return np.stack([cv2.resize(face, (side, side)) for face in coarse]).astype(np.uint8)


def foreign(
    path: Path, side: int = 64, *, has_morph: bool = False, batch: str | int = "unk__1", opset: int = 12
) -> Path:
    """Write a graph as DeepFaceLab's exporter would name it: it gives the face back, and a ramp as mask."""
    ramp = np.linspace(0, 1, side, dtype=np.float32).reshape(1, side, 1, 1) * np.ones((1, 1, side, 1), np.float32)
    nodes = [
        helper.make_node("ReduceMean", ["in_face:0"], ["swap"], axes=[3], keepdims=1),
        helper.make_node("Mul", ["swap", "zero"], ["nothing"]),
        helper.make_node("Add", ["nothing", "ramp"], ["out_celeb_face_mask:0"]),
        helper.make_node("Add", ["nothing", "one"], ["out_face_mask:0"]),
        helper.make_node(
            "Mul" if has_morph else "Identity", ["in_face:0", *(["morph_value:0"] * has_morph)], [PORTS[1]]
        ),
    ]
    constants = [("zero", np.zeros(1, np.float32)), ("one", np.ones(1, np.float32)), ("ramp", ramp)]
    port = helper.make_tensor_value_info
    inputs = [port("in_face:0", TensorProto.FLOAT, [batch, side, side, 3])]
    inputs += [port("morph_value:0", TensorProto.FLOAT, [1])] * has_morph
    outputs = [port(name, TensorProto.FLOAT, [batch, side, side, c]) for name, c in zip(PORTS, (1, 3, 1), strict=True)]
    weights = [numpy_helper.from_array(value, name) for name, value in constants]
    graph = helper.make_graph(nodes, "SAEHD", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7), path)
    return path


def test_an_exported_graph_is_what_deepfacelive_asks_for(bundle: Bundle) -> None:
    session = onnxruntime.InferenceSession(export_dfm(bundle, "ada", {}), providers=["CPUExecutionProvider"])
    (port,) = session.get_inputs()
    assert port.name == "in_face:0" and list(port.shape[1:]) == [OUTPUT_SIZE, OUTPUT_SIZE, 3]
    assert [output.name for output in session.get_outputs()] == PORTS
    face = np.zeros((3, OUTPUT_SIZE, OUTPUT_SIZE, 3), np.float32)
    shapes = [answer.shape for answer in session.run(None, {"in_face:0": face})]
    assert shapes == [(3, OUTPUT_SIZE, OUTPUT_SIZE, channels) for channels in (1, 3, 1)]


def test_an_exported_graph_answers_as_the_bundle_does(bundle: Bundle) -> None:
    large = faces(OUTPUT_SIZE)
    session = onnxruntime.InferenceSession(export_dfm(bundle, "ben", {}), providers=["CPUExecutionProvider"])
    face_mask, face, mask = session.run(None, {"in_face:0": large.astype(np.float32) / 255})
    small = np.stack([cv2.resize(f, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_AREA) for f in large])
    swap = bundle.swap_model("ben").predict(small).astype(np.float32) / 255
    # Half a level is lost where cv2 rounds the shrunk face to bytes, half where the answer becomes bytes.
    assert np.abs(np.clip(face, 0, 1) - swap[..., :3]).max() < 1.6 / 255
    assert np.abs(mask - swap[..., 3:]).max() < 0.6 / 255 and np.array_equal(mask, face_mask)
    assert swap[..., 3].min() == 0 and swap[..., 3].max() == 1


def test_a_persona_survives_the_way_out_and_in(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "ada.dfm"
    path.write_bytes(export_dfm(bundle, "ada", {}))
    model = load_dfm(path)
    assert model.spec.input_shape == (OUTPUT_SIZE, OUTPUT_SIZE, 3), "ours is not reframed"
    # Shrinking these gives back the very bytes that the bundle gets.
    small = faces(INPUT_SIZE)
    large = small.repeat(OUTPUT_SIZE // INPUT_SIZE, axis=1).repeat(OUTPUT_SIZE // INPUT_SIZE, axis=2)
    back = model.predict(large)
    # Random weights may fall below black, which a .dfm cuts off.
    assert np.array_equal(back[back > 0], bundle.swap_model("ada").predict(small)[back > 0]) and (back > 0).mean() > 0.7


def test_a_model_of_whole_faces_is_reframed_to_our_crop(tmp_path: Path) -> None:
    model = load_dfm(foreign(tmp_path / "kim.dfm", side=220))
    side = model.spec.input_shape[0]
    assert side == 170, "1.7 of 2.2"
    given = faces(176)[:, :side, :side]
    answer = model.predict(given)
    assert np.array_equal(answer[..., :3], given), "what it gives back lies where it was taken from"
    # Its rows run from 0 to 1 over 220 px; ours begin 25 px and 0.08 of DeepFaceLive's square (100 px) further down.
    expected = np.linspace(0, 255, 220)[33 : 33 + side]
    assert np.abs(answer[0, :, 0, 3] - expected).max() <= 1


def test_a_morph_value_is_always_given(tmp_path: Path) -> None:
    path = foreign(tmp_path / "amp.dfm", has_morph=True)
    white = np.full((1, *load_dfm(path).spec.input_shape), 255, np.uint8)
    assert load_dfm(path, morph=0.5).predict(white)[..., :3].max() == 128
    assert load_dfm(path).predict(white)[..., :3].max() == 191


def test_other_graphs_are_refused_with_the_reason(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="there is none"):
        read_dfm(tmp_path / "none.dfm")
    with pytest.raises(BundleError, match=r"must take in_face:0 .* but takes \{'face'"):
        read_dfm(bundle.path / "encoder.onnx")
    with pytest.raises(BundleError, match="any number of faces, but takes 1"):
        read_dfm(foreign(tmp_path / "one.dfm", batch=1))
    with pytest.raises(BundleError, match="opset 11 or later, but has 9"):
        read_dfm(foreign(tmp_path / "old.dfm", opset=9))
    (tmp_path / "text.dfm").write_text("not a graph at all")
    with pytest.raises(BundleError, match=r"text\.dfm must be an ONNX model"):
        read_dfm(tmp_path / "text.dfm")
    with pytest.raises(BundleError, match=r"coverage must be 1\.7 or more"):
        read_dfm(foreign(tmp_path / "tight.dfm"), coverage=1.2)


def test_a_graph_that_reaches_outside_its_file_is_refused(tmp_path: Path) -> None:
    model = onnx.load(foreign(tmp_path / "kim.dfm"))
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    model.graph.initializer[0].external_data.add(key="location", value="/etc/passwd")
    (tmp_path / "kim.dfm").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError, match="external data"):
        load_dfm(tmp_path / "kim.dfm")


def test_the_command_exports_with_the_consent_records_digest(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out" / "ada.dfm"
    assert dfm.main([str(bundle.path), "--persona", "ada", "--out", str(out)]) == 0
    facts = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert facts["persona"] == "Ada" and facts["bundle"] == bundle.digest and len(facts["consent"]) == 64
    assert [path.name for path in out.parent.iterdir()] == ["ada.dfm"]


def test_a_persona_without_valid_consent_is_not_exported(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("UNDERSTUDY_HOME", str(tmp_path / "another machine"))
    out = tmp_path / "ada.dfm"
    assert dfm.main([str(bundle.path), "--persona", "ada", "--out", str(out)]) == 2
    assert "which is not trusted here" in capsys.readouterr().err and not out.exists()
    assert dfm.main([str(bundle.path), "--persona", "eve", "--out", str(out)]) == 2
    assert "must be one of ada, ben" in capsys.readouterr().err


def test_the_command_brings_a_dfm_in_as_a_bundle(
    home: Path, astronaut: NDArray[np.uint8], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, photo, out = foreign(tmp_path / "kim.dfm"), tmp_path / "kim.png", tmp_path / "kim"
    cv2.imwrite(str(photo), astronaut)
    command = [str(source), "--persona", "kim", "--photo", str(photo), "--out", str(out)]
    assert dfm.main(command) == 2
    assert "python -m understudy.consent make" in capsys.readouterr().err
    record = synthetic_record("kim", {"by": "a test"}, [tmp_path / "kim-still.png"], TrustStore(home).signing_key())
    (tmp_path / "consent.json").write_text(json.dumps(record))
    assert dfm.main([*command, "--consent", str(tmp_path / "consent.json")]) == 0
    bundle = Bundle.load(out)
    assert bundle.personas[0].title == "Kim" and not (tmp_path / "kim-still.png").exists()
    given = faces(64)[:, : bundle.manifest.input_shape[0], : bundle.manifest.input_shape[1]]
    assert np.array_equal(bundle.swap_model("kim").predict(given)[..., :3], given)


def test_a_persona_that_is_a_picture_cannot_become_a_dfm(tmp_path, capsys):
    from training.dfm import main
    from understudy.bundle.bundle import default_bundle

    assert main([str(default_bundle()), "--persona", "clara", "--out", str(tmp_path / "clara.dfm")]) != 0
    assert "classic recipe" in capsys.readouterr().err
