"""An artifact that runs in this process, in one onnxruntime session, with the contract stored in its file."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ptychonnx.runtime.contract.integrity import check_model_file, stored_contract
from ptychonnx.runtime.errors import DeviceError, InputError, first_line
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.data_parallel import DataParallelRun, available_cores, is_worth_splitting
from ptychonnx.runtime.inference.io_binding import BoundRun, check_capture
from ptychonnx.runtime.inference.predictor import DEFAULT_BATCH, Batches, Beam, Predictor, complex_patches
from ptychonnx.runtime.inference.providers import preload_cuda, provider_list
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.beam_arrays import beam_arrays

__all__ = ["Session"]

_CPU = "CPUExecutionProvider"
_TYPES = {"float32": "float", "uint16": "uint16"}


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
            ``auto``, ``tensorrt``, ``cuda``, ``cuda-graph`` or ``cpu``; see `ptychonnx.runtime.inference.providers`.
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
            provider is unknown; or if the network cannot be captured as the requested CUDA graph.
        VerificationError
            If the graph or the contract differs from its stored hash.
        DeviceError
            If the provider is unavailable on this machine.
        """
        self.path = artifact_path(path)
        self.requested_provider = provider
        self.threads = threads
        self.contract = stored_contract(self.path, check_model_file(self.path, max_bytes))
        self._session = self._open(provider)
        self._check_graph()
        if provider == "cuda-graph":
            check_capture(self.contract, str(path), self.placement())
        on_cpu = self.provider == _CPU
        self._bound = None
        if bound or (bound is None and not on_cpu):
            self._bound = BoundRun(self._session, self.contract, "cpu" if on_cpu else "cuda")
        self._parts = (threads or available_cores()) if on_cpu and self._bound is None else 1
        self._parallel: DataParallelRun | None = None
        self._loading = threading.Lock()

    def _open(self, provider: str) -> ort.InferenceSession:
        options = _options(self.threads)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        providers = provider_list(provider)
        if providers[0][0] != _CPU:
            preload_cuda()
        try:
            session = ort.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # onnxruntime raises a dozen types of its own
            if provider == "cuda-graph":
                raise InputError(
                    f"{self.path}: does not load for a CUDA graph ({first_line(error)})"
                ) from error
            raise InputError(f"{self.path}: not a readable ONNX model ({first_line(error)})") from error
        if provider != "auto" and providers[0][0] not in session.get_providers():
            raise DeviceError(
                f"{self.path}: provider {provider!r} did not start, see onnxruntime's messages above"
            )
        return session

    def _check_graph(self) -> None:
        """Compare names, shapes and types of the graph's inputs and outputs with the contract."""
        contract = self.contract
        inputs = {value.name: value for value in self._session.get_inputs()}
        outputs = {value.name: value for value in self._session.get_outputs()}
        if unknown := set(inputs) - {tensor.name for tensor in contract.inputs}:
            raise InputError(
                f"{self.path}: the graph takes {', '.join(sorted(unknown))} too, which the contract does not name"
            )
        for tensor in contract.inputs:
            self._check_value("input", tensor.name, inputs, tensor.shape, _TYPES[tensor.dtype])
        if contract.beam is not None:
            defaults = {value.name: value for value in self._session.get_overridable_initializers()}
            for name, shape in contract.beam.shapes(contract.n).items():
                if name not in defaults or tuple(defaults[name].shape) != shape:
                    raise InputError(
                        f"{self.path}: contract promises input {name!r} of shape {[*shape]} with a default, the graph "
                        f"has {[(value.name, value.shape) for value in defaults.values()]}"
                    )
        self._check_value("output", contract.output.name, outputs, self._output_shape, "float")

    def _check_value(
        self, kind: str, name: str, values: dict[str, ort.NodeArg], shape: Sequence[int], dtype: str
    ) -> None:
        if name not in values:
            raise InputError(f"{self.path}: contract names {kind} {name!r}, the graph has {sorted(values)}")
        value = values[name]
        promise = f"{self.path}: contract promises"
        fixed = value.shape[0] if isinstance(value.shape[0], int) else None
        if fixed != self.contract.batch:
            raise InputError(
                f"{promise} {_batch(self.contract.batch)} of {kind} {name!r}, the graph has {_batch(fixed)}"
            )
        if list(value.shape[1:]) != list(shape):
            raise InputError(
                f"{promise} {kind} {name!r} of shape [batch, {', '.join(map(str, shape))}], the graph has {value.shape}"
            )
        if value.type != f"tensor({dtype})":
            raise InputError(f"{promise} {kind} {name!r} of type {dtype}, the graph has {value.type}")

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
        """Name of the session's first execution provider."""
        return self._session.get_providers()[0]

    def placement(self) -> dict[str, Counter[str]]:
        """Count the operators of the graph, after onnxruntime's fusions, by the provider that runs them."""
        counts: dict[str, Counter[str]] = {}
        for subgraph in self._session.get_provider_graph_assignment_info():
            operators = counts.setdefault(subgraph.ep_name, Counter())
            operators.update(node.op_type for node in subgraph.get_nodes())
        return counts

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
        try:
            if self._bound is not None:
                return self._bound(*inputs, beam=beam)
            if self.contract.batch is None and is_worth_splitting(len(inputs[0]), self._parts):
                return self._data_parallel()(*inputs, beam=beam)
            names = (tensor.name for tensor in self.contract.inputs)
            feed = dict(zip(names, map(np.ascontiguousarray, inputs), strict=True)) | dict(beam)
            (output,) = self._session.run([self.contract.output.name], feed)
        except Exception as error:  # onnxruntime raises a dozen types of its own
            raise DeviceError(f"{self.path}: failed on {self.provider} ({first_line(error)})") from error
        return output

    def _data_parallel(self) -> DataParallelRun:
        """Load the artifact a second time, with one thread per operator, when it is first needed."""
        with self._loading:
            if self._parallel is None:
                session = ort.InferenceSession(str(self.path), _options(1), providers=[_CPU])
                self._parallel = DataParallelRun(session, self._parts)
            return self._parallel

    def _run_padded(self, inputs: Sequence[NDArray], batch: int, beam: Beam) -> NDArray[np.float32]:
        """Run in batches of a fixed size; the last is padded with its last group, whose output is dropped."""
        count = len(inputs[0])
        output = np.empty((count, *self._output_shape), dtype=np.float32)
        for start in range(0, count, batch):
            parts = [array[start : start + batch] for array in inputs]
            padded = [part.take(range(batch), axis=0, mode="clip") for part in parts]
            output[start : start + batch] = self._run(padded, beam)[: len(parts[0])]
        return output

    @property
    def _output_shape(self) -> tuple[int, ...]:
        contract = self.contract
        return (contract.n, contract.n, contract.channels, 2)

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
        for start in range(0, len(groups), batch):
            index = groups[start : start + batch]
            yield index, self.predict(*self.inputs(scan, index), beam=beam)

    def close(self) -> None:
        """End the threads that split batches; onnxruntime frees its session with the last reference."""
        with self._loading:
            if self._parallel is not None:
                self._parallel.close()
                self._parallel = None


def _fits(shape: tuple[int, ...], expected: tuple[int | str, ...]) -> bool:
    """Whether a shape is the expected one, where an axis with a name may have any length but 0."""
    return len(shape) == len(expected) and all(
        size > 0 if isinstance(axis, str) else size == axis
        for size, axis in zip(shape, expected, strict=True)
    )


def _options(threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Denormal numbers are many times slower on Intel processors. onnxruntime applies this to the threads of every
    # session, and to the calling thread when it is the first session of the process: NumPy there flushes them too.
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _batch(size: int | None) -> str:
    return "any batch" if size is None else f"a batch of {size}"
