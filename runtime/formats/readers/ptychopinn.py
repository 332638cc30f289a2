"""PtychoPINN: flat NPZ archives with coordinates, and the datasets of its grid-lines study.

Keys
----
diffraction, or diff3d
    [n, N, N], [n, N, N, C] or, in older files, [N, N, n]; DC at the centre. Floats are normalised amplitudes,
    not sqrt(photons), since the number of photons is a setting of the training and not in the file; integers are
    counts.
xcoords, ycoords
    float [n], pixels: x is the **column**, y the **row** in `objectGuess` of the window's pixel [N // 2, N // 2];
    both grow with the index.
coords_offsets
    grid datasets only, [n, 1, 2, C]: here the **row comes first**, then the column, of the window's geometric
    middle, corner + (N - 1) / 2, which is half a pixel less than our centre for even N. A dataset made of k
    objects repeats each position k times in a row, while the patterns come object after object: the objects
    are placed side by side on one canvas. `xcoords` and `ycoords` take precedence.
probeGuess
    optional, complex [N, N] or [modes, N, N].
objectGuess
    optional, complex [rows, columns], becomes `Scan.reference`.
bad_pixels
    bool [N, N], True = bad: only in files that ptychodus exports, where `xcoords` and `ycoords` mean the geometric
    middle (N - 1) / 2 of a window.
Y_I and Y_phi, or Y
    optional, shaped like `diffraction`: amplitude and phase, or the complex object, in each window.

In the grid datasets `Y_I` is the amplitude **behind** the probe, |P| |O|, while `Y_phi` is the phase of the
object alone; other files hold the bare object. The file does not state which: the reading that explains the
patterns better is used, and where the probe is dark the object is unknown and set to 0.

The probe is scaled so that it explains the total power of the patterns, with the object if one is known.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.npz import Archive
from ptychonnx.runtime.formats.containers.single_precision import of_polar
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan
from ptychonnx.runtime.formats.conversion.scaling import root_of_counts, scaled_probe, valid_values
from ptychonnx.runtime.formats.read_options import Conventions
from ptychonnx.runtime.formats.readers.probe import archive_probe
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.amplitudes import Amplitudes, LazyAmplitudes, sample_of
from ptychonnx.runtime.scan.forward_model import forward, middle_to_centre

__all__ = ["conventions", "matches", "read"]

# Number of patterns that are read together.
_BLOCK = 64
# Where the probe is darker than this fraction of its brightest pixel, the object behind it is noise.
_DARK = 1e-4


def matches(archive: Archive) -> bool:
    """True if the archive has patterns and one of the two kinds of coordinates."""
    has_coordinates = {"xcoords", "ycoords"} <= archive.keys or "coords_offsets" in archive
    return has_coordinates and ("diffraction" in archive or "diff3d" in archive)


def conventions(archive: Archive) -> Conventions:
    """Integers are counts, floats amplitudes."""
    key = "diffraction" if "diffraction" in archive else "diff3d"
    counts = archive.array(key, "amplitudes [n, N, N]").dtype.kind in "iu"
    return Conventions.of_format(
        "PtychoPINN", unit="px", axes="row,column", quantity="counts" if counts else "amplitude"
    )


def read(archive: Archive) -> Scan | RawScan:
    """Read a scan.

    Raises InputError on wrong shapes, and for groups of patterns (C above 1) without a position for each pattern.
    """
    key = "diffraction" if "diffraction" in archive else "diff3d"
    raw = archive.stack(key, "amplitudes [n, N, N]")
    grid = "xcoords" not in archive or "ycoords" not in archive
    coordinates = _grid_coordinates(archive) if grid else _flat_coordinates(archive)
    patterns = _flat_patterns(archive, key, raw, coordinates.shape)
    if "bad_pixels" in archive and not grid:
        return _of_ptychodus(archive, key, patterns, coordinates.reshape(-1, 2))
    diffraction = _amplitudes(patterns, archive, key, mapped=isinstance(raw, np.memmap))
    positions = coordinates.reshape(-1, 2)
    if grid:
        size = diffraction.shape[-1]
        positions = _side_by_side(positions + middle_to_centre(size), size, str(archive.path))
    scan = Scan(
        diffraction,
        positions,
        probe=archive_probe(archive, "probeGuess"),
        name=archive.path.name,
        labels=_labels(archive, coordinates.shape),
    )
    labels, reference = _object_behind_probe(scan), _reference_object(archive, scan.positions)
    probe, _ = scaled_probe(scan, labels, reference)
    return replace(scan, probe=probe, reference=reference, labels=labels)


def _of_ptychodus(archive: Archive, key: str, patterns: NDArray, positions: NDArray[np.float64]) -> RawScan:
    """A file that ptychodus exports: positions are the geometric middle of a window, and bad pixels are known."""
    bad = archive.array("bad_pixels", "bool [N, N], True = bad")
    if bad.shape != patterns.shape[1:] or bad.dtype.kind not in "biu":
        raise InputError(
            f"{archive.path}: 'bad_pixels' is {bad.dtype} of shape {bad.shape}, expected bool {patterns.shape[1:]}"
        )
    return RawScan(
        path=archive.path,
        patterns=patterns,
        patterns_key=repr(key),
        positions=positions,
        positions_key="'xcoords' and 'ycoords'",
        conventions=conventions(archive),
        offset="middle",
        absolute=True,
        probe=archive_probe(archive, "probeGuess"),
        mask=bad == 0,
        known_object=_known_object(archive),
    )


def _amplitudes(patterns: NDArray, archive: Archive, key: str, *, mapped: bool) -> Amplitudes:
    """Amplitudes of patterns [n, N, N]; they stay in the file if that is not compressed."""

    def read(start: int, stop: int) -> NDArray[np.float32]:
        block = patterns[start:stop]
        if block.dtype.kind == "f":
            # What float32 cannot hold becomes infinite, and is refused with the number of the pattern.
            with np.errstate(over="ignore"):
                return np.array(block, dtype=np.float32, order="C")
        if not (valid := valid_values(block, f"{archive.path}: {key!r}")).all():
            broken = np.count_nonzero(~valid, axis=(1, 2))
            index = int(np.argmax(broken > 0))
            raise InputError(
                f"{archive.path}: {key!r}[{start + index}] has {broken[index]} negative or saturated pixels, expected "
                "counts"
            )
        return np.ascontiguousarray(root_of_counts(block))

    lazy = LazyAmplitudes(patterns.shape, read, _BLOCK, archive.path.name)
    return lazy if mapped else np.asarray(lazy)


def _flat_coordinates(archive: Archive) -> NDArray[np.float64]:
    """(row, column) of each window's centre, [n, 1, 2]."""
    x = archive.real("xcoords", "columns in pixels [n]").astype(np.float64)
    y = archive.real("ycoords", "rows in pixels [n]").astype(np.float64)
    if x.ndim != 1 or x.shape != y.shape:
        raise InputError(
            f"{archive.path}: 'xcoords' and 'ycoords' have shapes {x.shape} and {y.shape}, expected [n]"
        )
    return np.stack([y, x], axis=1)[:, None]


