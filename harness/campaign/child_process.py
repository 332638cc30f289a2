"""One reconstruction as a child process of ptychodus 1.7, by the protocol of its `reconstruct_subprocess`.

Input
    A folder with `diffraction.h5` and `product.h5`, as every ptychodus run leaves it.
Events
    One JSON object a line: `started`, `epoch`, `checkpoint`, `cancelling`, `finished`, `error`. The network is epoch 1,
    and each epoch of mPIE after it one more; the loss is the forward misfit of the network, and the misfit of the
    amplitudes after it.
Output
    `product.h5`, and `product.000001.h5`, the object of the network alone, if iterations follow. Positions keep the
    indexes of the input.
Cancellation
    The first signal asks for it: the network stops at the next batch without an object, the iterations after the
    current epoch with one.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.campaign.scan_run import Networks, RunOptions, check_beam
from ptychonnx.harness.iterative.iterations import MOST_EPOCHS, check_iterative
from ptychonnx.harness.iterative.refinement import refine
from ptychonnx.runtime.atomic import atomic_path
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.writers.reconstruction_file import write_reconstruction
from ptychonnx.runtime.inference import Predictor
from ptychonnx.runtime.progress import Callback, ProgressUpdate
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.scan import Scan

__all__ = ["CANCELLED", "FAILURE", "LOG", "SUCCESS", "USAGE", "ChildProcess", "IndexFilter"]

SUCCESS, FAILURE, USAGE, CANCELLED = 0, 1, 2, 130
LOG = "ptychodus.log"
_DIFFRACTION, _PRODUCT = "diffraction.h5", "product.h5"

IndexFilter = Literal["all", "odd", "even"]


class _Cancelled(Exception):
    """The parent asked for the end before there was an object."""


@dataclass
class ChildProcess:
    """A reconstruction that reports to a parent.

    * `source`, `target`: folders of the input and the output.
    * `model`: artifact; the general network of the zoo if None.
    * `options`: how the scan is read and reconstructed; `iterations` follow the network.
    * `send`: receives each event, as a line.
    * `index_filter`: patterns whose index is odd or even, or all.
    * `log`: file of the log, for the parent.
    """

    source: Path
    target: Path
    model: Path | None
    options: RunOptions
    send: Callable[[bytes], object]
    index_filter: IndexFilter = "all"
    log: Path | None = None
    _began: float = field(default_factory=time.monotonic)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancel(self, signal: str) -> None:
        """Ask for the end; called by a handler of signals."""
        if not self._cancelled.is_set():
            self._cancelled.set()
            self._emit("cancelling", signal=signal)

    @property
    def is_cancelled(self) -> bool:
        """Whether the end was asked for."""
        return self._cancelled.is_set()

    def run(self) -> int:
        """Reconstruct; the exit code. Whatever goes wrong is an event."""
        try:
            return self._reconstruct()
        except _Cancelled:
            self._emit("finished", epoch=0, cancelled=True, path=None, elapsed_s=self._elapsed())
            return CANCELLED
        except Exception as error:
            # The parent sees nothing but the events.
            text = traceback.format_exc()
            self._emit("error", type=type(error).__name__, message=str(error), traceback=text)
            return USAGE if isinstance(error, InputError) else FAILURE

    def _reconstruct(self) -> int:
        scan, indexes = self._read()
        refinement = self.options.iterations.refine or 0
        epochs = 1 + (MOST_EPOCHS if refinement == "auto" else refinement)
        with Networks(self.model, self.options.inference) as networks:
            network, scan = self.options.prepared(scan, networks, say=print)
            if refinement:
                check_iterative(scan)
            check_beam(network, scan, self.options.stitching, print)
            network, batch = networks.in_batches(network, scan)
            product = self.target / _PRODUCT
            self._emit(
                "started",
                pid=os.getpid(),
                reconstructor=network.contract.label,
                options_class="ptychonnx",
                num_epochs=epochs,
                num_sync_epochs=1,
                num_patterns=len(scan),
                product_output=str(product),
                log=None if self.log is None else str(self.log),
            )
            watch = Callback(self._stop_if_cancelled)
            result = reconstruct(network, scan, self.options.stitching, batch, watch)
            self._epoch(1, epochs, None if result.misfit is None else result.misfit.value)
            done = 1
            if refinement and not self.is_cancelled:
                checkpoint = self.target / f"{product.stem}.{done:06d}{product.suffix}"
                self._write(checkpoint, result, scan, network, indexes)
                self._emit("checkpoint", epoch=done, path=str(checkpoint))

                def until(misfits: Sequence[float]) -> bool:
                    nonlocal done
                    done = 1 + len(misfits)
                    self._epoch(done, epochs, misfits[-1])
                    return self.is_cancelled

                result = refine(scan, result, refinement, self.options.iterations.algorithm, until=until)
            self._write(product, result, scan, network, indexes)
        cancelled = self.is_cancelled
        self._emit("finished", epoch=done, cancelled=cancelled, path=str(product), elapsed_s=self._elapsed())
        return CANCELLED if cancelled else SUCCESS

    def _read(self) -> tuple[Scan, NDArray[np.integer]]:
        """The scan, and the index of each pattern in the files."""
        files = self.source / _DIFFRACTION, self.source / _PRODUCT
        for path in files:
            if not path.is_file():
                raise InputError(f"{path}: no such file, expected a folder of ptychodus with it")
        scan = self.options.read(files[0])
        with h5py.File(files[0]) as diffraction, h5py.File(files[1]) as product:
            indexes = diffraction["indexes"][:]
            indexes = indexes[np.isin(indexes, product["probe_position_indexes"][:])]
        if len(indexes) != len(scan):
            # Dark patterns were left out, and the file does not say which.
            indexes = np.arange(len(scan))
        if self.index_filter != "all":
            chosen = np.flatnonzero(indexes % 2 == (self.index_filter == "odd"))
            scan, indexes = scan.subset(chosen), indexes[chosen]
        return scan, indexes

    def _write(
        self,
        path: Path,
        result: Reconstruction,
        scan: Scan,
        network: Predictor,
        indexes: NDArray[np.integer],
    ) -> None:
        with atomic_path(path) as partial:
            (written,) = write_reconstruction(
                partial.with_name(f"{partial.name}.h5"), result, scan, network.contract
            )
            with h5py.File(written, "r+") as file:
                if "probe_position_indexes" in file:
                    file["probe_position_indexes"][:] = indexes
            written.replace(partial)

    def _epoch(self, epoch: int, epochs: int, loss: float | None) -> None:
        finite = loss if loss is not None and math.isfinite(loss) else None
        self._emit("epoch", epoch=epoch, num_epochs=epochs, loss=finite, elapsed_s=self._elapsed())

    def _stop_if_cancelled(self, update: ProgressUpdate) -> None:
        if self.is_cancelled:
            raise _Cancelled

    def _elapsed(self) -> float:
        return round(time.monotonic() - self._began, 3)

    def _emit(self, event: str, **fields: Any) -> None:
        # One unbuffered write: a handler of signals may come between any two others.
        self.send(f"{json.dumps({'event': event, **fields}, allow_nan=False)}\n".encode())
