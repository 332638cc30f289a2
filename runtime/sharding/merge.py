"""Merging of parts: the sums of all segments, added in their order."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.neighbour_agreement import NeighbourPatches
from ptychonnx.runtime.reconstruction.stitching import Stitcher, patch_weight
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes
from ptychonnx.runtime.sharding.part_file import PartDescription, PartReader, opened_part

__all__ = ["MergedParts", "merge_parts"]

# Missing segments that are named in a message.
_NAMED = 5


@dataclass(frozen=True)
class MergedParts:
    """The object of a scan that was reconstructed in parts."""

    reconstruction: Reconstruction  # equal to that of one process, bit for bit
    scan: Scan  # positions, probe and geometry; its patterns cannot be read
    contract: Contract  # that of the network


def merge_parts(
    paths: Sequence[StrPath], progress: Progress = SILENT, *, canvas_memory: int | None = None
) -> MergedParts:
    """Add the sums of all parts of a scan, in any order of the files; or synchronise and add their patches.

    Raises InputError if a part is missing, occurs twice, is damaged, or belongs to another scan, network or choice of
    options. Raises EnvironmentFailure if the tiles of the canvas do not fit on the disk.

    * `paths`: part files that `reconstruct_shard` wrote, of all shards.
    * `canvas_memory`: largest canvas in memory, in bytes, see `Stitcher`. Of the parts, one rectangle of a segment, or
      256 patches, are in memory at a time.
    """
    if not paths:
        raise InputError("merge: no part is named, expected all parts of one scan")
    start = time.perf_counter()
    with ExitStack() as stack:
        readers = [stack.enter_context(opened_part(Path(path))) for path in paths]
        first = readers[0].description
        sources = _sources(readers)
        scan = _scan(readers, first)
        contract = Contract.from_json(first.contract, str(paths[0]))
        weight = patch_weight(first.weighting, scan.size, scan.probe, contract.stitching.window)
        stitcher = Stitcher(
            scan.positions, weight, first.placement, synchronise=first.synchronise, memory=canvas_memory
        )
        progress.stage(f"Merging {scan.name}", len(sources), "segments")
        for number, reader in enumerate(sources):
            if first.synchronise:
                for patches, positions in reader.patches(number):
                    stitcher.add(patches, positions)
            else:
                stitcher.add_sums(reader.sums(number))
            progress.update(number + 1, len(sources))
        neighbours = NeighbourPatches(scan)
        # In the order of one process: of several patches of a pattern the last counts.
        for reader in dict.fromkeys(sources):
            neighbours.patches.update(reader.neighbours())
        skipped = {int(row) for reader in readers for row in _array(reader, "skipped")}
        reconstruction = Reconstruction(
            stitcher.result(),
            first.weighting,
            patterns=len(scan),
            inference_seconds=0.0,
            stitching_seconds=time.perf_counter() - start,
            placement=first.placement,
            synchronised=first.synchronise,
            skipped=tuple(sorted(skipped)),
            agreement=neighbours.agreement(),
        )
    return MergedParts(reconstruction, scan, contract)


def _sources(readers: Sequence[PartReader]) -> list[PartReader]:
    """The part of each segment, in the order of the segments."""
    first = readers[0]
    sources: dict[int, PartReader] = {}
    for reader in readers:
        _require_same(first, reader)
        for number in reader.description.segments:
            if number in sources:
                raise InputError(
                    f"{reader}: segment {number} is also in {sources[number]}, expected each part once"
                )
            sources[number] = reader
    missing = sorted(set(range(first.description.segments_in_all)) - set(sources))
    if missing:
        raise InputError(
            f"{first}: {len(missing)} of {first.description.segments_in_all} segments of {first.description.scan} "
            f"are in none of the {len(readers)} parts: {_first_of(missing)}{_missing_shards(readers)}"
        )
    return [sources[number] for number in range(first.description.segments_in_all)]


def _missing_shards(readers: Sequence[PartReader]) -> str:
    """The shards that are in no file, if the parts say of how many they are."""
    shards = {reader.description.shard for reader in readers}
    counts = {shard.partition("/")[2] for shard in shards}
    if len(counts) > 1 or not (count := counts.pop()).isdecimal():
        return ""
    most = min(int(count), readers[0].description.segments_in_all)
    missing = [name for name in (f"{number}/{count}" for number in range(1, most + 1)) if name not in shards]
    return f"; expected part {_first_of(missing)} too" if missing else ""


def _first_of(items: Sequence[object]) -> str:
    return ", ".join(map(str, items[:_NAMED])) + ", ..." * (len(items) > _NAMED)


def _require_same(first: PartReader, other: PartReader) -> None:
    own = {"segments", "shard", "host"}
    expected, actual = (reader.description.model_dump(exclude=own) for reader in (first, other))
    for name, value in expected.items():
        if actual[name] != value:
            reason = (
                f"{name.replace('_', ' ')} differs"
                if name in {"contract", "scan_sha256"}
                else f"{name.replace('_', ' ')} is {actual[name]}, expected {value}"
            )
            raise InputError(f"{other}: not a part of the same reconstruction as {first}: {reason}")


def _scan(readers: Sequence[PartReader], description: PartDescription) -> Scan:
    """The scan without its patterns."""
    positions = _array(readers[0], "positions")
    photons = np.full(len(positions), np.nan)
    for reader in readers:
        photons = np.fmax(photons, _array(reader, "photons"))

    def read(start: int, stop: int) -> NDArray[np.float32]:
        raise InputError(
            f"{description.scan}: patterns {start} to {stop - 1} are not in the parts of the scan"
        )

    shape = (len(positions), description.size, description.size)
    return Scan(
        LazyAmplitudes(shape, read, len(positions), description.scan, photons),
        positions,
        probe=readers[0].array("probe"),
        mask=readers[0].array("mask"),
        pixel_size=description.pixel_size,
        wavelength=description.wavelength,
        name=description.scan,
        probe_estimated=description.probe_estimated,
    )


def _array(reader: PartReader, name: str) -> NDArray:
    values = reader.array(name)
    if values is None:
        raise InputError(f"{reader.path}: {name} is missing, the part is damaged")
    return values
