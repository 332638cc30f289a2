"""`ptychonnx specialise`: a general artifact for one beam."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.export.artifact.specialise import beam_of_probe, beam_of_scan
from ptychonnx.export.artifact.specialise import specialise as specialise_artifact
from ptychonnx.harness.cli.console import print_result, report_progress
from ptychonnx.harness.cli.model_options import derive_options
from ptychonnx.harness.cli.shared_options import EstimateProbe
from ptychonnx.harness.iterative.probe_estimate import with_estimated_probe
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.formats.readers.probe import read_probe
from ptychonnx.runtime.inference.artifact_path import artifact_path

__all__ = ["specialise"]

_logger = logging.getLogger("ptychonnx.harness.specialise")


@derive_options
def specialise(
    artifact: Annotated[
        Path, typer.Argument(parser=artifact_path, help="General artifact, by path or as zoo:NAME.")
    ],
    out: Annotated[Path, typer.Option(help="Artifact to write, ending in .onnx.")],
    scan: Annotated[
        Path | None, typer.Option(help="Scan whose probe, mask and brightness are taken.")
    ] = None,
    probe: Annotated[
        Path | None,
        typer.Option(
            help="File with a probe; with --scan it replaces that of the scan, alone it needs --photons."
        ),
    ] = None,
    estimate_probe: EstimateProbe = False,
    photons: Annotated[
        float | None, typer.Option(min=0, help="With --probe alone: mean photons in a pattern.")
    ] = None,
    *,
    reading: ReadOptions,
) -> None:
    """Turn a **general** artifact into one for a single beam: probe, mask and scale become constants.

    Servers and engines that take no such inputs can then run it, and what follows from the beam is computed once and
    for all. The file is published only if it agrees with the general artifact to 1e-5; its contract names the
    beam.

    Example: `ptychonnx specialise models/any.onnx --scan scan.cxi --out models/tonight.onnx`
    """
    with report_progress() as progress:
        progress.stage(f"Specialising {artifact}")
        if scan is not None:
            if photons is not None:
                raise InputError("--photons: are those of the scan, expected --photons with --probe alone")
            beam_scan = read_scan(scan, probe=probe, options=reading)
            if estimate_probe:
                beam_scan, estimate = with_estimated_probe(beam_scan, progress)
                _logger.warning("%s", estimate)
            beam = beam_of_scan(artifact, beam_scan)
        elif estimate_probe or probe is None or photons is None:
            raise InputError("specialise: expected --scan FILE, or --probe FILE and --photons P")
        else:
            if reading.model_copy(update={"resample_probe": False}) != ReadOptions():
                raise InputError("options about reading a scan were given, expected --scan FILE with them")
            loaded = read_probe(probe)
            beam = beam_of_probe(artifact, loaded, photons, None, probe.name, resample=reading.resample_probe)
        result = specialise_artifact(artifact, beam, out, progress)
    print_result(out, result.verdict())
