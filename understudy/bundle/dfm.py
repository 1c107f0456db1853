"""Swap models in the format that DeepFaceLive reads: `.dfm`, one ONNX graph from aligned face to swapped face.

    in_face:0              float32 [N, S, S, 3], BGR, 0 to 1
    morph_value:0          float32 [1], 0 to 1: how much of the persona's shape; some graphs have it, ours never
    out_face_mask:0        float32 [N, R, R, 1]: where the driver's face is
    out_celeb_face:0       float32 [N, R, R, 3], BGR: the persona
    out_celeb_face_mask:0  float32 [N, R, R, 1]: where the persona's face is

Players take S from the graph, and some paste the answer back at S; so ours have S = R, and shrink inside.
A player frames the face by itself: ours want it as understudy.vision.align frames it (`COVERAGE`, `Y_OFFSET`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from liveframe.model import BatchModel, BatchSpec
from understudy.bundle.bundle import MAX_BATCH, Bundle, BundleError, load_swap_model
from understudy.bundle.graph_check import check_graph
from understudy.vision.align import ALIGNMENT_VERSION

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto

IN_FACE, MORPH_VALUE = "in_face:0", "morph_value:0"
OUT_FACE_MASK, OUT_FACE, OUT_MASK = "out_face_mask:0", "out_celeb_face:0", "out_celeb_face_mask:0"

# How DeepFaceLive's face aligner must be set to frame faces as ours does (fitted on 25 points of the mean face).
COVERAGE, Y_OFFSET = 1.7, 0.08
# How it frames them unless told otherwise, and how most of its models were trained ("whole face").
WHOLE_FACE_COVERAGE = 2.2

MAX_DFM_BYTES = 1 << 30
_ALIGNMENT = "understudy_alignment"
_LEAST_OPSET = 11  # Pad and Slice take their places as inputs from here on


@dataclass(frozen=True, slots=True)
class SwapGraphs:
    """A bundle's two graphs, serialised, and the shapes between which they swap.

    Attributes:
        encoder: ONNX, face -> latent.
        decoder: ONNX, latent -> swap.
        spec: uint8 shapes of faces and swaps.
    """

    encoder: bytes
    decoder: bytes
    spec: BatchSpec


def export_dfm(bundle: Bundle, persona: str, facts: Mapping[str, str]) -> bytes:
    """Join a persona's encoder and decoder into one graph.

    Args:
        bundle: verified.
        persona: the name of one of its personas.
        facts: kept in the file's metadata, beside what the bundle says of itself.

    Returns:
        The `.dfm` file's content.

    Raises:
        BundleError: no such persona, or its graphs cannot be joined.
    """
    from onnx import ModelProto

    info, manifest = bundle.persona(persona), bundle.manifest
    if manifest.is_one_shot:
        raise BundleError(
            f"{persona} is painted from a picture, and a .dfm holds a network of its own. Train one by the classic "
            "recipe (training/configs/classic.toml) and export that bundle."
        )
    member = next(entry.decoder for entry in manifest.personas if entry.name == info.name)
    encoder = ModelProto.FromString(bundle.read(manifest.network))
    decoder = ModelProto.FromString(bundle.read(member))
    model = _joined(encoder, decoder, manifest.input_shape[0], manifest.output_shape[0])
    own = {"persona": info.title, "bundle": bundle.digest, "licence": manifest.licence}
    for key, value in {**facts, **own, _ALIGNMENT: str(ALIGNMENT_VERSION)}.items():
        model.metadata_props.add(key=key, value=value)
    content = model.SerializeToString()
    check_graph(content, f"{persona}.dfm")
    return content


def read_dfm(path: Path, coverage: float = WHOLE_FACE_COVERAGE, morph: float = 0.75) -> SwapGraphs:
    """Read a `.dfm` as the two graphs of a bundle: the first hands the face on, the second does the work.

    Models that frame the face more widely than ours get the missing rim mirrored in, and the rim of
    their answer is cut off; the crops that they take are smaller by as much.

    Args:
        path: a `.dfm` file.
        coverage: with which its faces were framed, in DeepFaceLive's measure; ours say it themselves.
        morph: the `morph_value` that it always gets, 0 to 1, where it takes one.

    Raises:
        BundleError: the file is missing, too large or unsafe, or not a graph with those names and shapes.
    """
    from onnx import ModelProto

    content = _read(path)
    check_graph(content, path.name)
    model = ModelProto.FromString(content)
    side = _check_ports(model, path.name)
    is_ours = any(entry.key == _ALIGNMENT for entry in model.metadata_props)
    crop = side if is_ours else _crop_side(side, coverage)
    decoder = _as_decoder(model, side, crop, morph)
    spec = BatchSpec((crop, crop, 3), (crop, crop, 4), MAX_BATCH)
    return SwapGraphs(_passed_on(crop).SerializeToString(), decoder.SerializeToString(), spec)


def load_dfm(path: Path, threads: int = 1, coverage: float = WHOLE_FACE_COVERAGE, morph: float = 0.75) -> BatchModel:
    """Load a `.dfm` as what a persona runs on: uint8 [N, S, S, 3] BGR crops -> uint8 [N, S, S, 4] BGR and mask.

    Args:
        path: a `.dfm` file.
        threads: cores that one call of `predict` uses.
        coverage: see `read_dfm`.
        morph: see `read_dfm`.

    Raises:
        BundleError: as `read_dfm`, or it does not run in ONNX Runtime.
    """
    graphs = read_dfm(path, coverage, morph)
    return load_swap_model(graphs.encoder, graphs.decoder, graphs.spec, threads, path.name)


# ---- out -------------------------------------------------------------------------------------------------------


def _joined(encoder: ModelProto, decoder: ModelProto, input_px: int, output_px: int) -> ModelProto:
    """Chain two graphs between ports of DeepFaceLive's names, at the size of the output."""
    from onnx import compose, helper

    opsets = [_opset(model) for model in (encoder, decoder)]
    if opsets[0] != opsets[1]:
        raise BundleError(f"Encoder and decoder must have one ONNX opset, but have {opsets}. Export the bundle again.")
    first = compose.add_prefix_graph(encoder.graph, "encoder/")
    second = compose.add_prefix_graph(decoder.graph, "decoder/")
    nodes = _shrink(input_px, output_px, "encoder/face")
    nodes += [*first.node, helper.make_node("Identity", ["encoder/latent"], ["decoder/latent"]), *second.node]
    nodes += [
        helper.make_node("Slice", ["decoder/swap", "zero", "three", "channels"], [OUT_FACE]),
        helper.make_node("Slice", ["decoder/swap", "three", "four", "channels"], [OUT_MASK]),
        helper.make_node("Identity", [OUT_MASK], [OUT_FACE_MASK]),
    ]
    constants = [_integers(name, [value]) for name, value in (("zero", 0), ("three", 3), ("four", 4), ("channels", 3))]
    graph = helper.make_graph(
        nodes,
        "understudy",
        [_port(IN_FACE, output_px, 3)],
        [_port(OUT_FACE_MASK, output_px, 1), _port(OUT_FACE, output_px, 3), _port(OUT_MASK, output_px, 1)],
        [*first.initializer, *second.initializer, *constants],
    )
    return _model(graph, opsets[0], max(encoder.ir_version, decoder.ir_version))


