"""Which format a file has, found by its content."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.containers.hdf5 import Source
from ptychonnx.runtime.formats.containers.npz import complex_array, is_archive, open_archive
from ptychonnx.runtime.formats.conversion.raw_scan import RawScan, assemble, from_scan
from ptychonnx.runtime.formats.conversion.scaling import probe_with_power, sampled_flux
from ptychonnx.runtime.formats.read_options import Conventions, ReadOptions
from ptychonnx.runtime.formats.readers import cxi, mapped, native, nexus, ptychodus, ptychopinn, ptyd, tike
from ptychonnx.runtime.formats.readers import hxn as pairs
from ptychonnx.runtime.formats.readers.reference import read_reference
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.scan import Scan

__all__ = ["FORMATS", "ScanFormat", "read_scan"]

_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class ScanFormat:
    """One kind of scan file.

    Attributes
    ----------
    name, keys
        For messages: what it is called, and by which keys it is recognised.
    container
        ``npz``: `matches` and `read` get a `npz.Archive`; ``hdf5``: `matches` gets an `h5py.File`
        and `read` a `ptychonnx.runtime.formats.containers.hdf5.Source`.
    matches
        True if the open file has this format.
    read
        From the open file to the scan, or to a `RawScan`, whose patterns are still in the file.
    conventions
        Of formats whose reader gives a scan at once; a `RawScan` has its own.
    """

    name: str
    keys: str
    container: Literal["npz", "hdf5"]
    matches: Callable[[Any], bool]
    read: Callable[[Any], Scan | RawScan]
    conventions: Conventions | None = None


_OWN = "ptychonnx"
# The first that matches wins, the strictest stand first.
FORMATS = (
    ScanFormat(
        _OWN,
        "format, diffraction, positions",
        "npz",
        native.matches,
        native.read,
        Conventions.of_format(_OWN, unit="px", axes="row,column", quantity="amplitude"),
    ),
    ScanFormat(
        "PtychoPINN",
        "diffraction or diff3d, with xcoords and ycoords or coords_offsets",
        "npz",
        ptychopinn.matches,
        ptychopinn.read,
        Conventions.of_format("PtychoPINN", unit="px", axes="row,column", quantity="amplitude"),
    ),
    ScanFormat("tike", "data, scan", "npz", tike.matches, tike.read),
    ScanFormat("NXptycho, NXcxi_ptycho", "definition in an entry", "hdf5", nexus.matches, nexus.read),
    ScanFormat("CXI", "entry_1/data_1/data", "hdf5", cxi.matches, cxi.read),
    ScanFormat("ptypy", "chunks, meta", "hdf5", ptyd.matches, ptyd.read),
    ScanFormat(
        "ptychodus training data",
        "patterns, probe_position_x_px, probe_position_y_px",
        "hdf5",
        ptychodus.matches_training,
        ptychodus.read_training,
    ),
    ScanFormat(
        "ptychodus",
        "patterns, indexes, bad_pixels or probe_position_indexes, probe_position_x_m, probe_position_y_m",
        "hdf5",
        ptychodus.matches,
        ptychodus.read,
    ),
    ScanFormat(
        "pair", "dp or ppX, ppY or probe_position_x_m, probe_position_y_m", "hdf5", pairs.matches, pairs.read
    ),
)


def read_scan(
    path: StrPath,
    *,
    reference: StrPath | None = None,
    probe: StrPath | None = None,
    options: ReadOptions | None = None,
    log: Callable[[str], None] = lambda line: None,
    estimate_probe: bool = False,
) -> Scan:
    """Read a scan from a file of any known format, or from any file with a mapping.

    Patterns stay in the file, where `docs/reference/formats.md` says so, and are read, converted and checked when
    somebody asks for them; the file stays open as long as the scan is in use. A look at all of them is only taken
    here to scale a probe of unknown power where no object is known, and to find bad pixels if the options say so.

    Parameters
    ----------
    path
        NPZ (also .npz.bz2) or HDF5; the name does not matter. With a mapping also NPY.
    reference
        Object to compare with, see `ptychonnx.runtime.formats.readers.reference`; replaces one in the scan file.
    probe
        NPZ with `probe` complex [modes, N, N] or [N, N], in any unit; it replaces one in the scan file, scaled so
        that its power is the mean photons of a pattern, which makes the object's amplitude of the order of one.
    options
        What the file does not say, or says wrongly, and what to do to the patterns.
    log
        Takes lines that say how the file was understood, one for each convention.
    estimate_probe
        Scale a probe of unknown power by a few of the patterns, so that no pattern is read twice;
        `Scan.settled` makes up for it.

    Raises
    ------
    InputError
        If a file is missing, damaged, of no known format, or breaks the rules of its format. Patterns that are no
        amplitudes are refused when they are read.

    Examples
    --------
    >>> import ptychonnx
    >>> scan = ptychonnx.read_scan("scan.npz")
    >>> len(scan), scan.size, scan.positions.shape
    (25, 64, (25, 2))

    What a file does not say, the options do:

    >>> options = ptychonnx.ReadOptions(rebin=2, pixel_size=8e-9)
    >>> ptychonnx.read_scan("scan.npz", options=options).size
    32
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: {'is a folder' if path.is_dir() else 'no such file'}, expected a scan file"
        )
    try:
        with ExitStack() as stack:
            scan = _read(path, options or ReadOptions(), log, estimate_probe, stack)
            # The patterns of the scan hold what they need: a file is closed with the last that was taken from it.
            stack.pop_all()
    except OSError as error:
        raise InputError(f"{path}: damaged or unreadable ({error}), expected a complete file") from error
    if probe is not None:
        flux = sampled_flux(scan) if estimate_probe else scan.flux
        scaled = probe_with_power(_read_probe(Path(probe)), flux)
        scan = replace(scan, probe=scaled, probe_estimated=estimate_probe)
    if reference is not None:
        scan = replace(scan, reference=read_reference(Path(reference), scan))
    return scan


