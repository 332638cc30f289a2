"""Which hardware runs the artifact: chosen openly, never by a silent fallback.

`onnxruntime.get_available_providers()` lists what was compiled in, not what works on this machine, and a
session that asks for CUDA where there is none runs on the CPU without an error. So devices are probed with
`get_ep_devices()`, and the providers that the finished session really has are compared with those asked for.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import onnxruntime as ort

from ptychonnx.runtime.errors import InputError

__all__ = ["Provider", "available", "preload_cuda", "provider_list"]

Provider = Literal["auto", "tensorrt", "cuda", "cuda-graph", "cpu"]

_NAMES = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
# TF32 keeps 10 bits of mantissa: parity figures would not hold.
_OPTIONS: dict[str, dict[str, Any]] = {"cuda": {"use_tf32": 0}, "tensorrt": {}, "cpu": {}}


def preload_cuda() -> None:
    """Load the CUDA and cuDNN libraries that the `cuda` extra installs, if they are there."""
    if hasattr(ort, "preload_dlls"):
        ort.preload_dlls()


def available() -> list[str]:
    """Short names of the providers with a device on this machine, best first; `cpu` is always last."""
    with_device = {device.ep_name for device in ort.get_ep_devices()} | {_NAMES["cpu"]}
    if _NAMES["cuda"] in with_device:
        with_device.add(_NAMES["tensorrt"])  # runs on the same devices, but does not list them
    usable = with_device.intersection(ort.get_available_providers())
    return [short for short, name in _NAMES.items() if name in usable]


def provider_list(wanted: str) -> list[tuple[str, dict[str, Any]]]:
    """Providers with options for `onnxruntime.InferenceSession`, the wanted one first.

    `auto` takes the best that is there. `cuda-graph` is `cuda` that records its work at the first run and replays it
    at the others, at the price of a fixed batch and of no operator elsewhere. A GPU provider is followed by those
    that may take what it cannot: `session.Session` then refuses if the wanted one is missing from the
    session.

    Raises
    ------
    InputError
        If the name is unknown, or the provider has no device here.
    """
    choices = get_args(Provider)
    if wanted not in choices:
        raise InputError(f"provider {wanted!r} is unknown, expected one of {', '.join(choices)}")
    here = available()
    device = "cuda" if wanted == "cuda-graph" else wanted
    if wanted == "auto":
        chosen = [short for short in here if short != "tensorrt"]  # its engine build takes minutes
    elif device not in here:
        raise InputError(
            f"provider {wanted!r} was asked for but has no device on this machine, expected one of "
            f"{', '.join(['auto', *here])}"
        )
    else:
        chosen = here[here.index(device) :]
    providers = [(_NAMES[short], dict(_OPTIONS[short])) for short in chosen]
    if wanted == "cuda-graph":
        providers[0][1]["enable_cuda_graph"] = 1
    return providers
