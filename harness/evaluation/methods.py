"""Reconstruction methods: a network, iterations that refine its object, iterations from vacuum, a finished object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version

import numpy as np

from ptychonnx.harness.evaluation.object_method import ObjectMethod
from ptychonnx.harness.evaluation.results import EvaluationRow, ScanResult
from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.iterations import MOST_EPOCHS, Epochs
from ptychonnx.harness.iterative.refinement import refine
from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor, Session
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.scan import Scan

__all__ = ["IterativeMethod", "Method", "NetworkMethod"]


@dataclass(frozen=True)
class NetworkMethod:
    """A network, in this process or on a server.

    `batch` and `is_tuned`: patterns in one run of the network, and whether trials determined that number.
    """

    label: str
    network: Predictor
    batch: int = DEFAULT_BATCH
    is_tuned: bool = False
    stitching: ReconstructOptions = field(default_factory=ReconstructOptions)

    @property
    def contract(self) -> Contract:
        """Contract of the network."""
        return self.network.contract

    def reconstruct(
        self, scan: Scan, earlier: Mapping[str, Reconstruction], progress: Progress = SILENT
    ) -> Reconstruction:
        """Run every pattern through the network, after one batch that is not timed; `earlier` is not used."""
        self._warm_up(scan)
        progress.stage(f"Evaluating {self.label}", len(scan), "patterns")
        return reconstruct(self.network, scan, self.stitching, self.batch, progress)

    def row(self, results: dict[str, ScanResult]) -> EvaluationRow:
        """Row of the artifact or served network."""
        network = self.network
        notes = []
        if self.label != self.contract.label:
            notes.append(
                f"several artifacts are labelled {self.contract.label!r}: told apart by the names of the files or "
                "servers"
            )
        if self.is_tuned and isinstance(network, Session):
            count = network.threads
            threads = "" if count is None else f" and {count} thread{'s' * (count > 1)}"
            notes.append(f"ran in a batch of {self.batch}{threads}, which was fastest in trials")
        return EvaluationRow(self.label, network.name, self.contract, network.provider, results, tuple(notes))

    def _warm_up(self, scan: Scan) -> None:
        """Run one batch: the first run of a session also allocates memory."""
        count = min(self.batch, len(scan))
        group = np.arange(self.contract.channels)
        for _ in self.network.batches(scan, np.tile(group, (count, 1)), count):
            pass


@dataclass(frozen=True)
class IterativeMethod:
    """Iterations from vacuum, or from the object of a network.

    * `epochs`, `algorithm`: see `ptychonnx.harness.iterative.refinement.refine`.
    * `start`: method whose object the iterations start from; vacuum if None.
    """

    epochs: Epochs
    algorithm: Algorithm
    start: NetworkMethod | None = None

    @property
    def label(self) -> str:
        """Label of the row, such as ``pinn_fno + mPIE 5``."""
        if self.start is None:
            return f"iterative ({self.algorithm.name} {self.epochs})"
        return f"{self.start.label} + {self.algorithm.name} {self.epochs}"

    @property
    def contract(self) -> Contract | None:
        """Contract of the network that the iterations start from."""
        return None if self.start is None else self.start.contract

    def reconstruct(
        self, scan: Scan, earlier: Mapping[str, Reconstruction], progress: Progress = SILENT
    ) -> Reconstruction:
        """Iterate from vacuum, or from the reconstruction of the network in `earlier`, which is by label."""
        epochs = MOST_EPOCHS if self.epochs == "auto" else self.epochs
        progress.stage(f"Evaluating {self.label}", epochs, "epochs")
        start = None if self.start is None else earlier[self.start.label]
        return refine(scan, start, self.epochs, self.algorithm, progress)

    def row(self, results: dict[str, ScanResult]) -> EvaluationRow:
        """Row without contract and parity."""
        network = None if self.start is None else self.start.network
        return EvaluationRow(
            self.label,
            f"ptychonnx {version('ptychonnx')}",
            None,
            "CPU" if network is None else f"{network.provider}, then CPU",
            results,
            kind="iterations",
            facts={
                "algorithm": self.algorithm.name,
                "epochs": str(self.epochs),
                "start": "vacuum" if network is None else f"the object of {network.name}",
            },
        )


Method = NetworkMethod | IterativeMethod | ObjectMethod
"""One way to reconstruct a scan; all kinds have the same interface."""
