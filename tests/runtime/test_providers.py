from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.runtime.errors import DeviceError, InputError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.cuda_libraries import CudaState, cuda_state
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.inference.onnxruntime_session import fallback_line
from ptychonnx.runtime.inference.providers import ProviderRequest, available, plugin_devices, provider_list
from ptychonnx.runtime.validation import checked
from tests.runtime.test_session import contract, write_identity


def test_the_cpu_is_always_there_and_last():
    assert available()[-1] == "cpu"
    assert provider_list("cpu") == [("CPUExecutionProvider", {})]


def test_auto_ends_on_the_cpu_and_starts_no_engine_build():
    names = [name for name, _ in provider_list("auto")]
    assert names[-1] == "CPUExecutionProvider"
    assert "TensorrtExecutionProvider" not in names


def test_an_unknown_provider_is_refused_with_the_choices():
    with pytest.raises(
        InputError, match="'gpu' is unknown, expected one of auto, cpu, cuda, cuda-graph, tensorrt, openvino"
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


@pytest.mark.parametrize(
    ("text", "request_"),
    [
        ("auto", ProviderRequest("auto")),
        ("cuda", ProviderRequest("cuda")),
        ("cuda:1", ProviderRequest("cuda", (1,))),
        ("cuda:0,2,tf32", ProviderRequest("cuda", (0, 2), tf32=True)),
        ("cuda-graph:tf32", ProviderRequest("cuda-graph", tf32=True)),
        ("tensorrt:3", ProviderRequest("tensorrt", (3,))),
        ("openvino:bfloat16", ProviderRequest("openvino", bfloat16=True)),
        ("plugin:Web=/lib/a=b.so", ProviderRequest("plugin", plugin=("Web", Path("/lib/a=b.so")))),
    ],
)
def test_a_provider_is_read_with_its_devices_and_precision(text, request_):
    assert ProviderRequest.parse(text) == request_
    assert InferenceOptions(provider=text).provider == text


@pytest.mark.parametrize(
    "text",
    ["", "gpu", "cpu:0", "auto:1", "cuda:x", "cuda:0,0", "cuda:-1", "tensorrt:tf32", "openvino:int8", "plugin:x",
     "plugin:=x", "plugin:x="],
)  # fmt: skip
def test_other_providers_are_refused_with_the_choices(text):
    with pytest.raises(InputError, match=r"is unknown, expected one of auto, .* or plugin:NAME=PATH"):
        ProviderRequest.parse(text)
    with pytest.raises(InputError, match=r"^--provider .*: provider .* is unknown, expected one of auto"):
        checked(InferenceOptions, {"provider": text}, lambda name: f"--{name}")


def test_tf32_and_the_device_reach_the_cuda_provider(monkeypatch):
    monkeypatch.setattr("ptychonnx.runtime.inference.providers.available", lambda: ["cuda", "cpu"])
    assert provider_list("cuda:tf32")[0] == ("CUDAExecutionProvider", {"use_tf32": 1})
    assert provider_list("cuda:1", 1)[0] == ("CUDAExecutionProvider", {"use_tf32": 0, "device_id": 1})


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        (CudaState(""), "was built without CUDA"),
        (CudaState("13.0"), "^no NVIDIA driver is loaded$"),
        (
            CudaState("13.0", "535.104.05", (12, 2), 1),
            r"^the NVIDIA driver 535.104.05 runs CUDA up to 12.2, .* CUDA 13.0, which needs driver 580.65.06 or newer$",
        ),
        (CudaState("13.0", "580.65.06", (13, 0), 0), "^the NVIDIA driver 580.65.06 shows no device"),
        (
            CudaState("13.0", "580.65.06", (13, 0), 1, {"libcudart.so.13": "/x", "libcudnn.so.9": None}),
            r"^libcudnn.so.9 cannot be loaded: pip install 'ptychonnx\[cuda\]'$",
        ),
    ],
)
def test_what_is_amiss_with_cuda_is_said_with_numbers_and_names(state, problem):
    assert state.problem is not None
    with pytest.raises(InputError, match=problem):
        raise InputError(state.problem)


def test_a_machine_where_nothing_is_amiss_has_no_problem():
    assert CudaState("13.0", "590.1", (13, 2), 1, {"libcudart.so.13": "/x"}).problem is None


