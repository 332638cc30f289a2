"""A probe in a file of its own, of any power, in the plane of the sample.

NPZ
    `probe` or `probeGuess`.
NPY
    The array itself.
HDF5
    The first of: `probe` (ptychodus, pty-chi, PtychoShelves' .mat of version 7.3, our own products), `probeGuess`,
    `entry_1/image_1/data` (our own CXI), `source_1/illumination` and `source_1/probe` of CXI, `content/probe/*/data`
    (ptypy's .ptyr).

Complex [N, N], [modes, N, N], or [coherent, modes, N, N], whose first coherent part is used; axes of length 1 may
come first.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.damage import damage_refused
from ptychonnx.runtime.formats.containers.hdf5 import HDF5File
from ptychonnx.runtime.formats.containers.npz import Archive, is_archive, is_npy, load_npy, open_archive
from ptychonnx.runtime.formats.containers.single_precision import in_single_precision
from ptychonnx.runtime.formats.read_options import ReadOptions
from ptychonnx.runtime.paths import StrPath

__all__ = ["archive_probe", "hdf5_probe", "probe_modes", "read_probe"]

_EXPECTED = "a probe, complex [modes, N, N]"
_KEYS = ("probe", "probeGuess")
_SOURCE = "entry_1/instrument_1/source_1"
_DATASETS = (*_KEYS, "entry_1/image_1/data", f"{_SOURCE}/illumination", f"{_SOURCE}/probe")
_PTYPY = "content/probe"


def read_probe(path: StrPath) -> NDArray[np.complex64]:
    """Read a probe, complex64 [modes, N, N].

    Raises InputError if the file is missing, damaged, or holds no probe.
    """
    path = Path(path)
    with damage_refused(path):
        probe = probe_modes(_loaded(path), f"{path}: the probe")
    if probe.shape[-1] != probe.shape[-2]:
        raise InputError(f"{path}: the probe has shape {probe.shape}, expected complex [modes, N, N]")
    if not np.isfinite(probe).all():
        raise InputError(f"{path}: the probe holds NaN or infinity, expected finite values")
    return probe


def probe_modes(probe: NDArray[np.complex64], where: str, *, several: bool = True) -> NDArray[np.complex64]:
    """A probe [modes, N, N] from one [N, N], [modes, N, N] or [coherent, modes, N, N].

    The first coherent part is used. More axes of length 1 may come first, as in files of tike.

    Raises InputError on other axes, or on several coherent parts unless `several` are allowed.
    """
    most = 4 if several else 3
    while probe.ndim > most and len(probe) == 1:
        probe = probe[0]
    if not 2 <= probe.ndim <= most or not probe.size:
        expected = "[coherent, modes, N, N]" if several else "[modes, N, N] with leading axes of length 1"
        raise InputError(f"{where} has shape {probe.shape}, expected complex {expected}")
    # Modes may be real, but a negative field as the second of two is an imaginary part.
    if probe.ndim == 3 and len(probe) == 2 and not np.imag(probe).any() and (np.real(probe[1]) < 0).any():
        raise InputError(
            f"{where} holds real numbers [2, N, N]: real and imaginary part? Expected complex ones"
        )
    return (probe[0] if probe.ndim == 4 else probe).reshape(-1, *probe.shape[-2:])


def archive_probe(archive: Archive, key: str) -> NDArray[np.complex64] | None:
    """The probe [modes, N, N] of an NPZ file, which has no coherent parts; None if there is none."""
    if key not in archive:
        return None
    return probe_modes(archive.complex(key, _EXPECTED), f"{archive.path}: {key!r}", several=False)


def hdf5_probe(file: HDF5File, *names: str) -> NDArray[np.complex64] | None:
    """The first of these probes, [modes, N, N]; None if there is none, or one without pixels, as in ptychodus."""
    stored = file.first(*names)
    if stored is None or not stored.size:
        return None
    expected = "complex [coherent, modes, N, N]"
    return probe_modes(file.complex(expected, *names), f"{file.path}: {stored.name}")


def _loaded(path: Path) -> NDArray[np.complex64]:
    if path.is_file() and is_archive(path):
        with open_archive(path) as archive:
            key = next((key for key in _KEYS if key in archive), "probe")
            return archive.complex(key, _EXPECTED)
    if path.is_file() and is_npy(path):
        return in_single_precision(load_npy(path, _EXPECTED), str(path))
    if path.is_file() and h5py.is_hdf5(path):
        with ExitStack() as stack:
            return _from_hdf5(HDF5File.open(path, ReadOptions(), stack))
    raise InputError(f"{path}: no NPZ file, NPY or HDF5 (MATLAB: save with -v7.3), expected {_EXPECTED}")


def _from_hdf5(file: HDF5File) -> NDArray[np.complex64]:
    names = [name for name in _DATASETS if file.has(name)]
    storages = file.names(_PTYPY)
    if len(storages) > 1 and not names:
        raise InputError(f"{file.path}: has {len(storages)} probes ({', '.join(storages)}), expected one")
    names += [f"{_PTYPY}/{storage}/data" for storage in storages]
    if not names:
        raise InputError(
            f"{file.path}: no dataset {', '.join(_DATASETS)} or {_PTYPY}/*/data, expected {_EXPECTED}"
        )
    return file.complex(_EXPECTED, names[0])
