"""Sessions of onnxruntime on the provider that was asked for, and what runs elsewhere."""

from __future__ import annotations

import logging
import math
import os
import warnings
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from ptychonnx.runtime.errors import DeviceError, InputError, first_line
from ptychonnx.runtime.inference.cuda_libraries import cuda_state
from ptychonnx.runtime.inference.floating_point import floating_point_kept
from ptychonnx.runtime.inference.graph_shapes import inferred_graph
from ptychonnx.runtime.inference.providers import (
    ProviderRequest,
    plugin_devices,
    provider_list,
)
from ptychonnx.runtime.machine import available_cores

__all__ = ["CPU", "assigned_nodes", "fallback_line", "open_session", "session_options", "session_threads"]

_logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"


def open_session(
    path: Path,
    request: ProviderRequest,
    threads: int | None = None,
    device: int = 0,
    profile: Path | None = None,
) -> ort.InferenceSession:
    """Load an artifact; on the CPU, with a warning, if the provider is ``auto`` and the GPU does not start.

    Raises InputError if the file does not load. Raises DeviceError if the provider is unavailable.

    * `device`: number of the CUDA device.
    * `profile`: start of the name of the file to which onnxruntime writes the times of all nodes.
    """
    try:
        return _open(path, request, threads, device, profile)
    except DeviceError as error:
        if request.kind != "auto":
            raise
        _logger.warning("%s, provider auto goes on with the CPU", error)
        return _open(path, ProviderRequest("cpu"), threads, device, profile)


def _open(
    path: Path, request: ProviderRequest, threads: int | None, device: int, profile: Path | None
) -> ort.InferenceSession:
    options = session_options(threads)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    if profile is not None:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    providers: list[Any] | None = provider_list(request, device)
    assert providers
    first = providers[0][0]
    if request.plugin is not None:
        devices = plugin_devices(*request.plugin)
        first, providers = devices[0].ep_name, None
        options.add_provider_for_devices(devices[:1], {})
    elif first != CPU:
        # The CUDA and cuDNN libraries that the extra `cuda` installs, if they are present.
        ort.preload_dlls()
    try:
        with warnings.catch_warnings(action="ignore"), floating_point_kept():
            # Otherwise, onnxruntime prints what failed and goes on with the CPU.
            session = ort.InferenceSession(str(path), options, providers=providers, enable_fallback=False)
    except Exception as error:  # onnxruntime raises a dozen types of its own
        if request.kind == "cuda-graph":
            raise InputError(f"{path}: does not load for a CUDA graph ({first_line(error)})") from error
        if first != CPU and _loads_on_the_cpu(path):
            raise DeviceError(f"{path}: {first} did not start ({first_line(error)})") from error
        raise InputError(f"{path}: not a readable ONNX model ({first_line(error)})") from error
    if first not in session.get_providers():
        reason = cuda_state().problem or "see onnxruntime's messages above"
        raise DeviceError(f"{path}: {first} did not start: {reason}")
    return session


def session_options(threads: int | None) -> ort.SessionOptions:
    """Options of every session."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # For the threads of the session; see `floating_point` for the calling one.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.intra_op_num_threads = session_threads() if threads is None else threads
    return options


def session_threads() -> int:
    """Threads of a session whose caller has no preference; 0: onnxruntime's choice, a thread bound to each core.

    That choice counts all cores of the machine. A process that may use fewer would have threads that wait for each
    other on the same core, which made networks half as fast.
    """
    cores = available_cores()
    return cores if cores < (os.cpu_count() or 1) else 0


def _loads_on_the_cpu(path: Path) -> bool:
    try:
        with floating_point_kept():
            ort.InferenceSession(str(path), session_options(1), providers=[CPU])
    except Exception:  # as above
        return False
    return True


def assigned_nodes(session: ort.InferenceSession) -> dict[str, list[Any]]:
    """Nodes of the graph, after onnxruntime's fusions, by the provider that runs them."""
    nodes: dict[str, list[Any]] = {}
    for subgraph in session.get_provider_graph_assignment_info():
        nodes.setdefault(subgraph.ep_name, []).extend(subgraph.get_nodes())
    return nodes


def fallback_line(path: Path, session: ort.InferenceSession) -> str | None:
    """What of a session on another device runs on the CPU, and what that costs; None if nothing does."""
    placed = assigned_nodes(session)
    on_cpu = placed.get(CPU, [])
    if not on_cpu or len(placed) == 1:
        return None
    kinds = Counter(node.op_type for node in on_cpu)
    names = ", ".join(f"{kind} {count}" if count > 1 else kind for kind, count in kinds.most_common())
    total = sum(map(len, placed.values()))
    crossing = _bytes_around(path, {node.name for node in on_cpu})
    return (
        f"{path.name}: {len(on_cpu)} of {total} nodes run on the CPU ({names}), with up to {crossing / 1e3:.3g} kB per "
        "pattern that cross between device and memory"
    )


def _bytes_around(path: Path, names: Iterable[str]) -> int:
    """Bytes of the inputs and outputs of some nodes for one pattern, constants left out."""
    graph = inferred_graph(onnx.load(path))
    constants = {tensor.name for tensor in graph.initializer}
    sizes = {
        value.name: math.prod(axis.dim_value or 1 for axis in value.type.tensor_type.shape.dim)
        * onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).itemsize
        for value in (*graph.input, *graph.output, *graph.value_info)
    }
    chosen = set(names)
    around = {
        name
        for node in graph.node
        if node.name in chosen
        for name in (*node.input, *node.output)
        if name not in constants
    }
    return sum(sizes.get(name, 0) for name in around)
