from __future__ import annotations

import onnxruntime
import pytest

from ptychonnx.runtime.errors import DeviceError, InputError
from ptychonnx.runtime.inference.providers import available, provider_list


def test_the_cpu_is_always_there_and_last():
    assert available()[-1] == "cpu"
    assert provider_list("cpu") == [("CPUExecutionProvider", {})]


def test_auto_ends_on_the_cpu_and_starts_no_engine_build():
    names = [name for name, _ in provider_list("auto")]
    assert names[-1] == "CPUExecutionProvider"
    assert "TensorrtExecutionProvider" not in names


def test_an_unknown_provider_is_refused_with_the_choices():
    with pytest.raises(
        InputError, match="'gpu' is unknown, expected one of auto, tensorrt, cuda, cuda-graph, cpu"
    ):
        provider_list("gpu")


@pytest.mark.parametrize("wanted", ["cuda", "cuda-graph", "tensorrt"])
def test_a_provider_without_a_device_is_refused_and_never_replaced(wanted):
    if wanted.removesuffix("-graph") in available():
        pytest.skip(f"this machine has a device for {wanted}")
    with pytest.raises(DeviceError, match=f"'{wanted}' has no device.*auto, cpu"):
        provider_list(wanted)


def test_a_compiled_in_provider_without_a_device_is_not_available(monkeypatch):
    monkeypatch.setattr(onnxruntime, "get_ep_devices", list)
    compiled_in = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: compiled_in)
    assert available() == ["cpu"]


def test_a_gpu_comes_before_the_cpu_and_keeps_full_precision(monkeypatch):
    class Device:
        ep_name = "CUDAExecutionProvider"

    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [Device()])
    compiled_in = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: compiled_in)
    assert available() == ["tensorrt", "cuda", "cpu"]
    assert provider_list("auto")[0] == ("CUDAExecutionProvider", {"use_tf32": 0})
    assert [name for name, _ in provider_list("tensorrt")] == compiled_in
    assert provider_list("cuda-graph") == [
        ("CUDAExecutionProvider", {"use_tf32": 0, "enable_cuda_graph": 1}),
        ("CPUExecutionProvider", {}),
    ]
    assert provider_list("cuda")[0] == ("CUDAExecutionProvider", {"use_tf32": 0})
