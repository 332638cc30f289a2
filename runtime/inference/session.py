"""An artifact that runs in this process, in one onnxruntime session, with the contract stored in its file."""

from __future__ import annotations

import logging
import weakref
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ptychonnx.runtime.contract.integrity import check_model_file, stored_contract
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.cuda_libraries import cuda_state
from ptychonnx.runtime.inference.data_parallel import SessionRun, SharedRun
from ptychonnx.runtime.inference.floating_point import floating_point_kept
from ptychonnx.runtime.inference.graph_agreement import check_agreement
from ptychonnx.runtime.inference.io_binding import BoundRun, check_capture
from ptychonnx.runtime.inference.onnxruntime_session import (
    CPU,
    assigned_nodes,
    fallback_line,
    open_session,
)
from ptychonnx.runtime.inference.openvino_run import OpenVinoRun
from ptychonnx.runtime.inference.predictor import DEFAULT_BATCH, Batches, Beam, Predictor, complex_patches
from ptychonnx.runtime.inference.providers import ProviderRequest
from ptychonnx.runtime.inference.resilient_run import ResilientRun, Run
from ptychonnx.runtime.machine import available_cores
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.beam_arrays import beam_arrays
from ptychonnx.runtime.validation import whole_number

__all__ = ["Session"]

_logger = logging.getLogger(__name__)

# Batches of a scan that are on their way at a time on a GPU: one is copied while another is computed.
_IN_FLIGHT = 2