def test_the_refusal_of_cuda_says_what_is_amiss():
    if "cuda" in available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(DeviceError) as raised:
        provider_list("cuda")
    assert cuda_state().problem in str(raised.value)


def test_auto_takes_the_cpu_aloud_where_the_gpu_does_not_start(tmp_path, monkeypatch, caplog):
    if "cuda" in available():
        pytest.skip("this machine has a CUDA device")
    monkeypatch.setattr("ptychonnx.runtime.inference.providers.available", lambda: ["cuda", "cpu"])
    artifact = write_identity(tmp_path / "identity.onnx", contract())
    assert Session(artifact, "auto").provider == "CPUExecutionProvider"
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "CUDAExecutionProvider did not start" in record.message
    assert record.message.endswith("provider auto goes on with the CPU")
    with pytest.raises(DeviceError, match="CUDAExecutionProvider did not start"):
        Session(artifact, "cuda")


def test_a_plugin_that_is_none_is_refused(tmp_path):
    with pytest.raises(
        InputError, match=r"none.so: no such file, expected the library of the plugin provider Web"
    ):
        plugin_devices("Web", tmp_path / "none.so")
    library = tmp_path / "text.so"
    library.write_text("text")
    artifact = write_identity(tmp_path / "identity.onnx", contract())
    with pytest.raises(InputError, match=r"text.so: onnxruntime does not take it as a plugin provider \("):
        Session(artifact, f"plugin:Web={library}")


def test_a_plugin_that_lacks_its_driver_is_a_failure_of_the_machine(tmp_path):
    library = tmp_path / "driverless.so"
    library.write_bytes(b"\0" * 5000 + b"CreateEpFactories")
    with pytest.raises(DeviceError, match=r"driverless.so: onnxruntime does not take it"):
        plugin_devices("Driverless", library)


def test_a_plugin_is_registered_once_and_found_by_its_library(tmp_path, monkeypatch):
    # A second registration of onnxruntime-ep-webgpu 0.4 ended the process.
    library = tmp_path / "web.so"
    library.touch()
    registered = []
    monkeypatch.setattr(
        onnxruntime, "register_execution_provider_library", lambda *given: registered.append(given)
    )
    device = SimpleNamespace(ep_name="WebExecutionProvider", ep_metadata={"library_path": str(library)})
    other = SimpleNamespace(ep_name="CPUExecutionProvider", ep_metadata={})
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [other, device])
    assert plugin_devices("web", library) == plugin_devices("web", library) == [device]
    assert registered == [("web", str(library))]
    monkeypatch.setattr(onnxruntime, "get_ep_devices", lambda: [other])
    with pytest.raises(DeviceError, match=r"web.so: the plugin provider web finds no device"):
        plugin_devices("web", library)


def test_nodes_that_fall_back_to_the_cpu_are_named_with_their_cost(tmp_path):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("Neg", ["x"], ["a"], name="first"),
            helper.make_node("Det", ["a"], ["b"], name="second"),
            helper.make_node("Mul", ["b", "c"], ["y"], name="third"),
        ],
        "net",
        [value("x", TensorProto.FLOAT, ["batch", 10, 10])],
        [value("y", TensorProto.FLOAT, ["batch"])],
        [numpy_helper.from_array(np.ones(1, np.float32), "c")],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)

    def session(**nodes):
        placed = [
            SimpleNamespace(
                ep_name=f"{name}ExecutionProvider",
                get_nodes=lambda nodes=nodes: [SimpleNamespace(name=n, op_type=o) for n, o in nodes],
            )
            for name, nodes in nodes.items()
        ]
        return SimpleNamespace(get_provider_graph_assignment_info=lambda: placed)

    others = [("first", "Neg"), ("third", "Mul")]
    # 100 numbers in and one out.
    assert fallback_line(path, session(CUDA=others, CPU=[("second", "Det")])) == (
        "net.onnx: 1 of 3 nodes run on the CPU (Det), with up to 0.404 kB per pattern that cross between device and "
        "memory"
    )
    assert fallback_line(path, session(CUDA=others)) is None
    assert fallback_line(path, session(CPU=others)) is None