def _shrink(input_px: int, output_px: int, target: str) -> list[NodeProto]:
    """Bring the face from the output's size to the encoder's, by averaging."""
    from onnx import helper

    if input_px == output_px:
        return [helper.make_node("Identity", [IN_FACE], [target])]
    if output_px % input_px:
        raise BundleError(
            f"A .dfm needs an output that is a multiple of the input, but the bundle has {output_px} and {input_px} px."
        )
    step = [output_px // input_px] * 2
    return [
        helper.make_node("Transpose", [IN_FACE], ["large"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["large"], ["small"], kernel_shape=step, strides=step),
        helper.make_node("Transpose", ["small"], [target], perm=[0, 2, 3, 1]),
    ]


# ---- in --------------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise BundleError(f"{path} must be a .dfm file, but there is none. Check the path.")
    if path.stat().st_size > MAX_DFM_BYTES:
        raise BundleError(f"{path} must have at most {MAX_DFM_BYTES} bytes, but has {path.stat().st_size}. Refused.")
    return path.read_bytes()


def _check_ports(model: ModelProto, name: str) -> int:
    """Refuse a graph without DeepFaceLive's ports; give the side of its faces, px."""
    if _opset(model) < _LEAST_OPSET:
        raise BundleError(f"{name} must have ONNX opset {_LEAST_OPSET} or later, but has {_opset(model)}.")
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = {port.name: _shape(port) for port in model.graph.input if port.name not in stored}
    outputs = {port.name: _shape(port) for port in model.graph.output}
    side = inputs.get(IN_FACE, [0, 0, 0])[1]
    has_sizes = 16 <= side <= 1024 and inputs.get(IN_FACE, [])[1:] == [side, side, 3]
    wanted = {OUT_FACE_MASK: 1, OUT_FACE: 3, OUT_MASK: 1}
    has_outputs = set(outputs) == set(wanted) and all(_is_answer(outputs[k], side, c) for k, c in wanted.items())
    if not has_sizes or not has_outputs or set(inputs) - {IN_FACE, MORPH_VALUE}:
        raise BundleError(
            f"{name} must take {IN_FACE} [N, S, S, 3] and give {', '.join(wanted)} [N, S, S, ...], "
            f"but takes {inputs} and gives {outputs}. Only DeepFaceLive's models are read."
        )
    if inputs[IN_FACE][0] > 0:
        raise BundleError(f"{name} must take any number of faces, but takes {inputs[IN_FACE][0]}. Export it again.")
    return side


def _is_answer(shape: Sequence[int], side: int, channels: int) -> bool:
    """Whether an output has the input's size; graphs from TensorFlow leave some of it open (0)."""
    return len(shape) == 4 and all(
        got in (0, wanted) for got, wanted in zip(shape[1:], (side, side, channels), strict=True)
    )


def _crop_side(side: int, coverage: float) -> int:
    """Return how many of a model's px our narrower crop has: even, so that it lies in the middle."""
    if coverage < COVERAGE:
        raise BundleError(f"The coverage must be {COVERAGE} or more, but got {coverage}. Narrower models are not read.")
    return round(side * COVERAGE / coverage / 2) * 2


def _as_decoder(model: ModelProto, side: int, crop: int, morph: float) -> ModelProto:
    """Put the whole model behind a port "latent" that takes the face itself, and one "swap" with the mask beside it."""
    from onnx import compose, helper, numpy_helper

    rim = (side - crop) // 2
    # DeepFaceLive's centre lies above ours: by Y_OFFSET of its own square, of which COVERAGE make a crop.
    up = min(rim, round(Y_OFFSET * crop / COVERAGE)) if rim else 0
    top, bottom = rim + up, rim - up
    inner = compose.add_prefix_graph(model.graph, "dfm/")
    nodes = [helper.make_node("Pad", ["latent", "rims"], [f"dfm/{IN_FACE}"], mode="reflect"), *inner.node]
    nodes += [
        helper.make_node("Min", [f"dfm/{OUT_FACE_MASK}", f"dfm/{OUT_MASK}"], ["mask"]),
        helper.make_node("Concat", [f"dfm/{OUT_FACE}", "mask"], ["framed"], axis=3),
        helper.make_node("Slice", ["framed", "from", "to", "rows_columns"], ["cut"]),
        helper.make_node("Clip", ["cut", "black", "white"], ["swap"]),
    ]
    constants = [
        _integers("rims", [0, top, rim, 0, 0, bottom, rim, 0]),
        _integers("from", [top, rim]),
        _integers("to", [top + crop, rim + crop]),
        _integers("rows_columns", [1, 2]),
        numpy_helper.from_array(np.array(0, np.float32), "black"),
        numpy_helper.from_array(np.array(1, np.float32), "white"),
    ]
    if any(port.name == MORPH_VALUE for port in model.graph.input):
        constants.append(numpy_helper.from_array(np.array([morph], np.float32), f"dfm/{MORPH_VALUE}"))
    initializers = [*inner.initializer, *constants]
    graph = helper.make_graph(nodes, "dfm", [_port("latent", crop, 3)], [_port("swap", crop, 4)], initializers)
    return _model(graph, _opset(model), model.ir_version)


def _passed_on(side: int) -> ModelProto:
    """Return an encoder that does nothing."""
    from onnx import helper

    node = helper.make_node("Identity", ["face"], ["latent"])
    return _model(helper.make_graph([node], "face", [_port("face", side, 3)], [_port("latent", side, 3)]), 17, 8)


# ---- small parts -----------------------------------------------------------------------------------------------


def _model(graph: GraphProto, opset: int, ir_version: int) -> ModelProto:
    from onnx import helper

    foreign = sorted({node.domain for node in graph.node} - {"", "ai.onnx"})
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in foreign)]
    return helper.make_model(graph, producer_name="understudy", opset_imports=imports, ir_version=ir_version)


def _opset(model: ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _port(name: str, side: int, channels: int) -> ValueInfoProto:
    from onnx import TensorProto, helper

    return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", side, side, channels])


def _integers(name: str, values: Sequence[int]) -> TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(np.array(values, np.int64), name)


def _shape(port: ValueInfoProto) -> list[int]:
    """Return a float port's shape, 0 where a side is open; empty where it is no float tensor."""
    from onnx import TensorProto

    kind = port.type.tensor_type
    return [side.dim_value for side in kind.shape.dim] if kind.elem_type == TensorProto.FLOAT else []
