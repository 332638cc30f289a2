"""Part files: the sums of some segments of a scan, or their patches, in HDF5.

The first line is text, before what HDF5 writes, and names the part. Attribute `part` is JSON, see `PartDescription`.
`positions` float64 [n, 2], `photons` float64 [n] (NaN for patterns of other parts), `skipped` int [k] and, if known,
`probe` complex64 [modes, N, N] and `mask` bool [N, N] describe the whole scan. `segments/<number>` has one group for
each rectangle of the segment's sums: `values` complex128 [h, w], `weights` float64 [h, w], and `corner` [2], the (row,
column) of its first pixel in the coordinates of the scan. If patches are to be synchronised, it has `patches` complex64
[m, N, N] as the network predicted them and their `positions` float64 [m, 2] instead, since the phases follow from all
patches together.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from ptychonnx.runtime.contract import Placement
from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.formats.containers.hdf5_links import open_hdf5
from ptychonnx.runtime.formats.writers.new_hdf5 import TITLE_BYTES
from ptychonnx.runtime.reconstruction.stitching import Stitcher, Sums
from ptychonnx.runtime.scan import Scan

__all__ = [
    "PartDescription",
    "PartReader",
    "PatchWriter",
    "opened_part",
    "scan_sha256",
    "write_neighbours",
    "write_scan_data",
    "write_segment",
]

# Patterns whose content identifies a scan next to its positions.
_SAMPLED = 3
# Patches in a chunk of the file, and in memory while parts are merged.
_CHUNK, _READ = 16, 256


class PartDescription(BaseModel):
    """What a part belongs to. All parts of one object agree in everything but `segments`, `shard` and `host`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = 1
    scan: str
    scan_sha256: str
    contract: str
    weighting: str
    placement: Placement
    synchronise: bool = False
    batch: int
    skip_invalid: bool
    segments_in_all: int
    segments: tuple[int, ...]
    shard: str = ""
    host: str = ""
    size: int
    pixel_size: float | None
    wavelength: float | None
    probe_estimated: bool

    @property
    def name(self) -> str:
        """Which part it is, and where it was written."""
        return f"part {self.shard}, written on {self.host}"

    @property
    def title(self) -> bytes:
        """The first line of the file, for when the rest is lost."""
        return f"ptychonnx {self.name}\n".encode(errors="backslashreplace")[:TITLE_BYTES]


def scan_sha256(scan: Scan) -> str:
    """Hash of the positions, the probe, the mask and a few patterns of a scan, by which its parts are recognised."""
    digest = hashlib.sha256(repr((scan.diffraction.shape, scan.pixel_size, scan.wavelength)).encode())
    digest.update(np.ascontiguousarray(scan.positions, np.float64).tobytes())
    for values in (scan.probe, scan.mask):
        digest.update(b"unknown" if values is None else np.ascontiguousarray(values).tobytes())
    for row in np.linspace(0, len(scan) - 1, _SAMPLED).astype(int).tolist():
        digest.update(np.ascontiguousarray(scan.diffraction[row : row + 1]).tobytes())
    return digest.hexdigest()


def write_segment(file: h5py.File, number: int, stitcher: Stitcher) -> None:
    """Write the sums of a segment."""
    group = file.require_group(f"segments/{number}")
    for index, sums in enumerate(stitcher.sums()):
        rectangle = group.create_group(str(index))
        rectangle["corner"] = np.asarray(sums.corner, np.int64)
        for name, values in (("values", sums.values), ("weights", sums.weights)):
            # Damage is noticed by the checksum, and most of the canvas of a scattered segment is zero.
            rectangle.create_dataset(name, data=values, compression="lzf", fletcher32=True)


class PatchWriter:
    """Keeps the patches of a segment in a part file."""

    def __init__(self, file: h5py.File, number: int, size: int) -> None:
        """Create the datasets of segment `number`, for patches of N = `size` pixels."""
        group = file.create_group(f"segments/{number}")
        kinds: dict[str, tuple[tuple[int, ...], type]] = {
            "patches": ((size, size), np.complex64),
            "positions": ((2,), np.float64),
        }
        self._datasets = [
            group.create_dataset(
                name, (0, *shape), kind, maxshape=(None, *shape), chunks=(_CHUNK, *shape), fletcher32=True
            )
            for name, (shape, kind) in kinds.items()
        ]

    def add(self, patches: NDArray[np.complex64], positions: NDArray[np.float64]) -> None:
        """Append patches [m, N, N] and their positions [m, 2]."""
        start = self._datasets[0].shape[0]
        for dataset, values in zip(self._datasets, (patches, positions), strict=True):
            dataset.resize(start + len(patches), axis=0)
            dataset[start:] = values


def write_neighbours(file: h5py.File, patches: Mapping[int, NDArray[np.complex64]]) -> None:
    """Write the patches by which neighbours are compared."""
    if patches:
        file["neighbours/numbers"] = np.array(list(patches), np.int64)
        file.create_dataset("neighbours/patches", data=np.stack(list(patches.values())), fletcher32=True)


