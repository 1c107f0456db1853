"""ONNX Runtime sessions, opened in one place: on which device networks run is decided here and nowhere else.

`UNDERSTUDY_DEVICE` names it: `auto` (CUDA where the installed runtime has it, else the processor), `cpu`, `cuda`,
`coreml`, `directml` or `openvino`. Which can be had is a matter of the runtime that is installed (docs/serving.md).
"""

import logging
import os
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import cache
from importlib import import_module
from typing import Any

from liveframe.errors import ModelError

_VARIABLE = "UNDERSTUDY_DEVICE"
_CPU = "CPUExecutionProvider"

_LOG = logging.getLogger(__name__)


class Device(StrEnum):
    """Where networks run."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    COREML = "coreml"
    DIRECTML = "directml"
    OPENVINO = "openvino"


PROVIDERS: Mapping[Device, str] = {
    Device.CUDA: "CUDAExecutionProvider",
    Device.COREML: "CoreMLExecutionProvider",
    Device.DIRECTML: "DmlExecutionProvider",
    Device.OPENVINO: "OpenVINOExecutionProvider",
}
_TO_GET = {
    Device.CUDA: "uv sync --extra cuda --no-install-package onnxruntime",
    Device.COREML: "take the onnxruntime wheel for macOS",
    Device.DIRECTML: "uv sync --extra directml --no-install-package onnxruntime",
    Device.OPENVINO: "uv sync --extra openvino --no-install-package onnxruntime",
}


def device_of(environment: Mapping[str, str]) -> Device:
    """Read the device.

    Raises:
        ModelError: there is no such device.
    """
    named = environment.get(_VARIABLE, "") or Device.AUTO
    if named not in set(Device):
        raise ModelError(f"{_VARIABLE} must be one of {', '.join(Device)}, but is {named!r:.40}. Correct or unset it.")
    return Device(named)


def providers_for(device: Device, available: Sequence[str]) -> list[str]:
    """Return ONNX Runtime's providers for a device, in the order to try them; the processor stands behind all.

    Args:
        device: what is wanted.
        available: what the installed runtime has.

    Raises:
        ModelError: it has not what was asked for by name.
    """
    if device is Device.AUTO:
        device = Device.CUDA if PROVIDERS[Device.CUDA] in available else Device.CPU
    if device is Device.CPU:
        return [_CPU]
    if PROVIDERS[device] not in available:
        raise ModelError(
            f"{_VARIABLE} is {device}, but the installed ONNX Runtime has only {', '.join(available)}. "
            f"Set it to auto, or: {_TO_GET[device]}."
        )
    return [PROVIDERS[device], _CPU]


@cache
def process_device() -> Device:
    """The device of this process, read from the environment once."""
    return device_of(os.environ)


def open_session(content: bytes, threads: int, device: Device | None = None) -> Any:
    """Open a network. Takes 10 to 300 ms, seconds on a GPU.

    Args:
        content: an ONNX graph, checked by the caller.
        threads: cores that one run uses, where it runs on the processor.
        device: where; `process_device` where left out. Networks that look at single small pictures name the
            processor: the way to a GPU costs them more than it gives.

    Returns:
        onnxruntime.InferenceSession, which comes without types.

    Raises:
        ModelError: the device cannot be had.
        Exception: what ONNX Runtime raises for a graph that does not run; its errors share no base class.
    """
    onnxruntime: Any = import_module("onnxruntime")
    wanted = process_device() if device is None else device
    providers = providers_for(wanted, onnxruntime.get_available_providers())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    # Waiting workers must not spin: the codec and the tracker want those cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if providers[0] == PROVIDERS[Device.CUDA]:
        onnxruntime.preload_dlls()  # CUDA's libraries come as packages, where no system has them
    session = onnxruntime.InferenceSession(content, options, providers=providers)
    if session.get_providers()[0] != providers[0]:  # the runtime falls back without a word
        sentence = f"{providers[0]} must run the network, but could not be loaded: its driver or libraries are missing."
        if wanted is not Device.AUTO:
            raise ModelError(f"{sentence} Install them, or set {_VARIABLE}=cpu.")
        _LOG.warning("%s The processor runs it.", sentence)
    return session
