"""`ptychonnx reconstruct`: from a scan to an object."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.cli.console import output, progress_bar
from ptychonnx.harness.cli.scan_options import note, with_reading
from ptychonnx.harness.cli.server_options import ServerOptions, remote_sessions, with_connection
from ptychonnx.harness.cli.shared_options import Batch
from ptychonnx.harness.iterative.refinement import refine as refine_object
from ptychonnx.harness.iterative.rpie import ALPHA, check_iterative
from ptychonnx.harness.metrics.region import RegionRule, declare_region
from ptychonnx.harness.report.object_figures import reconstruction_figure
from ptychonnx.harness.report.quantity_images import Panel
from ptychonnx.runtime.atomic import atomic_path
from ptychonnx.runtime.contract import Placement, Weighting
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.formats.writers.reconstruction_file import (
    ENDINGS_OF_TILES,
    check_ending,
    write_reconstruction,
)
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor, Provider, Session, tuned
from ptychonnx.runtime.progress import Callback
from ptychonnx.runtime.reconstruction import reconstruct as run_reconstruction
from ptychonnx.runtime.reconstruction.stitching import check_whole

__all__ = ["reconstruct"]


@with_reading
@with_connection
def reconstruct(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[ARTIFACT] SCAN",
            help="ONNX artifact, left out with --server; scan file, docs/reference/formats.md lists the formats.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="File for the object: .h5 (ptychodus product), .cxi, .npz, or .tif (two images)."),
    ],
    picture: Annotated[Path | None, typer.Option(help="Also draw amplitude and phase to this PNG.")] = None,
    weighting: Annotated[
        Weighting | None, typer.Option(help="How patches are merged; the contract's own if not given.")
    ] = None,
    placement: Annotated[
        Placement | None,
        typer.Option(help="How patches come to lie between pixels; the contract's own if not given."),
    ] = None,
    synchronise: Annotated[
        bool | None,
        typer.Option(
            "--synchronise/--no-synchronise",
            help="Turn each patch by one phase so that all agree where they overlap; the artifact's own if not given.",
        ),
    ] = None,
    probe: Annotated[
        Path | None, typer.Option(help="NPZ whose `probe`, scaled to the counts, replaces that of the scan.")
    ] = None,
    provider: Annotated[Provider, typer.Option(help="Where to run; auto takes the best there is.")] = "auto",
    batch: Batch = DEFAULT_BATCH,
    canvas_memory: Annotated[
        float | None,
        typer.Option(
            min=0,
            metavar="GB",
            help="Largest canvas in memory, a larger one is kept in tiles on disk; a quarter of the machine's.",
            show_default=False,
        ),
    ] = None,
    refine: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="K",
            rich_help_panel="Iterations",
            help="Follow the network by K epochs of rPIE, which start from its object. Needs ptychonnx[iterative].",
        ),
    ] = 0,
    refine_probe: Annotated[
        bool,
        typer.Option("--refine-probe", rich_help_panel="Iterations", help="Let them move the probe too."),
    ] = False,
    alpha: Annotated[
        float,
        typer.Option(
            metavar="A",
            rich_help_panel="Iterations",
            help="Of the iterations, above 0: the smaller, the faster, and the more noise; 1 is ePIE.",
        ),
    ] = ALPHA,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            rich_help_panel="Server",
            help="Network on a server: grpc://host:port/model[/version], grpcs://, http:// or https://.",
        ),
    ] = None,
    *,
    reading: ReadOptions,
    connection: ServerOptions,
) -> None:
    """Run every pattern of a scan through an artifact and **stitch** the patches into one object.

    Example: `ptychonnx reconstruct models/pinn_fno.onnx scan.cxi --out object.h5`

    On a server: `ptychonnx reconstruct --server grpc://127.0.0.1:8001/pinn_fno scan.cxi --out object.h5`
    """
    if len(files) != (1 if server else 2):
        raise InputError(
            f"reconstruct: got {len(files)} files, expected "
            + ("a scan alone with --server" if server else "an artifact (or --server URL) and a scan")
        )
    if server and batch is None:
        raise InputError("--batch auto: is for artifacts, expected a number with --server")
    if refine_probe and not refine:
        raise InputError(
            "--refine-probe: there are no iterations to refine the probe, expected --refine K too"
        )
    *artifacts, scan = files
    check_ending(out)
    with ExitStack() as stack:
        session: Predictor
        (session,) = (
            stack.enter_context(remote_sessions([server], connection))
            if server
            else [Session(path, provider) for path in artifacts]
        )
        loaded = read_scan(scan, probe=probe, options=reading, log=note, estimate_probe=True)
        memory = None if canvas_memory is None else int(1e9 * canvas_memory)
        for path, whole in (
            (out, out.suffix not in ENDINGS_OF_TILES),
            (picture, picture is not None),
            ("--refine", refine > 0),
        ):
            if whole:
                check_whole(loaded.positions, loaded.size, memory, f"{path}: takes the whole object")
        if batch is None and isinstance(session, Session):
            session, batch = tuned(session, loaded, log=note)
        if refine:
            check_iterative(loaded, alpha)
        with progress_bar() as bar:
            task = bar.add_task(f"Reconstructing {loaded.name}", total=len(loaded))
            result = run_reconstruction(
                session,
                loaded,
                weighting,
                batch or DEFAULT_BATCH,
                Callback(lambda step: bar.update(task, completed=step.done)),
                placement=placement,
                synchronise=synchronise,
                canvas_memory=memory,
            )
        network_seconds = result.inference_seconds
        if refine:
            with progress_bar() as bar:
                task = bar.add_task(f"Refining {loaded.name}", total=refine)
                result = refine_object(
                    loaded,
                    result,
                    refine,
                    Callback(lambda step: bar.update(task, completed=step.done)),
                    refine_probe=refine_probe,
                    alpha=alpha,
                )
    written = write_reconstruction(out, result, loaded, session.contract)
    if picture is not None:
        lit, _ = declare_region(loaded, result.stitched.covered, result.stitched.origin, RegionRule())
        with atomic_path(picture) as partial:
            partial.write_bytes(
                reconstruction_figure([Panel(session.contract.label, result.stitched.object)], lit)
            )
    rows, columns = result.stitched.shape
    names = " and ".join(map(str, written))
    output.print(
        f"{names}: {rows} x {columns} pixels from {result.patterns} patterns on {session.provider}, "
        f"{1e3 * network_seconds / result.patterns:.2f} ms a pattern, weighting {result.weighting}",
        soft_wrap=True,
    )
    if result.refinement:
        seconds = result.inference_seconds - network_seconds
        output.print(f"{result.refinement}, {seconds:.1f} s", soft_wrap=True)
    if result.requests is not None:
        output.print(str(result.requests), soft_wrap=True)
