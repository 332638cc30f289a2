"""Running an artifact: one onnxruntime session with the contract that came inside the file."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.contract.integrity import check_model_file
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.batch_sharing import SharedRun, cores, is_worth_sharing
from ptychonnx.runtime.inference.io_binding import BoundRun, check_capture
from ptychonnx.runtime.inference.model import (
    DEFAULT_BATCH,
    check_inputs,
    check_scan,
    network_inputs,
    transmission,
)
from ptychonnx.runtime.inference.providers import preload_cuda, provider_list
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.scan import Scan

__all__ = ["DEFAULT_BATCH", "Session"]


class Session:
    """An artifact, loaded and ready: a `ptychonnx.runtime.inference.model.Network` in this process.

    Attributes
    ----------
    contract
        What the artifact says of itself.
    path
        The file.
    wanted_provider, threads
        As they were given.

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
            The file, or ``zoo:NAME`` for a network that comes with ptychonnx.
        provider
            ``auto``, ``tensorrt``, ``cuda``, ``cuda-graph`` or ``cpu``; see `ptychonnx.runtime.inference.providers`.
        threads
            Threads on the CPU, which share a batch if it is large enough (see `inference.batch_sharing`), and every
            operator otherwise; if None, one for each core, and onnxruntime's own choice inside an operator.
        max_bytes
            Largest file that is opened; see `ptychonnx.runtime.contract.integrity.check_model_file`.
        bound
            Run through buffers that are used again, see `inference.io_binding`; if None, wherever the network does
            not run on the CPU, where it gains nothing (docs/decisions/0011-cpu-runtime.md).

        Raises
        ------
        InputError
            If the file is missing, is no ONNX model or an unsafe one, carries no contract, does not keep to
            it, the provider is not to be had, or a CUDA graph is wanted and cannot be.
        """
        self.path = artifact_path(path)
        self.wanted_provider = provider
        self.threads = threads
        check_model_file(self.path, max_bytes)
        options = _options(threads)
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        providers = provider_list(provider)
        if providers[0][0] != "CPUExecutionProvider":
            preload_cuda()
        try:
            self._session = ort.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # onnxruntime raises a dozen types of its own
            reason = str(error).strip().splitlines()[0]
            if provider == "cuda-graph":
                raise InputError(f"{path}: does not load for a CUDA graph ({reason})") from error
            raise InputError(f"{path}: not a readable ONNX model ({reason})") from error
        if provider != "auto" and providers[0][0] not in self._session.get_providers():
            raise InputError(f"{path}: provider {provider!r} did not start, see onnxruntime's messages above")
        metadata = self._session.get_modelmeta().custom_metadata_map
        if CONTRACT_KEY not in metadata:
            raise InputError(
                f"{path}: no {CONTRACT_KEY} in its metadata, expected an artifact of `ptychonnx export`"
            )
        self.contract = Contract.from_json(metadata[CONTRACT_KEY], str(path))
        self._check_graph()
        if provider == "cuda-graph":
            check_capture(self.contract, str(path), self.placement())
        on_cpu = self.provider == "CPUExecutionProvider"
        self._bound = None
        if bound or (bound is None and not on_cpu):
            self._bound = BoundRun(self._session, self.contract, "cpu" if on_cpu else "cuda")
        self._sharing = (threads or cores()) if on_cpu and self._bound is None else 1
        self._shared: SharedRun | None = None
        self._loading = threading.Lock()

    def _check_graph(self) -> None:
        contract = self.contract
        inputs = {value.name: value for value in self._session.get_inputs()}
        outputs = {value.name: value for value in self._session.get_outputs()}
        types = {"float32": "float", "uint16": "uint16"}
        if unknown := set(inputs) - {tensor.name for tensor in contract.inputs}:
            raise InputError(
                f"{self.path}: the graph takes {', '.join(sorted(unknown))} too, which the contract does not name"
            )
        for kind, name, values, expected, dtype in (
            *(("input", each.name, inputs, [*each.shape], types[each.dtype]) for each in contract.inputs),
            ("output", contract.output.name, outputs, [*self._output_shape], "float"),
        ):
            if name not in values:
                raise InputError(
                    f"{self.path}: contract names {kind} {name!r}, the graph has {sorted(values)}"
                )
            fixed = values[name].shape[0] if isinstance(values[name].shape[0], int) else None
            if fixed != contract.batch:
                raise InputError(
                    f"{self.path}: contract promises {_batch(contract.batch)} of {kind} {name!r}, the graph has "
                    f"{_batch(fixed)}"
                )
            if list(values[name].shape[1:]) != expected:
                raise InputError(
                    f"{self.path}: contract promises {kind} {name!r} of shape [batch, "
                    f"{', '.join(map(str, expected))}], the graph has {values[name].shape}"
                )
            if values[name].type != f"tensor({dtype})":
                raise InputError(
                    f"{self.path}: contract promises {kind} {name!r} of type {dtype}, the graph has "
                    f"{values[name].type}"
                )

    @property
    def name(self) -> str:
        """Name of the file, as messages and reports have it."""
        return self.path.name

    @property
    def source(self) -> str:
        """Path of the file."""
        return str(self.path)

    @property
    def requests(self) -> None:
        """None: nothing is sent to a server."""
        return None

    @property
    def provider(self) -> str:
        """Name of the execution provider that comes first in the session."""
        return self._session.get_providers()[0]

    def placement(self) -> dict[str, Counter[str]]:
        """Operators of the graph, after onnxruntime's own fusions, counted by the provider that runs them."""
        counts: dict[str, Counter[str]] = {}
        for subgraph in self._session.get_provider_graph_assignment_info():
            operators = counts.setdefault(subgraph.ep_name, Counter())
            operators.update(node.op_type for node in subgraph.get_nodes())
        return counts

    def check_scan(self, scan: Scan) -> None:
        """Refuse a scan that does not fit the contract.

        Raises
        ------
        InputError
            On another N, too few patterns for the gridsize, or a contract this version cannot honour.
        """
        check_scan(self.contract, self.name, scan)

    def predict(self, *inputs: NDArray) -> NDArray[np.complex64]:
        """Patches of one batch.

        Parameters
        ----------
        inputs
            Patterns [batch, C, N, N], float32 amplitudes or uint16 counts if the contract's domain is ``counts``; and
            offsets float32 [batch, C, 2] if the contract has them, see `ptychonnx.runtime.scan.grouping.group_offsets`.

        Returns
        -------
        complex64 [batch, C, N, N], transmission of the object in each window; no later run changes it.

        Raises
        ------
        InputError
            On another number, shape or data type: amplitudes and counts are never converted in silence.
        """
        contract = self.contract
        check_inputs(contract, self.name, inputs)
        if contract.batch is None or contract.batch == len(inputs[0]):
            parts = self._run(inputs)
        else:
            parts = self._run_fixed(inputs, contract.batch)
        return transmission(parts)

    def _run(self, inputs: Sequence[NDArray]) -> NDArray[np.float32]:
        if self._bound is not None:
            return self._bound(*inputs)
        if self.contract.batch is None and is_worth_sharing(len(inputs[0]), self._sharing):
            return self._share()(*inputs)
        names = (tensor.name for tensor in self.contract.inputs)
        feed = dict(zip(names, map(np.ascontiguousarray, inputs), strict=True))
        (parts,) = self._session.run([self.contract.output.name], feed)
        return parts

    def _share(self) -> SharedRun:
        """The artifact once more, with one thread inside an operator; loaded when it is first needed."""
        with self._loading:
            if self._shared is None:
                session = ort.InferenceSession(
                    str(self.path), _options(1), providers=["CPUExecutionProvider"]
                )
                self._shared = SharedRun(session, self._sharing)
            return self._shared

    def _run_fixed(self, inputs: Sequence[NDArray], batch: int) -> NDArray[np.float32]:
        """In batches of one size; the last is filled up with its own last patterns, whose patches are dropped."""
        patterns = len(inputs[0])
        found = np.empty((patterns, *self._output_shape), dtype=np.float32)
        for start in range(0, patterns, batch):
            some = [each[start : start + batch] for each in inputs]
            padded = [each.take(range(batch), axis=0, mode="clip") for each in some]
            found[start : start + batch] = self._run(padded)[: len(some[0])]
        return found

    @property
    def _output_shape(self) -> tuple[int, ...]:
        contract = self.contract
        return (contract.n, contract.n, contract.channels, 2)

    def batches(
        self, scan: Scan, groups: NDArray[np.intp], batch: int = DEFAULT_BATCH
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.complex64]]]:
        """Run the groups of a scan in batches; the last one may be smaller.

        Yields
        ------
        (indices [m, C], patches complex64 [m, C, N, N]) for each batch.

        Raises
        ------
        InputError
            If the batch is not positive, or a count does not fit the contract's type.
        """
        if batch < 1:
            raise InputError(f"batch is {batch}, expected at least 1")
        for start in range(0, len(groups), batch):
            index = groups[start : start + batch]
            yield index, self.predict(*network_inputs(self.contract, self.name, scan, index))

    def close(self) -> None:
        """End the threads that share batches; onnxruntime frees its session with the last reference."""
        with self._loading:
            if self._shared is not None:
                self._shared.close()
                self._shared = None


def _options(threads: int | None) -> ort.SessionOptions:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    return options


def _batch(size: int | None) -> str:
    return "any batch" if size is None else f"a batch of {size}"
