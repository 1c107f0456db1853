"""A real, tiny bundle: small convolutions with fixed random weights, made by onnx.helper. Used by many tests."""

from pathlib import Path

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from understudy.bundle.bundle import write_manifest

INPUT_SIZE = 32
OUTPUT_SIZE = 64
PERSONAS = {"ada": "Ada", "ben": "Ben"}


def build_tiny_bundle(
    directory: Path,
    input_size: int = INPUT_SIZE,
    output_size: int = OUTPUT_SIZE,
    personas: dict[str, str] | None = None,
) -> Path:
    """Write a bundle whose decoders paint a persona's own flat colour, textured by the driver, over an elliptic mask.

    Args:
        directory: made where missing.
        input_size: S, a multiple of 4.
        output_size: R, a multiple of S / 4.
        personas: name -> title; `PERSONAS` where not given.

    Returns:
        `directory`.
    """
    named = PERSONAS if personas is None else personas
    directory.mkdir(parents=True, exist_ok=True)
    onnx.save(encoder_graph(input_size), directory / "encoder.onnx")
    for seed, name in enumerate(named):
        folder = directory / name
        folder.mkdir(exist_ok=True)
        onnx.save(decoder_graph(input_size, output_size, seed), folder / "decoder.onnx")
        still = np.empty((256, 256, 3), np.uint8)
        still[:] = persona_colour(seed)
        cv2.imwrite(str(folder / "thumbnail.jpg"), cv2.resize(still, (96, 96)))
        cv2.imwrite(str(folder / "still.png"), still)
        np.save(folder / "mesh.npy", np.random.default_rng(seed).random((468, 3), np.float32) * 256)
        (folder / "consent.json").write_text('{"kind": "synthetic", "recipe": "benchmarks/harness/tiny_bundle.py"}\n')
    (directory / "model_card.md").write_text("# Tiny\nRandom weights, for tests.\n")
    write_manifest(
        directory,
        name="tiny",
        version="1",
        personas=named,
        input_shape=(input_size, input_size, 3),
        output_shape=(output_size, output_size, 4),
        licence="CC0-1.0",
        training={"recipe": "none", "iterations": 0},
        created="2026-11-23T00:00:00+00:00",
    )
    return directory


def persona_colour(seed: int) -> tuple[int, int, int]:
    """The BGR colour that the decoder of that seed paints, within its texture."""
    return [(200, 60, 60), (60, 60, 200), (60, 200, 60), (190, 190, 40)][seed % 4]


def encoder_graph(size: int) -> onnx.ModelProto:
    """Face [N, S, S, 3] -> latent [N, S/4, S/4, 8]: two strided convolutions."""
    rng = np.random.default_rng(7)
    weights = [
        _constant("w1", (rng.standard_normal((8, 3, 3, 3)) * 0.3).astype(np.float32)),
        _constant("w2", (rng.standard_normal((8, 8, 3, 3)) * 0.15).astype(np.float32)),
    ]
    nodes = [
        helper.make_node("Transpose", ["face"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w1"], ["c1"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["c2"], ["latent"], perm=[0, 2, 3, 1]),
    ]
    side = size // 4
    return _model(nodes, weights, ("face", [None, size, size, 3]), ("latent", [None, side, side, 8]))


def decoder_graph(input_size: int, output_size: int, seed: int) -> onnx.ModelProto:
    """Latent [N, S/4, S/4, 8] -> swap [N, R, R, 4]: a sub-pixel convolution, a flat colour, an elliptic mask."""
    rng = np.random.default_rng(seed)
    side, up = input_size // 4, 4 * output_size // input_size
    ys, xs = np.mgrid[0:output_size, 0:output_size] / (output_size - 1) * 2 - 1
    mask = ((xs / 0.75) ** 2 + (ys / 0.9) ** 2 < 1).astype(np.float32)[None, ..., None]
    weights = [
        _constant("w", (rng.standard_normal((3 * up * up, 8, 1, 1)) * 0.05).astype(np.float32)),
        _constant("colour", np.array(persona_colour(seed), np.float32) / np.float32(255)),
        _constant("mask", mask),
        _constant("zero", np.zeros(1, np.float32)),
    ]
    nodes = [
        helper.make_node("Transpose", ["latent"], ["x"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("DepthToSpace", ["c"], ["d"], blocksize=up, mode="CRD"),
        helper.make_node("Transpose", ["d"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Add", ["t", "colour"], ["rgb"]),
        helper.make_node("ReduceMean", ["t"], ["m"], axes=[3], keepdims=1),
        helper.make_node("Mul", ["m", "zero"], ["m0"]),
        helper.make_node("Add", ["m0", "mask"], ["alpha"]),
        helper.make_node("Concat", ["rgb", "alpha"], ["swap"], axis=3),
    ]
    return _model(nodes, weights, ("latent", [None, side, side, 8]), ("swap", [None, output_size, output_size, 4]))


def _constant(name: str, value: NDArray[np.float32]) -> TensorProto:
    return numpy_helper.from_array(np.asarray(value, np.float32), name)


def _model(
    nodes: list[onnx.NodeProto],
    weights: list[TensorProto],
    source: tuple[str, list[int | None]],
    result: tuple[str, list[int | None]],
) -> onnx.ModelProto:
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N" if d is None else d for d in shape])
        for name, shape in (source, result)
    ]
    graph = helper.make_graph(nodes, "tiny", [ports[0]], [ports[1]], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