def _read(
    path: Path, options: ReadOptions, log: Callable[[str], None], estimate: bool, stack: ExitStack
) -> Scan:
    if options.mapping:
        log(f"{path.name}: as mapped")
        return assemble(mapped.read(path, options, stack), options, log, estimate=estimate)
    form, opened = _recognised(path, options, stack)
    found = form.read(opened)
    changed = options.model_copy(update={"pixel_size": None, "wavelength": None, "companion": None})
    # Our own files say everything themselves: there is nothing to tell.
    if form.name != _OWN or changed != ReadOptions():
        log(f"{path.name}: {form.name}, recognised by {form.keys}")
    if isinstance(found, Scan):
        conventions = form.conventions or Conventions.of_format(form.name, unit="px", axes="row,column")
        if changed == ReadOptions():
            for line in conventions.lines() if form.name != _OWN else ():
                log(line)
            return replace(
                found,
                pixel_size=options.pixel_size or found.pixel_size,
                wavelength=options.wavelength or found.wavelength,
            )
        if found.labels is not None:
            log("labels: left out, since options change patterns or positions")
        found = from_scan(found, path, conventions)
    return assemble(found, options, log, estimate=estimate)


def _recognised(path: Path, options: ReadOptions, stack: ExitStack) -> tuple[ScanFormat, Any]:
    if is_archive(path):
        archive = stack.enter_context(open_archive(path))
        for form in FORMATS:
            if form.container == "npz" and form.matches(archive):
                return form, archive
        raise _unrecognised(path, f"an NPZ archive of {', '.join(sorted(archive.keys)) or 'nothing'}")
    with path.open("rb") as start:
        if start.read(len(_HDF5)) != _HDF5:
            raise _unrecognised(path, "neither NPZ nor HDF5")
    file = stack.enter_context(h5py.File(path, "r"))
    for form in FORMATS:
        if form.container == "hdf5" and form.matches(file):
            return form, Source(file, path, options, stack)
    raise _unrecognised(path, f"an HDF5 file of {', '.join(sorted(file)) or 'nothing'}")


def _unrecognised(path: Path, found: str) -> InputError:
    known = "; ".join(f"{form.name} ({form.container.upper()}: {form.keys})" for form in FORMATS)
    return InputError(f"{path}: not a known scan file: {found}, expected one of {known}, or a --map")


def _read_probe(path: Path) -> NDArray[np.complex64]:
    if not path.is_file() or not is_archive(path):
        raise InputError(f"{path}: no NPZ file, expected one with 'probe' complex [modes, N, N]")
    with open_archive(path) as archive:
        probe = complex_array(archive, "probe", "complex [modes, N, N]")
    return probe[None] if probe.ndim == 2 else probe