def write_scan_data(
    file: h5py.File,
    scan: Scan,
    photons: NDArray[np.float64],
    skipped: frozenset[int],
    description: PartDescription,
) -> None:
    """Write what is known of the scan and, last, the description of the part."""
    file["positions"] = scan.positions
    file["photons"] = photons
    file["skipped"] = np.array(sorted(skipped), np.int64)
    if scan.probe is not None:
        file["probe"] = scan.probe
    if scan.mask is not None:
        file["mask"] = scan.mask
    file.attrs["part"] = description.model_dump_json()


class PartReader:
    """An open part file.

    `path`: name of the file, for messages. `description`: what the part belongs to.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        text = file.attrs.get("part")
        if not isinstance(text, str):
            raise InputError(f"{path}: not a part of a reconstruction, expected a file that --shard wrote")
        try:
            self.description = PartDescription.model_validate_json(text)
        except ValidationError as error:
            raise InputError(
                f"{path}: the description of the part is damaged: {first_line(error)}"
            ) from error

    def __str__(self) -> str:
        """The file, and which part it is where it is known."""
        if not self.description.shard:
            return str(self.path)
        return f"{self.path} ({self.description.name})"

    def sums(self, number: int) -> Iterator[Sums]:
        """Sums of a segment, rectangle by rectangle."""
        with _readable(self.path):
            group = self._file[f"segments/{number}"]
            for index in range(len(group)):
                rectangle = group[str(index)]
                row, column = self._numbers(rectangle["corner"], slice(None), "iu").tolist()
                values = self._numbers(rectangle["values"], slice(None), "c")
                weights = self._numbers(rectangle["weights"], slice(None), "f")
                if values.ndim != 2 or values.shape != weights.shape:
                    raise InputError(
                        f"{self.path}: sums {values.shape} and weights {weights.shape}, expected one [rows, columns]"
                    )
                yield Sums((row, column), values, weights)

    def patches(self, number: int) -> Iterator[tuple[NDArray[np.complex64], NDArray[np.float64]]]:
        """Patches [m, N, N] of a segment and their positions [m, 2], some at a time."""
        with _readable(self.path):
            group = self._file[f"segments/{number}"]
            for start in range(0, len(group["positions"]), _READ):
                part = slice(start, start + _READ)
                patches = self._numbers(group["patches"], part, "c")
                yield patches, self._numbers(group["positions"], part, "f")

    def neighbours(self) -> dict[int, NDArray[np.complex64]]:
        """Patches by which neighbours are compared, by the number of their pattern."""
        with _readable(self.path):
            if "neighbours" not in self._file:
                return {}
            group, size = self._file["neighbours"], self.description.size
            numbers = self._numbers(group["numbers"], slice(None), "iu")
            patches = self._numbers(group["patches"], slice(None), "c")
            if patches.shape != (len(numbers), size, size):
                raise InputError(
                    f"{self.path}: patches {patches.shape} of neighbours, expected {len(numbers)} of {size} pixels"
                )
            return dict(zip(numbers.tolist(), patches, strict=True))

    def _numbers(self, dataset: h5py.Dataset, part: slice, kinds: str) -> NDArray:
        """Finite numbers of a kind that --shard writes."""
        if dataset.dtype.kind not in kinds or not dataset.ndim:
            raise InputError(
                f"{self.path}: {dataset.name} is {dataset.dtype} {dataset.shape}, expected what --shard writes"
            )
        values = np.asarray(dataset[part])
        if not np.isfinite(values).all():
            raise InputError(f"{self.path}: {dataset.name} holds NaN or infinity, expected finite values")
        return values

    def array(self, name: str) -> NDArray | None:
        """One of the arrays that describe the scan; None if it is unknown."""
        with _readable(self.path):
            values = np.asarray(self._file[name][()]) if name in self._file else None
            if values is not None and values.dtype.kind not in "biufc":
                raise InputError(
                    f"{self.path}: {name} is {values.dtype}, expected numbers as --shard wrote them"
                )
            return values


@contextmanager
def opened_part(path: Path) -> Iterator[PartReader]:
    """Open a part file.

    Raises InputError if the file is missing, cut short, or not a part.
    """
    with ExitStack() as stack:
        with _readable(path):
            file = open_hdf5(path, stack)
        yield PartReader(path, file)


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, expected a part that --shard wrote") from error
    except (OSError, KeyError, RuntimeError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{_titled(path)}: the part is damaged or cut short ({first_line(error)})"
        ) from error


def _titled(path: Path) -> str:
    """The file, and which part it is if its first line can be read."""
    try:
        with path.open("rb") as file:
            match = re.match(rb"ptychonnx (part \d+/\d+, written on [\w.-]+)\n", file.read(TITLE_BYTES))
    except OSError:
        match = None
    return str(path) if match is None else f"{path} ({match[1].decode()})"