def _grid_coordinates(archive: Archive) -> NDArray[np.float64]:
    """(row, column) of each window's middle, [n, C, 2]."""
    offsets = archive.real("coords_offsets", "(row, column) in pixels [n, 1, 2, C]").astype(np.float64)
    if offsets.ndim == 2:
        offsets = offsets[:, None, :, None]
    if offsets.ndim != 4 or offsets.shape[1:3] != (1, 2):
        raise InputError(f"{archive.path}: 'coords_offsets' has shape {offsets.shape}, expected [n, 1, 2, C]")
    return np.moveaxis(offsets[:, 0], 1, 2)


def _flat_patterns(archive: Archive, key: str, array: NDArray, coordinates: tuple[int, ...]) -> NDArray:
    """The array as [n * C, N, N], in the order of the coordinates [n, C, 2]."""
    n, channels = coordinates[:2]
    shape = array.shape
    if array.ndim == 3 and shape[0] != n and shape[2] == n:
        array = np.moveaxis(array, 2, 0)
    if array.ndim == 3:
        array = array[..., None]
    if array.ndim != 4 or array.shape[0] != n or array.shape[1] != array.shape[2]:
        raise InputError(
            f"{archive.path}: {key!r} has shape {shape}, expected [n, N, N] with n = {n} coordinates"
        )
    if array.shape[3] != channels:
        raise InputError(
            f"{archive.path}: {key!r} holds groups of {array.shape[3]} patterns and the coordinates "
            f"{channels} position per group, expected one for each pattern, as with gridsize 1"
        )
    return np.moveaxis(array, 3, 1).reshape(-1, *array.shape[1:3])


