"""`ptychonnx reconstruct`: from a scan to an object."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.cli.console import output, report_progress
from ptychonnx.harness.cli.model_options import Omit, derive_options
from ptychonnx.harness.cli.shared_options import Probe, check_batch
from ptychonnx.harness.iterative.iteration_options import IterationOptions
from ptychonnx.harness.iterative.refinement import refine
from ptychonnx.harness.iterative.rpie import check_iterative
from ptychonnx.harness.metrics.region import RegionRule, declare_region
from ptychonnx.harness.report.object_figure import object_figure
from ptychonnx.harness.report.quantity_images import Panel, quantity_images
from ptychonnx.runtime.atomic import atomic_path, check_output
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.formats.writers.reconstruction_file import (
    ENDINGS_OF_TILES,
    check_product,
    write_reconstruction,
)
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor, Session, tuned
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.inference.remote.server_options import ServerOptions, remote_sessions
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction import reconstruct as run_reconstruction
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.reconstruction.stitching import check_whole, whole_shape
from ptychonnx.runtime.scan import Scan

__all__ = ["reconstruct"]


@derive_options
def reconstruct(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[ARTIFACT] SCAN",
            parser=artifact_path,
            help="ONNX artifact or zoo:NAME, left out with --server; and scan file (docs/reference/formats.md).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="File for the object: .h5 (ptychodus product), .cxi, .npz, or .tif (two images)."),
    ],
    picture: Annotated[Path | None, typer.Option(help="PNG file for amplitude and phase.")] = None,
    probe: Probe = None,
    server: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Network on a server, grpc://host:port/model[/version]; also grpcs, http and https.",
        ),
    ] = None,
    *,
    inference: InferenceOptions,
    stitching: ReconstructOptions,
    iterations: Annotated[IterationOptions, Omit("iterations")],
    connection: ServerOptions,
    reading: ReadOptions,
) -> None:
    """Run every pattern of a scan through an artifact and **stitch** the patches into one object.

    Example: `ptychonnx reconstruct models/pinn_fno.onnx scan.cxi --out object.h5`

    On a server: `ptychonnx reconstruct --server grpc://127.0.0.1:8001/pinn_fno scan.cxi --out object.h5`
    """
    servers = [server] if server else []
    if len(files) != 2 - len(servers):
        raise InputError(
            f"reconstruct: got {len(files)} files, expected "
            + ("a scan alone with --server" if server else "an artifact (or --server URL) and a scan")
        )
    check_batch(inference, servers)
    if iterations.refine_probe and not iterations.refine:
        raise InputError("--refine-probe: there are no iterations, expected --refine K with it")
    *artifacts, path = files
    check_product(out)
    if picture is not None:
        check_output(picture)
    batch = inference.batch
    with ExitStack() as stack:
        networks: list[Predictor] = [Session(artifact, inference.provider) for artifact in artifacts]
        networks += stack.enter_context(remote_sessions(servers, connection))
        (network,) = networks
        scan = read_scan(path, probe=probe, options=reading, estimate_probe=True)
        memory = None if stitching.canvas_memory is None else int(1e9 * stitching.canvas_memory)
        if out.suffix not in ENDINGS_OF_TILES:
            check_whole(scan.positions, scan.size, memory, f"{out}: takes the whole object")
        check_product(out, whole_shape(scan.positions, scan.size, memory))
        if picture is not None:
            check_whole(scan.positions, scan.size, memory, f"{picture}: takes the whole object")
        if iterations.refine:
            check_whole(scan.positions, scan.size, memory, "--refine: takes the whole object")
            check_iterative(scan, iterations.alpha)
        if batch is None and isinstance(network, Session):
            network, batch = tuned(network, scan)
        progress = stack.enter_context(report_progress())
        progress.stage(f"Reconstructing {scan.name}", len(scan), "patterns")
        result = run_reconstruction(
            network,
            scan,
            stitching.weighting,
            batch or DEFAULT_BATCH,
            progress,
            placement=stitching.placement,
            synchronise=stitching.synchronise,
            canvas_memory=memory,
            skip_invalid=stitching.skip_invalid,
        )
        network_seconds = result.inference_seconds
        if iterations.refine:
            progress.stage(f"Refining {scan.name}", iterations.refine, "epochs")
            result = refine(
                scan,
                result,
                iterations.refine,
                progress,
                refine_probe=iterations.refine_probe,
                alpha=iterations.alpha,
            )
    written = write_reconstruction(out, result, scan, network.contract)
    if picture is not None:
        _draw(picture, network.contract.label, scan, result)
    rows, columns = result.stitched.shape
    lines = [
        f"{' and '.join(map(str, written))}: {rows} x {columns} pixels from {result.patterns} patterns on "
        f"{network.provider}, {1e3 * network_seconds / result.patterns:.2f} ms per pattern, weighting "
        f"{result.weighting}"
    ]
    if result.refinement:
        lines.append(f"{result.refinement}, {result.inference_seconds - network_seconds:.1f} s")
    if result.skipped:
        lines.append(result.skipped_text)
    if result.requests is not None:
        lines.append(str(result.requests))
    for line in lines:
        output.print(line, soft_wrap=True, markup=False)


def _draw(picture: Path, label: str, scan: Scan, result: Reconstruction) -> None:
    region, _ = declare_region(scan, result.stitched.covered, result.stitched.origin, RegionRule())
    with atomic_path(picture) as partial:
        panels = [Panel(label, result.stitched.object)]
        partial.write_bytes(object_figure(quantity_images(None, region, panels)))
