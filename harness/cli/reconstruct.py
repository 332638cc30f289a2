"""`ptychonnx reconstruct`: from a scan to an object."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.campaign.engines import open_engine
from ptychonnx.harness.campaign.large_scan import LargeScan
from ptychonnx.harness.campaign.many_scans import reconstruct_scans
from ptychonnx.harness.campaign.scan_run import (
    Networks,
    RunOptions,
    ScanRun,
    check_beam,
    reconstruct_scan,
)
from ptychonnx.harness.cli.console import one_line, print_lines, print_misfit, print_result, report_progress
from ptychonnx.harness.cli.many_scans import process_folder, process_watched
from ptychonnx.harness.cli.model_options import derive_options
from ptychonnx.harness.cli.reconstruct_request import ReconstructRequest, divided_files
from ptychonnx.harness.cli.shared_options import READING, DivisionOptions, EstimateProbe, Probe, ServerUrl
from ptychonnx.harness.iterative.iteration_options import IterationOptions
from ptychonnx.harness.metrics.region import RegionRule, declare_region
from ptychonnx.harness.report.object_figure import object_figure
from ptychonnx.harness.report.quantity_images import Panel, quantity_images, uncertainty_images
from ptychonnx.runtime.atomic import atomic_path
from ptychonnx.runtime.formats import ReadOptions
from ptychonnx.runtime.formats.writers.patches_file import patches_file
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.inference.remote.server_options import ServerOptions, remote_sessions
from ptychonnx.runtime.progress import Progress
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction import reconstruct as run_reconstruction
from ptychonnx.runtime.reconstruction.position_correction import write_positions
from ptychonnx.runtime.reconstruction.reconstruct_options import PositionOptions, ReconstructOptions
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.sharding import Shard, reconstruct_shard

__all__ = ["reconstruct"]

_logger = logging.getLogger("ptychonnx.harness.reconstruct")


@derive_options
def reconstruct(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[ARTIFACT] SCAN...",
            parser=artifact_path,
            help="ONNX artifact or zoo:NAME, unless --server or --iterations is given; and scan files "
            "(docs/reference/formats.md).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="File for the object: .h5 (ptychodus product), .cxi, .npz, or .tif (two images); or folder for the "
            "objects of several scans and their manifest, from which an interrupted command continues."
        ),
    ],
    picture: Annotated[Path | None, typer.Option(help="PNG file for amplitude and phase.")] = None,
    patches: Annotated[
        Path | None,
        typer.Option(help="HDF5 file for the predicted patches with their positions, to stitch elsewhere."),
    ] = None,
    probe: Probe = None,
    estimate_probe: EstimateProbe = False,
    fit_patterns: Annotated[
        bool,
        typer.Option(
            "--fit-patterns",
            rich_help_panel=READING,
            help="If the network takes patterns of another size: bin them, cut out their middle, or pad them with "
            "invalid pixels, and say so.",
        ),
    ] = False,
    uncertainty: Annotated[
        bool,
        typer.Option(
            "--uncertainty",
            help="Reconstruct under the symmetries of the far field; write their mean, and its standard deviations.",
        ),
    ] = False,
    server: ServerUrl = None,
    *,
    inference: InferenceOptions,
    stitching: ReconstructOptions,
    positions: PositionOptions,
    iterations: IterationOptions,
    connection: ServerOptions,
    reading: ReadOptions,
    division: DivisionOptions,
) -> None:
    """Run every pattern of a scan through an artifact and **stitch** the patches into one object.

    Without an artifact, the zoo's general network for patterns of this size is taken.

    Example: `ptychonnx reconstruct models/pinn_fno.onnx scan.cxi --out object.h5`

    Many scans: `ptychonnx reconstruct models/pinn_fno.onnx night/*.cxi --out objects/ --executor local`

    On a server: `ptychonnx reconstruct --server grpc://127.0.0.1:8001/pinn_fno scan.cxi --out o.h5`
    """
    artifact, scans = divided_files(files, out)
    request = ReconstructRequest(artifact, scans, out, picture, patches, server, division)
    options = RunOptions(
        inference=inference,
        stitching=stitching,
        positions=positions,
        iterations=iterations,
        reading=reading,
        probe=probe,
        estimate_probe=estimate_probe,
        fit_patterns=fit_patterns,
        uncertainty=uncertainty,
    )
    request.check(options)
    with remote_sessions([server] if server else [], connection) as remote, ExitStack() as stack:
        engine = None
        if division.executor:
            engine = stack.enter_context(open_engine(division.executor, inference.provider))
        networks = stack.enter_context(Networks(remote[0] if remote else artifact, inference))
        if request.many:
            process = partial(reconstruct_scans, networks, folder=out, options=options, engine=engine)
            (process_watched if division.watch else process_folder)(process, scans, out)
            return
        scan = options.read(scans[0])
        if request.part is not None:
            _write_part(out, networks.for_scan(scan), scan, request.part, options)
            return
        stitch: Callable[..., Reconstruction] | None = None
        if engine is not None:
            # Whoever divides a scan among workers has more of it than one process should iterate on unasked.
            options = options.with_refinement(0)
            stitch = LargeScan(scans[0], options, engine, out.parent, division.shards)
        elif patches is not None:
            stitch = partial(_keep_patches, patches, stitching)
        whole = [] if picture is None else [str(picture)]
        with report_progress() as progress:
            run = reconstruct_scan(
                networks, scan, options, out, progress, warn=_warn, whole=whole, stitch=stitch
            )
    if positions.positions_out is not None and run.positions is not None:
        write_positions(positions.positions_out, run.scan, run.positions)
    if picture is not None:
        _draw(picture, run)
    if networks.model is None and run.network is not None:
        print_lines(
            f"{scan.name}: reconstructed with zoo:{Path(run.network.name).stem}, the general network for "
            f"patterns of {run.scan.size} x {run.scan.size} pixels"
        )
    _print_run(run)


def _warn(line: str) -> None:
    _logger.warning("%s", line)


def _keep_patches(
    patches: Path,
    stitching: ReconstructOptions,
    network: Predictor,
    scan: Scan,
    batch: int,
    progress: Progress,
) -> Reconstruction:
    """Reconstruct a scan and write the patches too."""
    progress.stage(f"Reconstructing {scan.name}", len(scan), "patterns")
    with patches_file(patches, scan, network.contract) as keep:
        return run_reconstruction(network, scan, stitching, batch, progress, keep)


def _write_part(out: Path, network: Predictor, scan: Scan, shard: Shard, options: RunOptions) -> None:
    stitching, batch = options.stitching, options.inference.batch or DEFAULT_BATCH
    check_beam(network, scan, stitching, _warn)
    with report_progress() as progress:
        progress.stage(
            f"Reconstructing part {shard.number} of {scan.name}", len(scan) // shard.count, "patterns"
        )
        run = reconstruct_shard(network, scan, shard, out, stitching, batch, progress)
    line = f"part {shard.number} of {shard.count}, {run.inference_seconds:.1f} s on {network.provider}"
    print_result(out, [line, *([f"{len(run.skipped)} patterns left out"] if run.skipped else [])])


def _print_run(run: ScanRun) -> None:
    result, stitched = run.result, run.stitched
    rows, columns = result.stitched.shape
    files = one_line(" and ".join(map(str, run.files)))
    made = f"{files}: {rows} x {columns} pixels from {result.patterns} patterns"
    if run.network is not None and stitched is not None:
        print_lines(
            f"{made} on {run.network.provider}, {1e3 * stitched.inference_seconds / result.patterns:.2f} ms per "
            f"pattern, weighting {result.weighting}"
        )
    else:
        print_lines(made)
    if run.positions is not None:
        print_lines(str(run.positions))
    if result.refinement:
        seconds = result.inference_seconds - (stitched.inference_seconds if stitched is not None else 0)
        print_lines(f"{result.refinement}, {seconds:.1f} s")
    if result.skipped:
        print_lines(result.skipped_text)
    if result.uncertainty is not None:
        print_lines(str(result.uncertainty))
    if result.requests is not None:
        print_lines(str(result.requests))
    print_misfit(result, _logger)


def _draw(picture: Path, run: ScanRun) -> None:
    scan, result = run.scan, run.result
    made = [] if run.network is None else [run.network.contract.label]
    if result.refinement:
        made.append(re.split("[,:]", result.refinement)[0])
    region, _ = declare_region(scan, result.stitched.covered, result.stitched.origin, RegionRule())
    with atomic_path(picture) as partial:
        quantities = quantity_images(None, region, [Panel(", ".join(made), result.stitched.object)])
        if result.uncertainty is not None:
            quantities += uncertainty_images(result.uncertainty, region)
        partial.write_bytes(object_figure(quantities))
