"""`ptychonnx reconstruct`: from a scan to an object."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from harness.cli.console import output, progress_bar
from harness.cli.reading import note, with_reading
from harness.metrics.region import RegionRule, declare_region
from harness.report.figures import Panel, reconstruction_figure
from runtime.atomic import atomic_path
from runtime.contract import Weighting
from runtime.formats import ReadOptions, read_scan
from runtime.formats.products import check_ending
from runtime.providers import Provider
from runtime.reconstruct import reconstruct as run_reconstruction
from runtime.reconstruct import write_reconstruction
from runtime.session import DEFAULT_BATCH, Session

__all__ = ["reconstruct"]


@with_reading
def reconstruct(
    artifact: Annotated[Path, typer.Argument(help="ONNX artifact.")],
    scan: Annotated[Path, typer.Argument(help="Scan file; docs/formats.md lists the formats.")],
    out: Annotated[
        Path,
        typer.Option(help="File for the object: .h5 (ptychodus product), .cxi, .npz, or .tif (two images)."),
    ],
    picture: Annotated[Path | None, typer.Option(help="Also draw amplitude and phase to this PNG.")] = None,
    weighting: Annotated[
        Weighting | None, typer.Option(help="How patches are merged; the contract's own if not given.")
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(help="NPZ whose `probe`, scaled to the counts, replaces that of the scan.")
    ] = None,
    provider: Annotated[Provider, typer.Option(help="Where to run; auto takes the best there is.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Patterns in one run of the network.")] = DEFAULT_BATCH,
    *,
    reading: ReadOptions,
) -> None:
    """Run every pattern of a scan through an artifact and **stitch** the patches into one object.

    Example: `ptychonnx reconstruct models/pinn_fno.onnx scan.cxi --out object.h5`
    """
    check_ending(out)
    session = Session(artifact, provider)
    loaded = read_scan(scan, probe=probe, options=reading, log=note)
    with progress_bar() as bar:
        task = bar.add_task(f"Reconstructing {loaded.name}", total=len(loaded))
        result = run_reconstruction(
            session, loaded, weighting, batch, lambda done: bar.update(task, advance=done)
        )
    written = write_reconstruction(out, result, loaded, session.contract)
    if picture is not None:
        lit, _ = declare_region(loaded, result.stitched.covered, result.stitched.origin, RegionRule())
        with atomic_path(picture) as partial:
            partial.write_bytes(
                reconstruction_figure([Panel(session.contract.label, result.stitched.object)], lit)
            )
    rows, columns = result.stitched.object.shape
    names = " and ".join(map(str, written))
    output.print(
        f"{names}: {rows} x {columns} pixels from {result.patterns} patterns on {session.provider}, "
        f"{1e3 * result.inference_seconds / result.patterns:.2f} ms a pattern, weighting {result.weighting}",
        soft_wrap=True,
    )
