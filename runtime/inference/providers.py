"""Execution providers: which hardware runs the artifact, without any silent fallback.

`onnxruntime.get_available_providers()` lists what was compiled in, not what works on this machine, and a session that
asks for CUDA on a machine without a GPU runs on the CPU without an error. Devices are therefore probed with
`get_ep_devices()`, and the providers of the finished session are compared with those requested.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
from dataclasses import dataclass
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper
from pydantic import AfterValidator

from ptychonnx.runtime.errors import DeviceError, InputError, first_line
from ptychonnx.runtime.inference.cuda_libraries import cuda_state
from ptychonnx.runtime.paths import check_file

__all__ = [
    "PROVIDER_FORMS",
    "VISIBLE_DEVICES",
    "Provider",
    "ProviderRequest",
    "available",
    "plugin_devices",
    "probe_providers",
    "provider_list",
    "visible_devices",
]

PROVIDER_FORMS = "auto, cpu, cuda, cuda-graph, tensorrt, openvino, openvino:bfloat16 or plugin:NAME=PATH"

# By which CUDA learns the devices that a process may use.
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
_ON_CUDA = ("cuda", "cuda-graph", "tensorrt")
# The function by which onnxruntime asks a plugin library for its providers.
_PLUGIN_ENTRY = b"CreateEpFactories"


@dataclass(frozen=True)
class ProviderRequest:
    """What the user asked for, such as ``cuda:0,1``."""

    kind: str  # `auto`, `cpu`, `cuda`, `cuda-graph`, `tensorrt`, `openvino` or `plugin`
    devices: tuple[int, ...] = (0,)  # numbers of the devices of a CUDA provider, which share each batch
    tf32: bool = False  # whether the CUDA provider may round the factors of products to 10 bits of mantissa
    bfloat16: bool = False  # whether OpenVINO computes in bfloat16
    plugin: tuple[str, Path] | None = None  # name and library of a plugin provider

    @classmethod
    def parse(cls, text: str) -> ProviderRequest:
        """Read one of `PROVIDER_FORMS`; ``cuda`` and the like may be followed by ``:0,1`` and ``:tf32``.

        Raises InputError if the text has none of these forms.
        """
        kind, _, detail = text.partition(":")
        name, _, library = detail.partition("=")
        words = detail.split(",") if detail else []
        numbers = tuple(int(word) for word in words if word.isdecimal())
        if kind == "plugin" and name and library:
            return cls(kind, plugin=(name, Path(library)))
        if kind in _ON_CUDA and len(set(numbers)) == len(numbers):
            tf32 = "tf32" in words and kind != "tensorrt"
            if len(numbers) + tf32 == len(words):
                return cls(kind, numbers or (0,), tf32)
        if (kind in ("auto", "cpu") and not detail) or (kind == "openvino" and detail in ("", "bfloat16")):
            return cls(kind, bfloat16=detail == "bfloat16")
        raise InputError(f"provider {text!r} is unknown, expected one of {PROVIDER_FORMS}")


def _known(text: str) -> str:
    ProviderRequest.parse(text)
    return text


Provider = Annotated[str, AfterValidator(_known)]


def available() -> list[str]:
    """Short names of the providers with a device on this machine, best first; the last is always ``cpu``."""
    with_device = {device.ep_name for device in ort.get_ep_devices()} | {_NAMES["cpu"]}
    if _NAMES["cuda"] in with_device:
        with_device.add(_NAMES["tensorrt"])  # runs on the same devices, but does not list them
    usable = with_device.intersection(ort.get_available_providers())
    return [short for short, name in _NAMES.items() if name in usable]


def visible_devices() -> list[str]:
    """GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; all of the machine if it is not set."""
    count = sum(device.ep_name == _NAMES["cuda"] for device in ort.get_ep_devices())
    listed = os.environ.get(VISIBLE_DEVICES)
    if not count or listed is None:
        return [str(number) for number in range(count)]
    # CUDA ignores what follows an entry that is no device.
    names = map(str.strip, listed.split(","))
    return list(itertools.takewhile(lambda name: name not in {"", "-1"}, names))


def probe_providers() -> dict[str, str]:
    """Run a model of one operator on every provider.

    Returns ``works``, or the reason why it does not, by the short name of the provider, best first.
    """
    compiled = ort.get_available_providers()
    ort.set_default_logger_severity(4)
    try:
        # onnxruntime prints what it cannot load, which the result says too.
        with contextlib.redirect_stdout(None), contextlib.redirect_stderr(None):
            ort.preload_dlls()
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
            return f"does not start: {cuda_state().problem or 'no device'}"
        session.run(None, {"x": np.ones(1, np.float32)})
    except Exception as error:  # onnxruntime raises a dozen types of its own
        # Without the place in onnxruntime's source and the signature of its function.
        reason = re.sub(r"^/\S+:\d+ .*?\) ", "", str(error).strip().splitlines()[0])
        return f"does not start: {reason}"
    return "works"


def provider_list(requested: str | ProviderRequest, device: int = 0) -> list[tuple[str, dict[str, Any]]]:
    """Providers with their options for `onnxruntime.InferenceSession`, the requested one first.

    ``auto`` takes the best that is available. ``cuda-graph`` is ``cuda`` that records its work in the first run and
    replays it afterwards, which requires a fixed batch and every operator on the GPU. A GPU provider is followed by
    the providers that may run the operators it does not support; `Session` refuses if the requested one is missing
    from the finished session, and names the operators that others run.

    Raises InputError if the name is unknown. Raises DeviceError if the provider has no device on this machine, with the
    reason.

    `device`: number of the CUDA device.
    """
    request = ProviderRequest.parse(requested) if isinstance(requested, str) else requested
    kind, present = request.kind, available()
    short = "cuda" if kind == "cuda-graph" else kind
    if kind in ("openvino", "plugin"):
        chosen = ["cpu"]
    elif kind == "auto":
        chosen = [name for name in present if name != "tensorrt"]  # its engine build takes minutes
    elif short in present:
        chosen = present[present.index(short) :]
    else:
        raise DeviceError(
            f"provider {kind!r} has no device on this machine: {cuda_state().problem or 'it does not start'}; "
            f"expected one of {', '.join(['auto', *present])}"
        )
    # TF32 keeps 10 bits of mantissa, with which the parity figures would not hold.
    options: dict[str, dict[str, Any]] = {"cuda": {"use_tf32": int(request.tf32)}, "tensorrt": {}, "cpu": {}}
    if device:
        options["cuda"]["device_id"] = options["tensorrt"]["device_id"] = device
    if kind == "cuda-graph":
        options["cuda"]["enable_cuda_graph"] = 1
    return [(_NAMES[name], options[name]) for name in chosen]


def plugin_devices(name: str, library: Path) -> list[Any]:
    """Devices of a plugin provider, whose library is registered with onnxruntime under its name.

    onnxruntime lets a provider whose name ends in ``.virtual`` offer a device where the system lists none.

    Raises InputError if the library is missing or is no plugin provider. Raises DeviceError if it does not load on this
    machine, or has no device here.
    """
    check_file(library, f"the library of the plugin provider {name}")
    path = str(library.resolve())
    _register(name, path)
    devices = [
        device
        for device in ort.get_ep_devices()
        if device.ep_metadata.get("library_path") == path or device.ep_name == name
    ]
    if not devices:
        raise DeviceError(f"{library}: the plugin provider {name} finds no device on this machine")
    return devices


@cache
def _register(name: str, path: str) -> None:
    # Only once in a process: a second attempt frees what the first has created.
    try:
        ort.register_execution_provider_library(name, path)
    except Exception as error:  # onnxruntime raises a dozen types of its own
        message = f"{path}: onnxruntime does not take it as a plugin provider ({first_line(error)})"
        if _is_plugin(path):
            raise DeviceError(message) from error
        raise InputError(message) from error


def _is_plugin(path: str) -> bool:
    """Whether a library exports what plugin providers do, so that one that does not load lacks its driver."""
    if not Path(path).stat().st_size:
        return False
    with Path(path).open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        return content.find(_PLUGIN_ENTRY) >= 0
