"""Patches that the network predicted while the scan ran, as a predictor for the reconstruction at its end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor
from ptychonnx.runtime.inference.predictor import Batches, Beam
from ptychonnx.runtime.live.record_file import RecordFile
from ptychonnx.runtime.scan import Scan

__all__ = ["StoredPatches"]


class StoredPatches(Predictor):
    """Answers `batches` with stored patches, so that `reconstruct` stitches them as those of a finished file."""

    def __init__(self, network: Predictor, patches: RecordFile, records: NDArray[np.intp]) -> None:
        """Patches in order of the scan.

        `records`: int [n], index in `patches` of each pattern of the scan.
        """
        self._network, self._patches, self._records = network, patches, records
        self.contract = network.contract

    @property
    def name(self) -> str:
        return self._network.name

    @property
    def provider(self) -> str:
        """Execution provider, or server, of the network."""
        return self._network.provider

    def predict(self, *inputs: NDArray) -> NDArray[np.complex64]:
        return self._network.predict(*inputs)

    def batches(
        self, scan: Scan, groups: NDArray[np.intp], batch: int = DEFAULT_BATCH, beam: Beam | None = None
    ) -> Batches:
        for start in range(0, len(groups), batch):
            index = groups[start : start + batch]
            patches = self._patches.read(self._records[index.reshape(-1)])
            yield index, patches.reshape(*index.shape, *patches.shape[1:])

    def close(self) -> None:
        """The network belongs to the caller."""