def _side_by_side(centres: NDArray[np.float64], size: int, where: str) -> NDArray[np.float64]:
    """Positions of a grid dataset with its k objects next to each other along the columns, [n, 2]."""
    _, first = np.unique(centres, axis=0, return_index=True)
    unique = centres[np.sort(first)]
    if len(unique) == 1 < len(centres):
        raise InputError(
            f"{where}: 'coords_offsets' holds the same position {len(centres)} times, expected a scan"
        )
    objects, rest = divmod(len(centres), len(unique))
    as_repeated = np.repeat(unique, objects, axis=0)
    as_tiled = np.tile(unique, (objects, 1))
    if (
        objects == 1
        or rest
        or not (np.array_equal(centres, as_repeated) or np.array_equal(centres, as_tiled))
    ):
        return centres
    step = np.ceil(np.ptp(unique[:, 1])) + size + 1
    as_tiled[:, 1] += step * np.repeat(np.arange(objects), len(unique))
    return as_tiled


def _labels(archive: Archive, coordinates: tuple[int, ...]) -> NDArray[np.complex64] | None:
    if "Y" in archive:
        return _flat_patterns(archive, "Y", archive.complex("Y", "complex [n, N, N]"), coordinates)
    if "Y_I" in archive and "Y_phi" in archive:
        amplitude = archive.real("Y_I", "amplitudes [n, N, N]")
        phase = archive.real("Y_phi", "phases in rad [n, N, N]")
        if amplitude.shape != phase.shape:
            raise InputError(f"{archive.path}: 'Y_phi' has shape {phase.shape}, expected {amplitude.shape}")
        whole = of_polar(amplitude, phase, f"{archive.path}: 'Y_I' and 'Y_phi'")
        return _flat_patterns(archive, "Y_I", whole, coordinates)
    return None


def _object_behind_probe(scan: Scan) -> NDArray[np.complex64] | None:
    """The object in each window, from the labels of a scan, which may hold |P| |O| instead of |O|.

    With several modes of the probe |P| is ambiguous, and the labels stay as they are.

    Returns complex64 [n, N, N]; 0 where the probe is dark, if the probe had to be divided out.
    """
    labels, probe = scan.labels, scan.probe
    if (
        labels is None
        or probe is None
        or len(probe) > 1
        or not _behind_probe(labels, probe, scan.diffraction)
    ):
        return labels
    magnitude = np.abs(probe[0])
    lit = magnitude**2 > _DARK * np.max(magnitude**2)
    return np.where(lit, labels / np.where(lit, magnitude, 1), 0).astype(np.complex64)


def _behind_probe(
    labels: NDArray[np.complex64], probe: NDArray[np.complex64], diffraction: Amplitudes
) -> bool:
    sample = sample_of(len(labels))
    measured = diffraction[sample].ravel()
    phase_only = np.exp(1j * np.angle(probe))
    # Labels that are all the same correlate with nothing.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        as_object = np.corrcoef(forward(labels[sample], probe).ravel(), measured)[0, 1]
        as_lit = np.corrcoef(forward(labels[sample], phase_only).ravel(), measured)[0, 1]
    return bool(as_lit > as_object)


def _known_object(archive: Archive) -> NDArray[np.complex64] | None:
    """`objectGuess`, or None.

    Raises InputError if it is not [rows, columns].
    """
    if "objectGuess" not in archive:
        return None
    whole = archive.complex("objectGuess", "complex [rows, columns]")
    if whole.ndim != 2:
        raise InputError(f"{archive.path}: 'objectGuess' has shape {whole.shape}, expected [rows, columns]")
    return whole


def _reference_object(archive: Archive, positions: NDArray[np.float64]) -> Reference | None:
    """`objectGuess`, or None, with a warning if positions lie outside it."""
    whole = _known_object(archive)
    if whole is None:
        return None
    if not Reference(whole).covers(positions):
        warnings.warn(
            f"{archive.path}: positions leave 'objectGuess' of shape {whole.shape}: it is no reference",
            stacklevel=2,
        )
        return None
    return Reference(whole)
