"""Read a scan from a file of any known format."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ptychonnx.runtime.formats.containers.damage import damage_refused
from ptychonnx.runtime.formats.conversion.assembly import assemble
from ptychonnx.runtime.formats.conversion.checked_scan import checked_scan
from ptychonnx.runtime.formats.conversion.probe_window import corner_note, phase_note, probe_of_size
from ptychonnx.runtime.formats.conversion.raw_scan import from_scan
from ptychonnx.runtime.formats.conversion.scaling import estimated_flux, probe_with_power
from ptychonnx.runtime.formats.read_options import ReadOptions
from ptychonnx.runtime.formats.readers import mapped
from ptychonnx.runtime.formats.readers.probe import read_probe
from ptychonnx.runtime.formats.readers.reference import read_reference
from ptychonnx.runtime.formats.scan_formats import NATIVE, recognise
from ptychonnx.runtime.machine import allow_open_files
from ptychonnx.runtime.paths import StrPath, check_file, readable
from ptychonnx.runtime.scan import Scan

__all__ = ["read_scan"]

_logger = logging.getLogger("ptychonnx.runtime.formats")


def read_scan(
    path: StrPath,
    *,
    reference: StrPath | None = None,
    probe: StrPath | None = None,
    options: ReadOptions | None = None,
    log: Callable[[str], None] = _logger.info,
    estimate_probe: bool = False,
) -> Scan:
    """Read a scan from a file of any known format, or from any file with a mapping.

    Where `docs/reference/formats.md` says so, patterns stay in the file and are read, converted and checked on access;
    the file stays open as long as the scan is in use. All of them are read here only to scale a probe of unknown power
    where no object is known, and to find bad pixels if the options ask for it.

    Parameters
    ----------
    path
        NPZ (also .npz.bz2) or HDF5; the format is recognised by content. With a mapping also NPY.
    reference
        Object to compare with, see `ptychonnx.runtime.formats.readers.reference`; replaces one in the scan file.
    probe
        Probe, see `ptychonnx.runtime.formats.readers.probe`; replaces one in the scan file. It is scaled so that its
        power is the mean number of photons in a pattern, which makes the object's amplitude of the order of one.
    options
        Conventions that the file does not state, or states wrongly, and what to do to the patterns.
    log
        Receives one line per convention: how the file was understood. By default the logger
        ``ptychonnx.runtime.formats`` at level INFO.
    estimate_probe
        Scale a probe of unknown power by a sample of the patterns, so that no pattern is read twice;
        `Scan.settled` replaces the estimate.

    Returns
    -------
    Scan
        Amplitudes with the direct beam in the centre, positions in pixels as (row, column).

    Raises
    ------
    InputError
        If a file is missing, damaged, of no known format, or breaks the rules of its format. Invalid patterns are
        refused when they are read.

    Examples
    --------
    >>> import ptychonnx
    >>> scan = ptychonnx.read_scan("scan.npz")
    >>> len(scan), scan.size, scan.positions.shape
    (25, 64, (25, 2))

    Options state what the file does not:

    >>> options = ptychonnx.ReadOptions(rebin=2, pixel_size=8e-9)
    >>> ptychonnx.read_scan("scan.npz", options=options).size
    32
    """
    path = Path(path)
    options = options or ReadOptions()
    check_file(path, "a scan file")
    # A file for each line or pattern stays open.
    allow_open_files()
    with damage_refused(path), ExitStack() as stack:
        scan = _read(path, options, log, estimate_probe, stack)
        # The patterns of the scan hold the files open from here on.
        stack.pop_all()
    if probe is not None:
        flux = estimated_flux(scan) if estimate_probe else scan.flux
        sized = probe_of_size(read_probe(probe), scan.size, options.resample_probe, str(probe), log)
        scaled = probe_with_power(sized, flux)
        scan = replace(scan, probe=scaled, probe_estimated=estimate_probe)
    for note in () if scan.probe is None else filter(None, (corner_note(scan.probe), phase_note(scan.probe))):
        log(note)
    if reference is not None:
        scan = replace(scan, reference=read_reference(reference, scan))
    name = readable(scan.name)
    return scan if name == scan.name else replace(scan, name=name)


def _read(
    path: Path, options: ReadOptions, log: Callable[[str], None], estimate: bool, stack: ExitStack
) -> Scan:
    if options.mapping:
        log(f"{path.name}: as mapped")
        return assemble(mapped.read(path, options, stack), options, log, estimate=estimate)
    scan_format, opened = recognise(path, options, stack)
    content = scan_format.read(opened)
    # Without options that leave patterns and positions as they are.
    others = {"pixel_size": None, "wavelength": None, "companion": None, "resample_probe": False}
    unchanged = options.model_copy(update=others)
    # Our own files state everything: there is nothing to report.
    if scan_format.name != NATIVE or unchanged != ReadOptions():
        log(f"{path.name}: {scan_format.name}, recognised by {scan_format.keys}")
    if isinstance(content, Scan):
        assert scan_format.conventions is not None
        conventions = scan_format.conventions(opened)
        if unchanged == ReadOptions():
            for line in conventions.lines() if scan_format.name != NATIVE else ():
                log(line)
            content = replace(
                content,
                pixel_size=options.pixel_size or content.pixel_size,
                wavelength=options.wavelength or content.wavelength,
            )
            return checked_scan(content, path, log)
        if content.labels is not None:
            log("labels: left out, since options change patterns or positions")
        content = from_scan(content, path, conventions)
    return assemble(content, options, log, estimate=estimate)
