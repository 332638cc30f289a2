"""A ptychographic scan, in the conventions of the whole package."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.amplitudes import Amplitudes, check_amplitudes, photons

__all__ = ["Reference", "Scan"]


@dataclass(frozen=True)
class Reference:
    """A known, or independently reconstructed, object to compare with.

    Attributes
    ----------
    object
        complex64 [rows, columns], the transmission of the object.
    origin
        (row, column) of the object's pixel [0, 0] in the coordinates of `Scan.positions`, in pixels.

    Examples
    --------
    >>> import numpy as np
    >>> import ptychonnx
    >>> reference = ptychonnx.Reference(np.ones((80, 80), np.complex64))
    >>> ptychonnx.simulate_lines(grid=3).reference.object.shape
    (78, 78)
    """

    object: NDArray[np.complex64]
    origin: tuple[float, float] = (0.0, 0.0)

    def covers(self, positions: NDArray[np.float64]) -> bool:
        """Whether all positions [n, 2], in pixels, lie on the object."""
        inside = positions - np.array(self.origin)
        return bool((inside >= 0).all() and (inside <= np.array(self.object.shape) - 1).all())


@dataclass(frozen=True)
class Scan:
    """Diffraction patterns of one scan, with the data needed to interpret them.

    Attributes
    ----------
    diffraction
        float32 [n, N, N], measured **amplitude**, sqrt(photon counts); the direct beam (DC) is at
        pixel [N // 2, N // 2]. An array, or `LazyAmplitudes` that stay in their file: indexing returns an array in
        either case, `numpy.asarray` all patterns.
    positions
        float64 [n, 2], (row, column) in pixels of the centre of each window on the object canvas.
        The centre of a window is its pixel [N // 2, N // 2]; rows grow downwards, columns to the right.
    probe
        complex64 [modes, N, N] scaled so that `forward_model.forward` returns sqrt(photons); None if unknown.
    mask
        bool [N, N], True where the detector is valid.
    reference
        The object to compare with, if one is known.
    pixel_size, wavelength
        Object pixel size and wavelength of the radiation, in metres, if known.
    name
        Source of the scan, for messages and reports.
    labels
        complex64 [n, N, N], the object in each window, if the file has patches but no whole object.
    distance
        From the sample to the detector in metres, if known.
    probe_estimated
        True if the power of the probe was estimated from a sample of the patterns, see `settled`.

    Raises
    ------
    InputError
        On wrong shapes, types or units, masked arrays, NaN or negative amplitudes, an empty scan, or a probe of the
        wrong size. Amplitudes in a file are checked when they are read.

    Examples
    --------
    >>> import numpy as np
    >>> import ptychonnx
    >>> counts = np.random.default_rng(0).poisson(100, (4, 64, 64))
    >>> positions = np.array([[0.0, 0.0], [0.0, 6.0], [6.0, 0.0], [6.0, 6.0]])
    >>> scan = ptychonnx.Scan(np.sqrt(counts).astype(np.float32), positions, pixel_size=8e-9)
    >>> len(scan), scan.size, round(scan.flux / 64**2)
    (4, 64, 100)
    """

    diffraction: Amplitudes
    positions: NDArray[np.float64]
    probe: NDArray[np.complex64] | None = None
    mask: NDArray[np.bool_] | None = None
    reference: Reference | None = None
    pixel_size: float | None = None
    wavelength: float | None = None
    name: str = "scan"
    labels: NDArray[np.complex64] | None = field(default=None, repr=False)
    probe_estimated: bool = False
    distance: float | None = None

    def __post_init__(self) -> None:
        n, size = _check_diffraction(self.diffraction, self.name)
        _check_positions(self.positions, n, self.name)
        if self.probe is not None:
            _check_probe(self.probe, size, self.name)
        if self.mask is not None:
            _check_array(self.mask, "mask", "b", "bool [N, N]", self.name)
            if self.mask.shape != (size, size):
                raise InputError(f"{self.name}: mask has shape {self.mask.shape}, expected {(size, size)}")
            if not self.mask.any():
                raise InputError(f"{self.name}: mask has no valid pixel, expected at least one")
        if self.reference is not None:
            _check_reference(self.reference, self.name)
        if self.labels is not None:
            _check_labels(self.labels, self.diffraction.shape, self.name)
        for quantity in ("pixel_size", "wavelength", "distance"):
            value = getattr(self, quantity)
            if value is not None and not _is_length(value):
                raise InputError(
                    f"{self.name}: {quantity} is {value!r}, expected a finite number of metres above 0"
                )

    def __len__(self) -> int:
        return len(self.diffraction)

    @property
    def size(self) -> int:
        """N, the side of a pattern in pixels."""
        return self.diffraction.shape[-1]

    @property
    def valid_pixels(self) -> NDArray[np.bool_]:
        """The mask, bool [N, N]; all pixels if there is none."""
        return np.ones((self.size, self.size), dtype=bool) if self.mask is None else self.mask

    @cached_property
    def flux(self) -> float:
        """Mean number of photons in a pattern; patterns that have not been read yet are read."""
        return float(np.mean(photons(self.diffraction)))

    def settled(self) -> Scan:
        """The scan with its probe scaled to the mean power of all patterns.

        This reads the patterns that have not been read yet, unless the power is exact already.
        """
        if self.probe is None or not self.probe_estimated:
            return replace(self, probe_estimated=False) if self.probe_estimated else self
        power = np.sum(np.abs(self.probe.astype(np.complex128)) ** 2)
        probe = (self.probe * np.sqrt(self.flux / power)).astype(np.complex64) if self.flux else self.probe
        return replace(self, probe=probe, probe_estimated=False)

    def probe_sha256(self) -> str | None:
        """Hash of the probe, by which an artifact records its training probe."""
        if self.probe is None:
            return None
        return hashlib.sha256(np.ascontiguousarray(self.probe, dtype=np.complex64).tobytes()).hexdigest()

    def subset(self, index: slice | NDArray[np.integer]) -> Scan:
        """The selected patterns, which are read, as a scan; canvas, probe and reference stay."""
        labels = None if self.labels is None else self.labels[index]
        return replace(
            self.settled(),
            diffraction=self.diffraction[index],
            positions=self.positions[index],
            labels=labels,
        )


def _is_length(value: object) -> bool:
    """Whether a value is one number, finite and above 0."""
    array = np.asarray(value)
    return array.ndim == 0 and array.dtype.kind in "iuf" and bool(0 < array < np.inf)


def _check_array(value: object, what: str, kinds: str, expected: str, name: str) -> None:
    """Raises InputError for anything but a plain array of these kinds of numbers, such as a list or a masked array."""
    if (
        not isinstance(value, np.ndarray)
        or isinstance(value, np.ma.MaskedArray)
        or value.dtype.kind not in kinds
    ):
        kind = f"{value.dtype} in a " if isinstance(value, np.ndarray) else ""
        raise InputError(f"{name}: {what} is {kind}{type(value).__name__}, expected an array {expected}")


def _check_diffraction(diffraction: Amplitudes, name: str) -> tuple[int, int]:
    if isinstance(diffraction, np.ndarray) or not hasattr(diffraction, "shape"):
        _check_array(diffraction, "diffraction", "biufcOSU", "float32 [n, N, N]", name)
    shape = diffraction.shape
    if len(shape) != 3 or shape[1] != shape[2]:
        raise InputError(f"{name}: diffraction has shape {shape}, expected [n, N, N]")
    if shape[0] == 0 or shape[1] == 0:
        raise InputError(
            f"{name}: diffraction has shape {shape}: the scan is empty, expected at least one pattern"
        )
    if diffraction.dtype != np.float32:
        raise InputError(f"{name}: diffraction is {diffraction.dtype}, expected float32 amplitudes")
    if isinstance(diffraction, np.ndarray):
        check_amplitudes(diffraction, name)
    return shape[0], shape[1]


def _check_positions(positions: NDArray[np.float64], n: int, name: str) -> None:
    _check_array(positions, "positions", "iuf", "float64 [n, 2]", name)
    if positions.shape != (n, 2):
        raise InputError(f"{name}: positions have shape {positions.shape}, expected {(n, 2)} (row, column)")
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if bad.size:
        raise InputError(f"{name}: positions[{bad[0]}] is NaN or infinite, expected finite pixels")


def _check_probe(probe: NDArray[np.complex64], size: int, name: str) -> None:
    _check_array(probe, "probe", "iufc", "complex64 [modes, N, N]", name)
    if probe.ndim != 3 or probe.shape[1:] != (size, size):
        raise InputError(
            f"{name}: probe has shape {probe.shape}, expected [modes, {size}, {size}] like the patterns"
        )
    if not np.isfinite(probe).all():
        raise InputError(f"{name}: probe holds NaN or infinity, expected finite values")
    if not np.abs(probe).any():
        raise InputError(f"{name}: probe is zero everywhere, expected an illumination")


def _check_labels(labels: NDArray[np.complex64], shape: tuple[int, ...], name: str) -> None:
    _check_array(labels, "labels", "iufc", "complex64 [n, N, N]", name)
    if labels.shape != shape:
        raise InputError(f"{name}: labels have shape {labels.shape}, expected {shape}")
    if not np.isfinite(labels).all():
        raise InputError(f"{name}: labels hold NaN or infinity, expected finite values")


def _check_reference(reference: Reference, name: str) -> None:
    _check_array(reference.object, "reference object", "iufc", "complex64 [rows, columns]", name)
    if reference.object.ndim != 2 or not reference.object.size:
        raise InputError(
            f"{name}: reference object has shape {reference.object.shape}, expected [rows, columns]"
        )
    if not np.isfinite(reference.object).all():
        raise InputError(f"{name}: reference object holds NaN or infinity, expected finite values")
    origin = np.asarray(reference.origin)
    if origin.shape != (2,) or origin.dtype.kind not in "iuf" or not np.isfinite(origin).all():
        raise InputError(
            f"{name}: origin of the reference is {reference.origin}, expected finite (row, column)"
        )
