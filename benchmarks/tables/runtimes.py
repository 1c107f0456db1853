"""Runtimes that people run networks in, each as a call that gives one picture's answer.

ONNX Runtime and OpenVINO take the same ONNX graphs (float32, or int8 as QDQ pairs), LiteRT takes graphs of its own,
converted here. A network may be several graphs, each of which gets the answer of the one before.
"""

import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Call = Callable[[], object]
Graphs = tuple[str, ...]


def chain(graphs: Sequence[str], threads: int, value: Floats, runtime: str = "ort") -> Call:
    """Make a call that runs graphs, each on the answer of the one before.

    Args:
        graphs: files: ONNX, or of LiteRT for "litert".
        threads: how many each may use.
        value: float32 [1, ...] input of the first.
        runtime: "ort", "openvino" or "litert".

    Raises:
        ImportError: the runtime is not installed.
    """
    steps = [_LOADERS[runtime](path, threads) for path in graphs]

    def run() -> Floats:
        answer = value
        for step in steps:
            answer = step(answer)
        return answer

    return run


def installed() -> list[str]:
    """Return the runtimes that this environment has."""
    return [name for name, module in _MODULES.items() if find_spec(module) is not None]


def write_litert(model: Any, path: Path, calibration: Floats | None) -> None:
    """Convert a Keras model for LiteRT, for one picture a call, in int8 when there are inputs to calibrate with.

    Args:
        model: one input, one output.
        path: the file to write.
        calibration: float32 [N, ...] typical inputs, or None for float32.
    """
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    shape = tf.TensorSpec((1, *model.inputs[0].shape[1:]), tf.float32)
    function = tf.function(lambda x: model(x, training=False)).get_concrete_function(shape)
    # Variables must be constants first: the converter's calibration fails on reading them.
    converter = tf.lite.TFLiteConverter.from_concrete_functions([convert_variables_to_constants_v2(function)], model)
    if calibration is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in calibration)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    with warnings.catch_warnings():
        # Wanted are ranges of quantised inputs; ours stay float32.
        warnings.filterwarnings("ignore", "Statistics for quantized inputs")
        path.write_bytes(converter.convert())


# ---- loaders: a graph as a function of one array -----------------------------------------------------------------


def _ort(path: str, threads: int) -> Callable[[Floats], Floats]:
    """Waiting threads do not spin, as in the product: they would spin into the next contestant's turn."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def run(value: Floats) -> Floats:
        answer: Floats = session.run(None, {name: value})[0]
        return answer

    return run


def _openvino(path: str, threads: int) -> Callable[[Floats], Floats]:
    import openvino

    core = openvino.Core()
    hints = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(core.read_model(path), "CPU", hints).create_infer_request()

    def run(value: Floats) -> Floats:
        answer: Floats = request.infer({0: value})[0]
        return answer

    return run


def _litert(path: str, threads: int) -> Callable[[Floats], Floats]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(path, num_threads=threads)
    interpreter.allocate_tensors()
    first, last = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def run(value: Floats) -> Floats:
        interpreter.set_tensor(first, value)
        interpreter.invoke()
        answer: Floats = interpreter.get_tensor(last)
        return answer

    return run


_LOADERS = {"ort": _ort, "openvino": _openvino, "litert": _litert}
_MODULES = {"ort": "onnxruntime", "openvino": "openvino", "litert": "ai_edge_litert"}
