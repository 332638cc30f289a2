"""Reconstruction of a large scan in parts that the workers of an engine compute."""

from __future__ import annotations

import platform
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from ptychonnx.harness.campaign.engines import Engine
from ptychonnx.harness.campaign.scan_run import RunOptions
from ptychonnx.harness.campaign.worker_network import WorkerNetwork, check_shared_folder
from ptychonnx.runtime.errors import EnvironmentFailure, InputError, PtychonnxError
from ptychonnx.runtime.inference import Predictor, Session
from ptychonnx.runtime.progress import Progress
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.misfit import forward_misfit
from ptychonnx.runtime.reconstruction.segment_run import segments
from ptychonnx.runtime.reconstruction.trust import beam_warnings
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.grouping import covering_groups
from ptychonnx.runtime.sharding import Shard, merge_parts, reconstruct_shard
from ptychonnx.runtime.sharding.part_file import opened_part

__all__ = ["LargeScan", "check_shards"]


@dataclass(frozen=True)
class PartTask:
    """One part of a scan."""

    scan: Path
    shard: Shard
    out: Path
    options: RunOptions
    network: WorkerNetwork

    def __str__(self) -> str:
        return f"part {self.shard.number} of {self.shard.count} of {self.scan.name}"


@dataclass(frozen=True)
class LargeScan:
    """A scan that workers reconstruct in parts, which are merged here.

    * `path`: the scan, which the workers read themselves.
    * `options`: how it is read and reconstructed.
    * `engine`: where the workers run.
    * `folder`: where the parts are kept until they are merged; all workers see it.
    * `shards`: number of parts; one per worker if None.
    """

    path: Path
    options: RunOptions
    engine: Engine
    folder: Path
    shards: int | None = None

    def __call__(self, network: Predictor, scan: Scan, batch: int, progress: Progress) -> Reconstruction:
        """Reconstruct the scan; the object is that of one process bit for bit, see `runtime.sharding`.

        Raises InputError if the network is on a server, or there are more parts than segments of the scan. Raises
        EnvironmentFailure if the workers of a part died in every attempt.
        """
        if not isinstance(network, Session):
            raise InputError(f"{network.name}: runs on a server, expected an artifact with --executor")
        inference = self.options.inference.model_copy(update={"batch": batch})
        worker = WorkerNetwork.of(network.path, inference, self.engine.threads)
        count = self.shards or min(self.engine.workers, _segments(network, scan, batch))
        start = time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".parts-") as folder:
            tasks = [
                PartTask(
                    self.path.absolute(),
                    Shard(number, count),
                    Path(folder).absolute() / f"{number}.h5",
                    self.options.absolute(),
                    worker,
                )
                for number in range(1, count + 1)
            ]
            progress.stage(f"Reconstructing {scan.name}", count, "parts")
            for done, (task, outcome) in enumerate(self.engine.run(run_part, tasks), 1):
                if isinstance(outcome, Exception):
                    raise self._failure(task, outcome) from outcome
                _check_part(task, outcome)
                progress.update(done)
            merged = merge_parts(
                [task.out for task in tasks], progress, canvas_memory=self.options.stitching.canvas_bytes
            )
        whole = merged.reconstruction
        return replace(
            whole,
            inference_seconds=time.perf_counter() - start,
            misfit=forward_misfit(scan, whole.stitched, whole.agreement),
            warnings=tuple(beam_warnings(scan, network.contract)),
        )

    def _failure(self, task: PartTask, error: Exception) -> Exception:
        if isinstance(error, PtychonnxError):
            return type(error)(f"{task}: {error}")
        return EnvironmentFailure(f"{task}: {self.engine.reason(error)}")


def check_shards(network: Predictor, scan: Scan, shards: int, options: RunOptions) -> None:
    """Refuse a division into parts that every part would refuse, before any of them is started.

    Raises InputError if the scan does not fit the network, has fewer segments than there are parts, or the batch is to
    be found by trials.
    """
    batch = options.inference.batch
    if batch is None:
        raise InputError("--batch auto: may differ between the parts of a scan, expected a number")
    network.check_scan(scan)
    Shard(1, shards).of(_segments(network, scan, batch))


def _segments(network: Predictor, scan: Scan, batch: int) -> int:
    return len(segments(covering_groups(scan.positions, network.contract.gridsize), batch))


def _check_part(task: PartTask, host: str) -> None:
    """Open a part here, so that a fault is known when the worker has just finished, with its name.

    Raises InputError if the file is not where the worker wrote it, or is cut short.
    """
    try:
        with opened_part(task.out):
            pass
    except InputError as error:
        raise InputError(
            f"{task}: {host} wrote it, and here {error}; do both see the same folder?"
        ) from error


def run_part(task: PartTask) -> str:
    """Reconstruct one part in a worker, whose name is returned.

    Raises PtychonnxError with the name of the machine, since others may work.
    """
    try:
        check_shared_folder(task.out.parent)
        scan = task.options.read(task.scan)
        network = task.network.open().for_scan(scan)
        batch = task.network.inference.batch
        assert batch is not None
        reconstruct_shard(network, scan, task.shard, task.out, task.options.stitching, batch)
        return platform.node()
    except PtychonnxError as error:
        raise type(error)(f"{error} (on {platform.node()})") from error
