"""On which device networks run: chosen in one place, refused with a sentence, and real CUDA where there is some."""

import numpy as np
import onnxruntime
import pytest

from benchmarks.harness.tiny_bundle import encoder_graph
from liveframe.errors import ModelError
from understudy.vision.onnx_session import PROVIDERS, Device, device_of, open_session, providers_for

CUDA = PROVIDERS[Device.CUDA]


def test_auto_takes_cuda_where_the_runtime_has_it_and_the_processor_elsewhere() -> None:
    assert providers_for(Device.AUTO, ["CPUExecutionProvider"]) == ["CPUExecutionProvider"]
    assert providers_for(Device.AUTO, [CUDA, "CPUExecutionProvider"]) == [CUDA, "CPUExecutionProvider"]
    assert providers_for(Device.CPU, [CUDA, "CPUExecutionProvider"]) == ["CPUExecutionProvider"]


@pytest.mark.parametrize("device", list(PROVIDERS))
def test_device_that_was_named_is_taken_or_refused_with_the_way_to_get_it(device: Device) -> None:
    assert providers_for(device, [PROVIDERS[device], "CPUExecutionProvider"])[0] == PROVIDERS[device]
    with pytest.raises(ModelError, match=f"UNDERSTUDY_DEVICE is {device}, but"):
        providers_for(device, ["CPUExecutionProvider"])


def test_environment_names_the_device() -> None:
    assert device_of({}) is Device.AUTO and device_of({"UNDERSTUDY_DEVICE": "openvino"}) is Device.OPENVINO
    with pytest.raises(ModelError, match="must be one of auto, cpu, cuda"):
        device_of({"UNDERSTUDY_DEVICE": "tpu"})


@pytest.mark.skipif(CUDA not in onnxruntime.get_available_providers(), reason="ONNX Runtime here has no CUDA")
def test_cuda_gives_what_the_processor_gives() -> None:
    content = encoder_graph(32).SerializeToString()
    faces = np.random.default_rng(0).random((4, 32, 32, 3), np.float32)
    answers = [open_session(content, 1, device).run(None, {"face": faces})[0] for device in (Device.CPU, Device.CUDA)]
    assert np.abs(answers[0] - answers[1]).max() < 1e-3


def test_graph_runs_on_the_device_of_the_process() -> None:
    session = open_session(encoder_graph(32).SerializeToString(), 1, Device.CPU)
    assert session.run(None, {"face": np.zeros((1, 32, 32, 3), np.float32)})[0].shape == (1, 8, 8, 8)
