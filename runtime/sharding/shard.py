"""One of several processes that reconstruct a scan together: it sums some of the segments."""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.atomic import atomic_path
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.writers.new_hdf5 import new_hdf5
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction.neighbour_agreement import NeighbourPatches
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.reconstruction.segment_run import SegmentRun, run_segments, segments
from ptychonnx.runtime.reconstruction.stitching import Stitcher, patch_weight
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes, photons
from ptychonnx.runtime.scan.grouping import covering_groups
from ptychonnx.runtime.sharding.part_file import (
    PartDescription,
    PatchWriter,
    scan_sha256,
    write_neighbours,
    write_scan_data,
    write_segment,
)

__all__ = ["Shard", "reconstruct_shard"]


@dataclass(frozen=True)
class Shard:
    """Part `number` (from 1) of `count` parts of a scan."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``3/16``.

        Raises InputError if the text is not two whole numbers, the first from 1 to the second.
        """
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise InputError(f"--shard {text}: expected a number and a count, from 1/16 to 16/16 for example")
        return cls(int(match[1]), int(match[2]))

    def of(self, length: int) -> NDArray[np.intp]:
        """Numbers of the segments of this shard, of `length` in all; consecutive, and as many as others have.

        Raises InputError if there are more shards than segments.
        """
        if self.count > length:
            raise InputError(
                f"--shard {self.number}/{self.count}: the scan has {length} segments, expected at most {length} shards"
            )
        return np.array_split(np.arange(length), self.count)[self.number - 1]


def reconstruct_shard(
    session: Predictor,
    scan: Scan,
    shard: Shard,
    out: StrPath,
    stitching: ReconstructOptions | None = None,
    batch: int = DEFAULT_BATCH,
    progress: Progress = SILENT,
) -> SegmentRun:
    """Predict and sum the patches of one shard of a scan, and write a part file for `merge_parts`.

    Parameters other than `shard` and `out` are those of `ptychonnx.runtime.reconstruction.reconstruct`. The merged
    object equals that of one process bit for bit if all run the network alike: same batch, provider and number of
    threads.

    Raises InputError if the scan does not fit the contract or the weighting, or has fewer segments than there are
    shards. Raises VerificationError if the patch of a pattern is not finite, unless `skip_invalid`. Raises ServerError
    or DeviceError if the server or the execution provider fails for good. Raises EnvironmentFailure if the part does
    not fit on the disk.

    `out`: the part file, HDF5. One segment is in memory at a time. If patches are to be synchronised, the file holds
    all of them, 8 bytes per pixel.
    """
    session.check_scan(scan)
    options = stitching or ReconstructOptions()
    chosen = options.resolved(session.contract)
    weight = patch_weight(chosen.weighting, scan.size, scan.probe, chosen.window)
    groups = covering_groups(scan.positions, session.contract.gridsize)
    every = segments(groups, batch)
    numbers = shard.of(len(every)).tolist()
    parts = [every[number] for number in numbers]
    description = PartDescription(
        scan=scan.name,
        scan_sha256=scan_sha256(scan),
        contract=session.contract.to_json(),
        weighting=chosen.weighting,
        placement=chosen.placement,
        synchronise=chosen.synchronise,
        batch=batch,
        skip_invalid=options.skip_invalid,
        segments_in_all=len(every),
        segments=tuple(numbers),
        shard=f"{shard.number}/{shard.count}",
        host=platform.node(),
        size=scan.size,
        pixel_size=scan.pixel_size,
        wavelength=scan.wavelength,
        probe_estimated=scan.probe_estimated,
    )
    neighbours = NeighbourPatches(scan)
    with atomic_path(out) as partial, new_hdf5(partial, description.title) as file:

        def stitcher(part: int) -> Stitcher | PatchWriter:
            if chosen.synchronise:
                return PatchWriter(file, numbers[part], scan.size)
            positions = scan.positions[parts[part].reshape(-1)]
            return Stitcher(positions, weight, chosen.placement, memory=options.canvas_bytes, sparse=True)

        def finished(part: int, sums: Stitcher | PatchWriter) -> None:
            if isinstance(sums, Stitcher):
                write_segment(file, numbers[part], sums)

        run = run_segments(
            session,
            scan,
            parts,
            batch,
            progress,
            stitcher=stitcher,
            finished=finished,
            skip_invalid=options.skip_invalid,
            keep=neighbours.keep,
        )
        write_neighbours(file, neighbours.patches)
        write_scan_data(file, scan, _photons(scan), run.skipped, description)
    return run


def _photons(scan: Scan) -> NDArray[np.float64]:
    """Photons in each pattern [n], NaN where a pattern was not read."""
    diffraction = scan.diffraction
    return diffraction.photons_read() if isinstance(diffraction, LazyAmplitudes) else photons(diffraction)
