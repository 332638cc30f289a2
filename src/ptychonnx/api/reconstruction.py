"""`ptychonnx.reconstruct` and `ptychonnx.reconstruct_scans`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from ptychonnx.harness.campaign.engines import Engine, open_engine
from ptychonnx.harness.campaign.manifest import ScanRecord
from ptychonnx.harness.campaign.many_scans import reconstruct_scans as run_scans
from ptychonnx.harness.campaign.scan_run import Networks, RunOptions, reconstruct_scan
from ptychonnx.runtime.atomic import check_not_read
from ptychonnx.runtime.contract import Placement, Weighting
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.writers.reconstruction_file import check_product
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.validation import checked

__all__ = ["reconstruct", "reconstruct_scans"]


def reconstruct(
    model: Predictor | StrPath | None,
    scan: Scan | StrPath,
    *,
    out: StrPath | None = None,
    provider: str = "auto",
    batch: int | Literal["auto"] = DEFAULT_BATCH,
    weighting: Weighting | None = None,
    placement: Placement | None = None,
    synchronise: bool | None = None,
    refine: int | Literal["auto"] | None = None,
    iterations: int | Literal["auto"] = 0,
    canvas_memory: int | None = None,
    skip_invalid: bool = False,
    progress: Progress = SILENT,
    until: Callable[[Sequence[float]], bool] = lambda misfits: False,
) -> Reconstruction:
    """Run every pattern of a scan through a network and stitch the patches into one object, or iterate from vacuum.

    Parameters
    ----------
    model
        Path of an artifact, ``zoo:NAME`` for a network that comes with ptychonnx, or an open `Session`; None for the
        general network of the zoo for patterns of this size.
    scan
        A `Scan`, or the path of a file that `read_scan` reads.
    out
        File to write the object to: .h5 (ptychodus product), .cxi, .npz, or .tif (two images). Nothing is written if
        None.
    provider
        Where to run a model that is not open yet: ``auto``, ``cpu``, ``cuda``, ``cuda-graph``, ``tensorrt``,
        ``openvino``, ``openvino:bfloat16`` or ``plugin:NAME=PATH``, see `Session`.
    batch
        Patterns per call of the network; ``auto`` measures the fastest on this machine once.
    weighting
        How overlapping patches are weighted: ``probe``, ``window``, ``uniform`` or ``crop``; the artifact's own if
        None.
    placement
        How patches are placed between pixels: ``bilinear`` or ``fourier``; the artifact's own if None.
    synchronise
        Rotate the patches to a common global phase before they are merged; the artifact's own choice if None.
    refine
        Epochs of iterative reconstruction (mPIE) that start from the object of the network; ``auto`` ends them when the
        misfit hardly falls. Needs the probe. If None: ``auto`` if `model` is None, the scan has a probe, and object and
        patterns fit into memory; 0 otherwise.
    iterations
        Epochs of iterative reconstruction from vacuum, without a network; ``auto`` as for `refine`. `model` is None.
    canvas_memory
        Bytes that the canvas may take; a larger one is kept in tiles on disk. A quarter of the machine's memory if
        None.
    skip_invalid
        Leave out patterns whose patches are not finite, instead of refusing; `Reconstruction.skipped` lists them.
    progress
        Receives progress, see `ptychonnx.runtime.progress`.
    until
        Called after each epoch of `refine` or `iterations` with the misfits so far; the epochs end if it returns True,
        and the object so far is kept.

    Returns
    -------
    Reconstruction
        `Reconstruction.object` is complex64 [rows, columns]; its pixel [0, 0] lies at `Reconstruction.stitched.origin`
        in the coordinates of `Scan.positions`.

    Raises
    ------
    InputError
        If the model or the scan cannot be used, or they do not fit each other.
    ServerError
        If the model runs on a server that fails.

    Examples
    --------
    >>> import ptychonnx
    >>> scan = ptychonnx.simulate_lines(grid=6)
    >>> reconstruction = ptychonnx.reconstruct("zoo:pinn_fno", scan, out="object.h5")
    >>> reconstruction.object.shape, reconstruction.object.dtype
    ((97, 97), dtype('complex64'))

    An open session serves many scans:

    >>> session = ptychonnx.Session("zoo:pinn_fno", provider="cpu")
    >>> objects = [
    ...     ptychonnx.reconstruct(session, scan).object
    ...     for scan in (ptychonnx.simulate_lines(grid=4, seed=seed) for seed in (1, 2))
    ... ]
    """
    if out is not None:
        check_product(out)
        check_not_read(out, model, scan)
    options = _run_options(
        provider=provider,
        batch=batch,
        weighting=weighting,
        placement=placement,
        synchronise=synchronise,
        refine=refine,
        iterations=iterations,
        canvas_memory=canvas_memory,
        skip_invalid=skip_invalid,
    )
    _check_start(model, options)
    network = Path(model) if isinstance(model, str | os.PathLike) else model
    with Networks(network, options.inference) as networks:
        if isinstance(scan, str | os.PathLike):
            scan = options.read(Path(scan))
        elif not isinstance(scan, Scan):
            raise InputError(f"scan: got {type(scan).__name__}, expected a Scan or the path of a file")
        target = None if out is None else Path(out)
        return reconstruct_scan(networks, scan, options, target, progress, until=until).result


def reconstruct_scans(
    model: Predictor | StrPath | None,
    scans: Iterable[StrPath] | StrPath,
    folder: StrPath,
    *,
    executor: Executor | str | None = None,
    progress: Progress = SILENT,
    **options: Any,
) -> list[ScanRecord]:
    """Reconstruct many scans, each to ``<folder>/<name of the scan>.h5``, as `ptychonnx reconstruct` does.

    A scan that fails does not stop the others. What an earlier call has done, with the same network and options and
    from the same content, is not done again; ``manifest.jsonl`` in the folder remembers it.

    Parameters
    ----------
    model
        As of `reconstruct`; an artifact if there is an executor.
    scans
        Files that `read_scan` reads, whose names differ; or one.
    folder
        Folder for the objects, created if missing.
    executor
        Where scans are reconstructed: any `concurrent.futures.Executor` whose workers see the files; or ``local:4`` for
        processes that are replaced if they die, ``dask:4``, ``dask://host:port``, or a YAML file for workers that
        Slurm starts. One scan after another in this process if None.
    progress
        Receives the number of scans done.
    **options
        `provider`, `batch`, `weighting`, `placement`, `synchronise`, `refine`, `iterations`, `canvas_memory` and
        `skip_invalid` of `reconstruct`; and `strict`, which refuses scans that the network does not know and objects
        that do not explain the patterns.

    Returns
    -------
    list of ScanRecord
        One for each scan, in their order: `misfit` and `verdict`, or the `error`.

    Raises
    ------
    InputError
        If the model cannot be used, two scans have the same name, or an argument is of another kind.

    Examples
    --------
    >>> import ptychonnx
    >>> for seed in (1, 2):
    ...     ptychonnx.write_scan(f"scan_{seed}.npz", ptychonnx.simulate_lines(grid=4, seed=seed))
    >>> records = ptychonnx.reconstruct_scans("zoo:pinn_fno", ["scan_1.npz", "scan_2.npz"], "objects")
    >>> [(record.result, record.verdict) for record in records]
    [('scan_1.h5', 'good'), ('scan_2.h5', 'good')]
    """
    with ExitStack() as stack:
        chosen = _run_options(**options)
        _check_start(model, chosen)
        engine: Engine | None = None
        paths = _paths(scans)
        if isinstance(executor, str):
            engine = stack.enter_context(open_engine(executor, chosen.inference.provider))
        elif executor is not None and not isinstance(executor, Executor):
            raise InputError(
                f"executor: got {type(executor).__name__}, expected an executor of concurrent.futures or a text"
            )
        elif executor is not None:
            engine = Engine(executor)
        network = Path(model) if isinstance(model, str | os.PathLike) else model
        networks = stack.enter_context(Networks(network, chosen.inference))
        outcomes = run_scans(networks, paths, Path(folder), chosen, progress, engine=engine)
    return [outcome.record for outcome in outcomes]


def _paths(scans: Iterable[StrPath] | StrPath) -> list[Path]:
    """Raises InputError for anything but paths; a text is a path, not many letters."""
    files = list(scans) if isinstance(scans, Iterable) and not isinstance(scans, str) else [scans]
    for scan in files:
        if not isinstance(scan, str | os.PathLike):
            raise InputError(f"scans: got {type(scan).__name__}, expected paths of files")
    return [Path(scan) for scan in files]


def _check_start(model: Predictor | StrPath | None, options: RunOptions) -> None:
    iterations = options.iterations
    if iterations.iterations and (model is not None or iterations.refine):
        raise InputError(
            "iterations: start from vacuum, expected no refine with them, and None for the model"
        )


def _run_options(
    *,
    provider: str = "auto",
    batch: int | Literal["auto"] = DEFAULT_BATCH,
    refine: int | Literal["auto"] | None = None,
    iterations: int | Literal["auto"] = 0,
    canvas_memory: int | None = None,
    **stitching: Any,
) -> RunOptions:
    """Options from arguments; `canvas_memory` is in bytes."""
    values = {
        "inference": {"provider": provider, "batch": batch},
        "stitching": {
            "canvas_memory": None if canvas_memory is None else canvas_memory / 1e9,
            **stitching,
        },
        "iterations": {"refine": refine, "iterations": iterations},
    }
    return checked(RunOptions, values)
