"""Execution providers: which hardware runs the artifact, without any silent fallback.

`onnxruntime.get_available_providers()` lists what was compiled in, not what works on this machine, and a session that
asks for CUDA on a machine without a GPU runs on the CPU without an error. Devices are therefore probed with
`get_ep_devices()`, and the providers of the finished session are compared with those requested.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Literal, get_args

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper

from ptychonnx.runtime.errors import DeviceError, InputError

__all__ = ["Provider", "available", "preload_cuda", "probe_providers", "provider_list"]

Provider = Literal["auto", "tensorrt", "cuda", "cuda-graph", "cpu"]

_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
# TF32 keeps 10 bits of mantissa, with which the parity figures would not hold.
_OPTIONS: dict[str, dict[str, Any]] = {"cuda": {"use_tf32": 0}, "tensorrt": {}, "cpu": {}}


def preload_cuda() -> None:
    """Load the CUDA and cuDNN libraries that the `cuda` extra installs, if they are present."""
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()


def available() -> list[str]:
    """Short names of the providers with a device on this machine, best first; the last is always ``cpu``."""
    with_device = {device.ep_name for device in ort.get_ep_devices()} | {_NAMES["cpu"]}
    if _NAMES["cuda"] in with_device:
        with_device.add(_NAMES["tensorrt"])  # runs on the same devices, but does not list them
    usable = with_device.intersection(ort.get_available_providers())
    return [short for short, name in _NAMES.items() if name in usable]


def probe_providers() -> dict[str, str]:
    """Run a model of one operator on every provider.

    Returns
    -------
    dict
        Short name of each provider, best first: ``works``, or the reason why it does not.
    """
    compiled = ort.get_available_providers()
    ort.set_default_logger_severity(4)
    try:
        # onnxruntime prints what it cannot load, which the result says too.
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            preload_cuda()
            return {
                short: _probe(name) if name in compiled else "not part of this build of onnxruntime"
                for short, name in _NAMES.items()
            }
    finally:
        ort.set_default_logger_severity(2)


def _probe(provider: str) -> str:
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "probe", value[:1], value[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            model.SerializeToString(), options, providers=[provider], enable_fallback=False
        )
        if session.get_providers()[0] != provider:
            return "does not start: no device, or a library is missing"
        session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:  # onnxruntime raises a dozen types of its own
        # Without the place in onnxruntime's source and the signature of its function.
        reason = re.sub(r"^/\S+:\d+ .*?\) ", "", str(error).strip().splitlines()[0])
        return f"does not start: {reason}"
    return "works"


def provider_list(requested: str) -> list[tuple[str, dict[str, Any]]]:
    """Providers with their options for `onnxruntime.InferenceSession`, the requested one first.

    ``auto`` takes the best that is available. ``cuda-graph`` is ``cuda`` that records its work in the first run and
    replays it afterwards, which requires a fixed batch and every operator on the GPU. A GPU provider is followed by
    the providers that may run the operators it does not support; `Session` refuses if the requested one is missing
    from the finished session.

    Raises
    ------
    InputError
        If the name is unknown.
    DeviceError
        If the provider has no device on this machine.
    """
    choices = get_args(Provider)
    if requested not in choices:
        raise InputError(f"provider {requested!r} is unknown, expected one of {', '.join(choices)}")
    present = available()
    device = "cuda" if requested == "cuda-graph" else requested
    if requested == "auto":
        chosen = [short for short in present if short != "tensorrt"]  # its engine build takes minutes
    elif device in present:
        chosen = present[present.index(device) :]
    else:
        raise DeviceError(
            f"provider {requested!r} has no device on this machine, expected one of "
            f"{', '.join(['auto', *present])}"
        )
    providers = [(_NAMES[short], dict(_OPTIONS[short])) for short in chosen]
    if requested == "cuda-graph":
        providers[0][1]["enable_cuda_graph"] = 1
    return providers