class Session(Predictor):
    """A loaded artifact: predicts patches of the object from diffraction patterns.

    Attributes
    ----------
    contract : Contract
        Description of inputs and outputs that the artifact carries.
    path : pathlib.Path
        The file.
    requested_provider, threads
        The arguments of the same meaning.

    Examples
    --------
    >>> import ptychonnx
    >>> session = ptychonnx.Session("zoo:pinn_fno", provider="cpu")
    >>> session.contract.n, session.provider
    (64, 'CPUExecutionProvider')
    >>> scan = ptychonnx.simulate_lines(grid=3)
    >>> patches = session.predict(scan.diffraction[:, None])  # [batch, C, N, N]
    >>> patches.shape, patches.dtype
    ((9, 1, 64, 64), dtype('complex64'))
    """

    def __init__(
        self,
        path: StrPath,
        provider: str = "auto",
        threads: int | None = None,
        max_bytes: int | None = None,
        *,
        bound: bool | None = None,
    ) -> None:
        """Load an artifact.

        Parameters
        ----------
        path
            An ``.onnx`` file with a contract, as `ptychonnx export` or `ptychonnx adopt` writes it, or
            ``zoo:NAME`` for a network that comes with ptychonnx.
        provider
            ``auto``, ``cpu``, ``cuda``, ``cuda:0,1`` (devices), ``cuda:tf32``, ``cuda-graph``, ``tensorrt``,
            ``openvino``, ``openvino:bfloat16`` or ``plugin:NAME=PATH``; see `ptychonnx.runtime.inference.providers`.
        threads
            Threads on the CPU. They split a batch if it is large enough (see `inference.data_parallel`), and every
            operator otherwise. None: one thread per core, and onnxruntime's own choice inside an operator.
        max_bytes
            Largest file that is opened; see `ptychonnx.runtime.contract.integrity.check_model_file`.
        bound
            Whether to run through preallocated buffers (see `inference.io_binding`). None: unless the network runs on
            the CPU, where they gain nothing (docs/decisions/0011-cpu-runtime.md).

        Raises
        ------
        InputError
            If the file is missing, is not an ONNX model, is unsafe, has no contract or contradicts it; if the
            provider is unknown or `threads` is no number above 0; or if the network cannot be captured as the requested
            CUDA graph.
        VerificationError
            If the graph or the contract differs from its stored hash.
        DeviceError
            If the provider is unavailable on this machine.
        """
        if threads is not None and (whole_number(threads) or 0) < 1:
            raise InputError(f"{path}: {threads} threads, expected a number above 0, or None")
        self.path = artifact_path(path)
        self.requested_provider = provider
        self.threads = threads
        self._request = request = ProviderRequest.parse(provider)
        self.contract = stored_contract(self.path, check_model_file(self.path, max_bytes))
        sessions = [open_session(self.path, request, threads, device) for device in request.devices]
        self._session = sessions[0]
        check_agreement(self._session, self.contract, self.path)
        if request.kind == "cuda-graph":
            check_capture(self.contract, str(path), self.placement())
        if len(sessions) > 1 and self.contract.batch is not None:
            raise InputError(
                f"{path}: takes batches of {self.contract.batch}, several devices need any batch"
            )
        self._plain: SessionRun | None = None
        self._left = ""
        run = self._start(sessions, bound)
        # A run that held the session would keep its threads alive.
        take_over = weakref.WeakMethod(self._take_over)
        on_cpu = None if self.provider == CPU else lambda: take_over()()  # type: ignore[misc]
        self._resilient = ResilientRun(
            str(self.path), self.provider, run, self.contract.batch is None, on_cpu
        )
        self._say_where()

    def _start(self, sessions: Sequence[ort.InferenceSession], bound: bool | None) -> Run:
        """Choose how batches run."""
        request, self._bound, self._in_flight = self._request, None, 1
        on_cpu = self._session.get_providers()[0] == CPU
        if request.kind == "openvino":
            return OpenVinoRun(self.path.read_bytes(), request.bfloat16, self.threads or available_cores())
        if bound or (bound is None and not on_cpu and request.plugin is None):
            device = "cpu" if on_cpu else "cuda"
            self._in_flight = _IN_FLIGHT if self.contract.batch is None else 1
            runs = [
                BoundRun(session, self.contract, device, number, self._in_flight)
                for session, number in zip(sessions, request.devices, strict=True)
            ]
            self._bound = runs[0]
            return SharedRun(runs) if len(runs) > 1 else runs[0]
        return self._run_plain((self.threads or available_cores()) if on_cpu else 1)

    def _run_plain(self, threads: int) -> SessionRun:
        self._plain = SessionRun(self.path, self._session, self.contract, threads)
        return self._plain

    def _say_where(self) -> None:
        if line := fallback_line(self.path, self._session):
            _logger.warning("%s", line)
        if self._request.kind == "auto":
            problem = cuda_state().problem if self.provider == CPU else None
            # Worth a line where there is a GPU.
            level = logging.INFO if cuda_state().driver else logging.DEBUG
            took = f"{self.provider}: {problem}" if problem else self.provider
            _logger.log(level, "%s: provider auto took %s", self.name, took)

    @property
    def name(self) -> str:
        """Name of the file."""
        return self.path.name

    @property
    def source(self) -> str:
        """Path of the file."""
        return str(self.path)

    @property
    def provider(self) -> str:
        """Name of the session's first execution provider, or of OpenVINO."""
        if self._request.kind == "openvino" and not self._left:
            return "OpenVINO, bfloat16" if self._request.bfloat16 else "OpenVINO"
        return self._left + self._session.get_providers()[0]

    def placement(self) -> dict[str, Counter[str]]:
        """Count the operators of the graph, after onnxruntime's fusions, by the provider that runs them.

        OpenVINO runs all of them, after fusions of its own.
        """
        placed = {
            provider: Counter(node.op_type for node in nodes)
            for provider, nodes in assigned_nodes(self._session).items()
        }
        if self._request.kind == "openvino" and not self._left:
            return {self.provider: sum(placed.values(), Counter())}
        return placed

    def predict(self, *inputs: NDArray, beam: Beam | None = None) -> NDArray[np.complex64]:
        """Predict the patches of one batch, see `Predictor.predict`.

        Parameters
        ----------
        beam
            Probe, mask and scale of a general artifact by name, see `ptychonnx.runtime.scan.beam_arrays`; its defaults
            if None.
        """
        self._check_inputs(inputs)
        beam = self._check_beam(beam or {})
        batch = self.contract.batch
        if batch is None or batch == len(inputs[0]):
            return complex_patches(self._run(inputs, beam))
        return complex_patches(self._run_padded(inputs, batch, beam))

    @property
    def largest_batch(self) -> int | None:
        """Largest batch that the memory was found to hold; None if every batch so far fitted."""
        return self._resilient.largest

    def repeat(self, batch: int) -> bool:
        """Run again on inputs that are on the device, for timing: nothing is copied; False without such buffers."""
        if self._bound is not None:
            self._bound.repeat(batch)
        return self._bound is not None

    def _check_beam(self, beam: Beam) -> dict[str, NDArray[np.float32]]:
        expected = {} if self.contract.beam is None else self.contract.beam.shapes(self.contract.n)
        if beam and set(beam) != set(expected):
            raise InputError(
                f"{self.name}: got {', '.join(sorted(beam))}, expected "
                + (", ".join(expected) if expected else "no beam: the artifact holds one beam")
            )
        for name, values in beam.items():
            if values.dtype != np.float32 or not _fits(values.shape, expected[name]):
                raise InputError(
                    f"{self.name}: {name} is {values.dtype} {list(values.shape)}, expected float32 "
                    f"[{', '.join(map(str, expected[name]))}]"
                )
        return {name: np.asarray(values, order="C") for name, values in beam.items()}

    def _run(self, inputs: Sequence[NDArray], beam: Beam) -> NDArray[np.float32]:
        with floating_point_kept(flushed=True):
            return self._resilient(*inputs, beam=beam)

    def _take_over(self) -> Run:
        """The run on the CPU that goes on after the device failed."""
        session = open_session(self.path, ProviderRequest("cpu"), self.threads)
        self._left = f"{self.provider}, then "
        self._session, self._bound, self._in_flight = session, None, 1
        return self._run_plain(self.threads or available_cores())

    def _run_padded(self, inputs: Sequence[NDArray], batch: int, beam: Beam) -> NDArray[np.float32]:
        """Run in batches of a fixed size; the last is padded with its last group, whose output is dropped."""
        count = len(inputs[0])
        contract = self.contract
        output = np.empty((count, contract.n, contract.n, contract.channels, 2), dtype=np.float32)
        for start in range(0, count, batch):
            parts = [array[start : start + batch] for array in inputs]
            padded = [part.take(range(batch), axis=0, mode="clip") for part in parts]
            output[start : start + batch] = self._run(padded, beam)[: len(parts[0])]
        return output

    def beam(self, scan: Scan) -> Beam:
        """The beam of a scan for a general artifact, see `Predictor.beam`."""
        return {} if self.contract.beam is None else beam_arrays(scan, self.contract.beam.modes)

    def batches(
        self, scan: Scan, groups: NDArray[np.intp], batch: int = DEFAULT_BATCH, beam: Beam | None = None
    ) -> Batches:
        """Predict the patches of a scan, batch by batch, see `Predictor.batches`.

        A general artifact takes the probe, the mask and the brightness of the scan.
        """
        if batch < 1:
            raise InputError(f"batch is {batch}, expected at least 1")
        beam = self.beam(scan) if beam is None else beam
        indices = (groups[start : start + batch] for start in range(0, len(groups), batch))
        if self._in_flight == 1:
            for index in indices:
                yield index, self.predict(*self.inputs(scan, index), beam=beam)
            return
        running: deque[tuple[NDArray[np.intp], Future[NDArray[np.complex64]]]] = deque()
        with ThreadPoolExecutor(self._in_flight, thread_name_prefix="ptychonnx-device") as pool:
            for index in indices:
                running.append((index, pool.submit(self.predict, *self.inputs(scan, index), beam=beam)))
                if len(running) > self._in_flight:
                    first, patches = running.popleft()
                    yield first, patches.result()
            for index, patches in running:
                yield index, patches.result()

    def close(self) -> None:
        """End the threads that split batches; onnxruntime frees its session with the last reference."""
        if self._plain is not None:
            self._plain.close()


def _fits(shape: tuple[int, ...], expected: tuple[int | str, ...]) -> bool:
    """Whether a shape is the expected one, where an axis with a name may have any length but 0."""
    return len(shape) == len(expected) and all(
        size > 0 if isinstance(axis, str) else size == axis
        for size, axis in zip(shape, expected, strict=True)
    )
