"""`ptychonnx reconstruct`: from a scan to an object."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.cli.console import output, print_result, report_progress
from ptychonnx.harness.cli.model_options import Omit, derive_options
from ptychonnx.harness.cli.shared_options import Probe, ServerUrl, check_batch
from ptychonnx.harness.iterative.iteration_options import IterationOptions
from ptychonnx.harness.iterative.refinement import refine
from ptychonnx.harness.iterative.rpie import check_iterative
from ptychonnx.harness.metrics.region import RegionRule, declare_region
from ptychonnx.harness.report.object_figure import object_figure
from ptychonnx.harness.report.quantity_images import Panel, quantity_images
from ptychonnx.runtime.atomic import atomic_path, check_output
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.formats.writers.reconstruction_file import (
    ENDINGS_OF_TILES,
    check_product,
    write_reconstruction,
)
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor, Session, tuned
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.general_artifact import general_artifact
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.inference.remote.server_options import ServerOptions, remote_sessions
from ptychonnx.runtime.progress import Progress
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction import reconstruct as run_reconstruction
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.reconstruction.stitching import check_whole, whole_shape
from ptychonnx.runtime.reconstruction.trust import beam_warnings
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.sharding import Shard, reconstruct_shard

__all__ = ["reconstruct"]

_logger = logging.getLogger("ptychonnx.harness.reconstruct")


@derive_options
def reconstruct(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[ARTIFACT] SCAN",
            parser=artifact_path,
            help="ONNX artifact or zoo:NAME, left out with --server and for the general network of the zoo; and scan "
            "file (docs/reference/formats.md).",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="File for the object: .h5 (ptychodus product), .cxi, .npz, or .tif (two images)."),
    ],
    picture: Annotated[Path | None, typer.Option(help="PNG file for amplitude and phase.")] = None,
    probe: Probe = None,
    server: ServerUrl = None,
    shard: Annotated[
        str | None,
        typer.Option(
            metavar="I/N",
            help="Reconstruct the I-th of N parts of the scan, and write its sums for `ptychonnx merge`.",
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

    Without an artifact, the general network of the zoo for patterns of this size is taken, if it has one.

    Example: `ptychonnx reconstruct models/pinn_fno.onnx scan.cxi --out object.h5`

    On a server: `ptychonnx reconstruct --server grpc://127.0.0.1:8001/pinn_fno scan.cxi --out object.h5`
    """
    servers = [server] if server else []
    if len(files) > 2 - len(servers):
        raise InputError(
            f"reconstruct: got {len(files)} files, expected "
            + (
                "a scan alone with --server"
                if server
                else "a scan, or an artifact (or --server URL) and a scan"
            )
        )
    check_batch(inference, servers)
    *artifacts, path = files
    part = None if shard is None else Shard.parse(shard)
    if part is not None:
        _check_part(out, picture, iterations, inference)
    _check_outputs(out, picture, iterations)
    with remote_sessions(servers, connection) as remote:
        network: Predictor | None = remote[0] if remote else None
        if artifacts:
            network = Session(artifacts[0], inference.provider)
        scan = read_scan(path, probe=probe, options=reading, estimate_probe=True)
        if network is None:
            chosen = general_artifact(scan)
            output.print(
                f"{scan.name}: reconstructed with zoo:{chosen.stem}, the general network for patterns of "
                f"{scan.size} x {scan.size} pixels",
                soft_wrap=True,
                markup=False,
            )
            network = Session(chosen, inference.provider)
        if part is not None:
            _check_beam(network, scan, stitching)
            _write_part(out, network, scan, part, inference.batch or DEFAULT_BATCH, stitching)
            return
        _check_memory(scan, out, picture, stitching, iterations)
        if iterations.refine:
            check_iterative(scan, iterations.alpha)
        _check_beam(network, scan, stitching)
        batch = inference.batch
        if batch is None and isinstance(network, Session):
            network, batch = tuned(network, scan)
        with report_progress() as progress:
            stitched, refined = _run(network, scan, batch or DEFAULT_BATCH, stitching, iterations, progress)
    result = refined or stitched
    if result.misfit is not None and result.misfit.verdict == "wrong" and stitching.strict:
        raise VerificationError(f"--strict: {out} was not written: {result.misfit}")
    written = write_reconstruction(out, result, scan, network.contract)
    if picture is not None:
        _draw(picture, network.contract.label, scan, result)
    for line in _summary(written, network.provider, stitched, refined):
        output.print(line, soft_wrap=True, markup=False)
    if result.misfit is None:
        _logger.warning("forward misfit unknown: it needs a probe, and an object in memory")
    elif result.misfit.verdict != "good":
        _logger.warning("%s", result.misfit)


def _check_outputs(out: Path, picture: Path | None, iterations: IterationOptions) -> None:
    if iterations.refine_probe and not iterations.refine:
        raise InputError("--refine-probe: there are no iterations, expected --refine K with it")
    check_product(out)
    if picture is not None:
        check_output(picture)


