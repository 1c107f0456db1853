"""A bundle is verified before use: what is damaged, unknown or unsafe is refused with a sentence."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.harness.tiny_bundle import (
    INPUT_SIZE,
    OUTPUT_SIZE,
    PERSONAS,
    build_tiny_bundle,
    decoder_graph,
    persona_colour,
)
from liveframe.errors import FrameError, ModelError
from liveframe.model import BatchModel
from understudy.bundle.bundle import Bundle, BundleError, write_manifest
from understudy.bundle.manifest import check_member_name


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def directory(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))


def crops(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, INPUT_SIZE, INPUT_SIZE, 3), dtype=np.uint8)


def edit_manifest(directory: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = directory / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def rehash(directory: Path) -> None:
    """Make the manifest agree with the files again, so that a later check has to refuse them."""
    write_manifest(
        directory,
        name="tiny",
        version="1",
        personas=PERSONAS,
        input_shape=(INPUT_SIZE, INPUT_SIZE, 3),
        output_shape=(OUTPUT_SIZE, OUTPUT_SIZE, 4),
        licence="CC0-1.0",
    )


def test_loaded_bundle_lists_its_personas_with_existing_files(pristine: Path) -> None:
    bundle = Bundle.load(pristine)
    assert [(p.name, p.title) for p in bundle.personas] == [("ada", "Ada"), ("ben", "Ben")]
    assert all(p.thumbnail.is_file() and p.still.is_file() and p.mesh.is_file() for p in bundle.personas)
    assert bundle.manifest.output_shape == (OUTPUT_SIZE, OUTPUT_SIZE, 4)


def test_swap_model_answers_uint8_in_its_own_output_size(pristine: Path) -> None:
    model = Bundle.load(pristine).swap_model("ada")
    assert isinstance(model, BatchModel)
    swap = model.predict(crops(3))
    assert swap.shape == (3, OUTPUT_SIZE, OUTPUT_SIZE, 4)
    assert swap.dtype == np.uint8
    assert swap[0, OUTPUT_SIZE // 2, OUTPUT_SIZE // 2, 3] == 255
    assert swap[0, 0, 0, 3] == 0
    np.testing.assert_allclose(swap[..., :3].mean((0, 1, 2)), persona_colour(0), atol=12)


def test_one_by_one_equals_batch(pristine: Path) -> None:
    model = Bundle.load(pristine).swap_model("ben")
    batch = crops(4)
    singles = np.concatenate([model.predict(batch[i : i + 1]) for i in range(4)])
    assert np.abs(singles.astype(int) - model.predict(batch)).max() <= 1


def test_personas_share_the_encoder_and_keep_their_decoders(pristine: Path) -> None:
    bundle = Bundle.load(pristine)
    ada, ben = bundle.swap_model("ada"), bundle.swap_model("ben")
    assert bundle.swap_model("ada")._decoder is ada._decoder  # type: ignore[attr-defined]
    assert ada._encoder is ben._encoder  # type: ignore[attr-defined]
    assert np.abs(ada.predict(crops(1)).astype(int) - ben.predict(crops(1))).mean() > 20


def test_threads_that_load_at_once_get_one_session(pristine: Path) -> None:
    bundle = Bundle.load(pristine)
    models: list[Any] = []
    threads = [threading.Thread(target=lambda: models.append(bundle.swap_model("ada"))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len({id(model._decoder) for model in models}) == 1
    assert len(models) == 4


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 16, 16, 3), np.uint8),
        np.zeros((1, INPUT_SIZE, INPUT_SIZE, 3), np.float32),
        np.zeros((INPUT_SIZE, INPUT_SIZE, 3), np.uint8),
        np.zeros((0, INPUT_SIZE, INPUT_SIZE, 3), np.uint8),
        np.zeros((17, INPUT_SIZE, INPUT_SIZE, 3), np.uint8),
    ],
)
def test_wrong_batch_is_refused(pristine: Path, batch: np.ndarray) -> None:
    model = Bundle.load(pristine).swap_model("ada")
    with pytest.raises(FrameError, match="batch must be uint8"):
        model.predict(batch)


def test_answer_with_nan_is_an_error_not_a_picture(directory: Path) -> None:
    graph = decoder_graph(INPUT_SIZE, OUTPUT_SIZE, 0)
    colour = next(t for t in graph.graph.initializer if t.name == "colour")
    colour.CopyFrom(onnx.numpy_helper.from_array(np.full(3, np.nan, np.float32), "colour"))
    onnx.save(graph, directory / "ada" / "decoder.onnx")
    rehash(directory)
    with pytest.raises(ModelError, match="NaN"):
        Bundle.load(directory).swap_model("ada").predict(crops(1))


def test_unknown_persona_is_named_with_the_known_ones(pristine: Path) -> None:
    with pytest.raises(BundleError, match="ada, ben"):
        Bundle.load(pristine).swap_model("zoe")


def test_flipped_byte_is_refused(directory: Path) -> None:
    path = directory / "ada" / "decoder.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match="hashed"):
        Bundle.load(directory)


def test_file_exchanged_after_loading_is_refused_when_its_network_is_built(directory: Path) -> None:
    bundle = Bundle.load(directory)
    shutil.copy(directory / "ben" / "decoder.onnx", directory / "ada" / "decoder.onnx")
    with pytest.raises(BundleError, match="hashed"):
        bundle.swap_model("ada")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda m: m.update(schema=2), "schema must be 1"),
        (lambda m: m.update(schema=True), "schema must be 1"),
        (lambda m: m.update(factory="os.system"), "understudy.swap"),
        (lambda m: m.update(colour="RGB"), "BGR"),
        (lambda m: m.update(input=[128, 64, 3]), "'input'"),
        (lambda m: m.update(output=[100000, 100000, 4]), "'output'"),
        (lambda m: m.update(personas=[]), "1 to 64 personas"),
        (lambda m: m["personas"].append(dict(m["personas"][0])), "distinct"),
        (lambda m: m["personas"][0].update(name="../ada"), "lower-case"),
        (lambda m: m["personas"][0].update(decoder="../decoder.onnx"), r"'\.\.'"),
        (lambda m: m["personas"][0].update(decoder="other.onnx"), "not listed"),
        (lambda m: m.update(encoder="C:\\encoder.onnx"), "forward slashes"),
        (lambda m: m["files"].update({"/etc/passwd": {"sha256": "0" * 64, "bytes": 1}}), "relative"),
        (lambda m: m["files"].update({"big.bin": {"sha256": "0" * 64, "bytes": 1 << 40}}), "Refused"),
        (lambda m: m["files"]["encoder.onnx"].update(sha256="0" * 63), "SHA-256"),
        (lambda m: m["files"].pop("model_card.md"), "model_card.md"),
        (lambda m: m["files"].update({"absent.txt": {"sha256": "0" * 64, "bytes": 1}}), "absent.txt"),
        (lambda m: m["files"]["encoder.onnx"].update(bytes=1), "sizes"),
        (lambda m: m.pop("licence"), "'licence'"),
        (lambda m: m.update(training=[1]), "training"),
    ],
)
def test_manifest_that_breaks_a_rule_is_refused(
    directory: Path, change: Callable[[dict[str, Any]], object], sentence: str
) -> None:
    edit_manifest(directory, change)
    with pytest.raises(BundleError, match=sentence):
        Bundle.load(directory)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"[" * 100_000, b'{"schema":1}' + b" " * (1 << 20)])
def test_manifest_that_is_no_manifest_is_refused(directory: Path, text: bytes) -> None:
    (directory / "manifest.json").write_bytes(text)
    with pytest.raises(BundleError):
        Bundle.load(directory)


def test_extra_file_is_refused(directory: Path) -> None:
    (directory / "ada" / "__init__.py").write_text("print('hello')")
    with pytest.raises(BundleError, match="__init__"):
        Bundle.load(directory)


def test_link_out_of_the_bundle_is_refused(directory: Path, tmp_path: Path) -> None:
    card = directory / "model_card.md"
    shutil.move(card, tmp_path / "card.md")
    card.symlink_to(tmp_path / "card.md")
    with pytest.raises(BundleError, match="plain files"):
        Bundle.load(directory)


def test_missing_path_and_directory_without_manifest_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="does not exist"):
        Bundle.load(tmp_path / "nowhere")
    with pytest.raises(BundleError, match="manifest"):
        Bundle.load(tmp_path)


def test_graph_with_external_data_is_refused(directory: Path) -> None:
    graph = decoder_graph(INPUT_SIZE, OUTPUT_SIZE, 0)
    tensor = graph.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    (directory / "ada" / "decoder.onnx").write_bytes(graph.SerializeToString())
    rehash(directory)
    with pytest.raises(BundleError, match="external data"):
        Bundle.load(directory)


def test_graph_with_a_foreign_operator_is_refused_even_when_nested(directory: Path) -> None:
    graph = decoder_graph(INPUT_SIZE, OUTPUT_SIZE, 0)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    evil = helper.make_node("Run", ["latent"], ["y"], domain="com.evil")
    branch = helper.make_graph([evil], "branch", [], [out])
    graph.graph.node.append(helper.make_node("If", ["zero"], ["z"], then_branch=branch, else_branch=branch))
    (directory / "ada" / "decoder.onnx").write_bytes(graph.SerializeToString())
    rehash(directory)
    with pytest.raises(BundleError, match=r"com\.evil"):
        Bundle.load(directory)


def test_graph_with_an_oversized_tensor_is_refused(directory: Path) -> None:
    graph = decoder_graph(INPUT_SIZE, OUTPUT_SIZE, 0)
    graph.graph.initializer.append(TensorProto(name="huge", dims=[1 << 20, 1 << 20], data_type=TensorProto.FLOAT))
    (directory / "ada" / "decoder.onnx").write_bytes(graph.SerializeToString())
    rehash(directory)
    with pytest.raises(BundleError, match="huge"):
        Bundle.load(directory)


def test_file_that_is_no_graph_is_refused(directory: Path) -> None:
    (directory / "encoder.onnx").write_bytes(b"\xff not onnx")
    rehash(directory)
    with pytest.raises(BundleError, match=r"encoder\.onnx must be an ONNX model"):
        Bundle.load(directory)


def test_graph_of_another_size_than_the_manifest_says_is_refused(directory: Path) -> None:
    (directory / "ada" / "decoder.onnx").write_bytes(decoder_graph(INPUT_SIZE, OUTPUT_SIZE // 2, 0).SerializeToString())
    rehash(directory)
    with pytest.raises(BundleError, match="'swap'"):
        Bundle.load(directory).swap_model("ada")


@pytest.mark.parametrize("name", ["", "/a", "a/../b", "..", "./a", "a//b", "a\\b", "C:a", "a\x00b", "a/", "x" * 300])
def test_unsafe_member_name_is_refused(name: str) -> None:
    with pytest.raises(BundleError):
        check_member_name(name)


def test_manifest_is_not_written_for_a_bundle_that_could_not_be_loaded(directory: Path) -> None:
    before = (directory / "manifest.json").read_bytes()
    (directory / "ada" / "still.png").unlink()
    with pytest.raises(BundleError, match="still"):
        rehash(directory)
    assert (directory / "manifest.json").read_bytes() == before