def _check_beam(network: Predictor, scan: Scan, stitching: ReconstructOptions) -> None:
    """Say what of the scan is unknown to the network; refuse it with `--strict`."""
    unknown = beam_warnings(scan, network.contract)
    for line in unknown:
        _logger.warning("%s", line)
    if unknown and stitching.strict:
        raise InputError(f"--strict: {network.name} does not know this scan: {unknown[0]}")


def _check_part(
    out: Path, picture: Path | None, iterations: IterationOptions, inference: InferenceOptions
) -> None:
    """Refuse what takes a whole object, and what may differ between the processes that write the parts."""
    if out.suffix != ".h5":
        raise InputError(f"{out}: is a part of an object, expected a name that ends in .h5")
    for option, set_ in (("--picture", picture is not None), ("--refine", iterations.refine > 0)):
        if set_:
            raise InputError(f"{option}: takes the whole object, which has to be merged from its parts first")
    if inference.batch is None:
        raise InputError(
            "--batch auto: may differ between the parts of a scan, expected a number with --shard"
        )


def _write_part(
    out: Path, network: Predictor, scan: Scan, shard: Shard, batch: int, stitching: ReconstructOptions
) -> None:
    with report_progress() as progress:
        progress.stage(
            f"Reconstructing part {shard.number} of {scan.name}", len(scan) // shard.count, "patterns"
        )
        run = reconstruct_shard(
            network,
            scan,
            shard,
            out,
            stitching.weighting,
            batch,
            progress,
            placement=stitching.placement,
            synchronise=stitching.synchronise,
            canvas_memory=stitching.canvas_bytes,
            skip_invalid=stitching.skip_invalid,
        )
    line = f"part {shard.number} of {shard.count}, {run.inference_seconds:.1f} s on {network.provider}"
    print_result(out, [line, *([f"{len(run.skipped)} patterns left out"] if run.skipped else [])])


def _check_memory(
    scan: Scan, out: Path, picture: Path | None, stitching: ReconstructOptions, iterations: IterationOptions
) -> None:
    """Refuse outputs that take the whole object if it does not fit into memory, and an output beyond the free space."""
    consumers = {
        f"{out}: takes the whole object": out.suffix not in ENDINGS_OF_TILES,
        f"{picture}: takes the whole object": picture is not None,
        "--refine: takes the whole object": iterations.refine > 0,
    }
    for consumer, applies in consumers.items():
        if applies:
            check_whole(scan.positions, scan.size, stitching.canvas_bytes, consumer)
    check_product(out, whole_shape(scan.positions, scan.size, stitching.canvas_bytes))


def _run(
    network: Predictor,
    scan: Scan,
    batch: int,
    stitching: ReconstructOptions,
    iterations: IterationOptions,
    progress: Progress,
) -> tuple[Reconstruction, Reconstruction | None]:
    """The reconstruction of the network, and that of the iterations from there if there are any."""
    progress.stage(f"Reconstructing {scan.name}", len(scan), "patterns")
    stitched = run_reconstruction(
        network,
        scan,
        stitching.weighting,
        batch,
        progress,
        placement=stitching.placement,
        synchronise=stitching.synchronise,
        canvas_memory=stitching.canvas_bytes,
        skip_invalid=stitching.skip_invalid,
    )
    if not iterations.refine:
        return stitched, None
    progress.stage(f"Refining {scan.name}", iterations.refine, "epochs")
    refined = refine(
        scan,
        stitched,
        iterations.refine,
        progress,
        refine_probe=iterations.refine_probe,
        alpha=iterations.alpha,
    )
    return stitched, refined


def _summary(
    written: list[Path], provider: str, stitched: Reconstruction, refined: Reconstruction | None
) -> Iterator[str]:
    result = refined or stitched
    rows, columns = result.stitched.shape
    yield (
        f"{' and '.join(map(str, written))}: {rows} x {columns} pixels from {result.patterns} patterns on "
        f"{provider}, {1e3 * stitched.inference_seconds / result.patterns:.2f} ms per pattern, weighting "
        f"{result.weighting}"
    )
    if refined is not None:
        yield f"{refined.refinement}, {refined.inference_seconds - stitched.inference_seconds:.1f} s"
    if result.skipped:
        yield result.skipped_text
    if result.requests is not None:
        yield str(result.requests)
    if result.misfit is not None and result.misfit.verdict == "good":
        yield str(result.misfit)


def _draw(picture: Path, label: str, scan: Scan, result: Reconstruction) -> None:
    region, _ = declare_region(scan, result.stitched.covered, result.stitched.origin, RegionRule())
    with atomic_path(picture) as partial:
        panels = [Panel(label, result.stitched.object)]
        partial.write_bytes(object_figure(quantity_images(None, region, panels)))
