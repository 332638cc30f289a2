"""Every artifact on every scan: one runtime, one stitcher, one region, one set of metrics."""

from __future__ import annotations

import contextlib
import platform
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.harness.evaluation.methods import Method, methods_of, row_of
from ptychonnx.harness.evaluation.results import Evaluation, Row, ScanResult, ScanSummary
from ptychonnx.harness.iterative.refinement import refine as refine_object
from ptychonnx.harness.iterative.rpie import ALPHA, check_iterative
from ptychonnx.harness.metrics.alignment import apply_alignment
from ptychonnx.harness.metrics.bootstrap import Confidence, confidence
from ptychonnx.harness.metrics.comparison import compare, sample
from ptychonnx.harness.metrics.ptychopinn_profile import compare_as_ptychopinn
from ptychonnx.harness.metrics.reference_placement import reference_on_canvas
from ptychonnx.harness.metrics.region import Rectangle, RegionRule, declare_region
from ptychonnx.harness.report.frequency_curves import frc_figure, psd_figure
from ptychonnx.harness.report.html_page import render_page
from ptychonnx.harness.report.object_figures import (
    comparison_figure,
    error_figure,
    panels_of,
    reconstruction_figure,
)
from ptychonnx.harness.report.terminal_table import comparison_table
from ptychonnx.runtime.atomic import atomic_path, write_text
from ptychonnx.runtime.contract import Placement
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.inference.model import DEFAULT_BATCH, Network
from ptychonnx.runtime.inference.session import Session
from ptychonnx.runtime.inference.tuning import tuned
from ptychonnx.runtime.reconstruction.reconstruct import Reconstruction, reconstruct
from ptychonnx.runtime.reconstruction.stitching import check_whole, patch_weight
from ptychonnx.runtime.scan import Scan

__all__ = ["comparison_table", "evaluate", "summarise", "write_evaluation"]

# Their SSIM has a window of 7 x 7 pixels.
_SMALLEST_FOR_PTYCHOPINN = 7


def evaluate(
    artifacts: Sequence[Path | Network],
    scans: Sequence[Path | Scan],
    out: Path | None,
    *,
    provider: str = "auto",
    weighting: str | None = None,
    placement: Placement | None = None,
    synchronise: bool | None = None,
    batch: int | None = DEFAULT_BATCH,
    iterations: int = 0,
    refine: int = 0,
    alpha: float = ALPHA,
    references: Sequence[Path | None] | None = None,
    region: RegionRule | None = None,
    plane: bool = False,
    register: bool = False,
    ptychopinn: bool = False,
    commands: Sequence[str] = (),
    progress: Callable[[str, int, int], None] = lambda label, done, total: None,
    log: Callable[[str], None] = lambda line: None,
) -> Evaluation:
    """Reconstruct, compare, and write `metrics.json`, figures and `report.html` into a folder.

    Everything is checked before the first pattern is run, and nothing is written before the last one is.

    Parameters
    ----------
    artifacts
        ONNX files with a contract, or networks that run already, here or on a server.
    scans
        Files for `ptychonnx.runtime.formats.read_scan`, or scans.
    out
        Folder to write to; made if it is missing. None: nothing is written, and no figure is drawn.
    provider, weighting, placement, synchronise, batch
        See `session.Session` (for files) and `reconstruct.reconstruct`; without a batch, each
        artifact gets its own from `ptychonnx.runtime.inference.tuning.tuned`, on the first scan.
    iterations
        Epochs of an iterative reconstruction that starts from vacuum, in a row of its own; 0 for none.
    refine
        Epochs of one that starts from the object of each network, in a row beside it; 0 for none.
    alpha
        Of these iterations, see `ptychonnx.harness.iterative.rpie.iterate`.
    references
        For each scan a file with the object to compare with, or None for the one that the scan brings along.
    region
        Which pixels count.
    plane, register
        Also remove a phase ramp, or a sub-pixel shift, from each reconstruction.
    ptychopinn
        Also compare by PtychoPINN's definitions, on the rectangle of the region.
    commands
        How to reproduce the evaluation, for the page.
    progress
        Called after each batch with the label of the artifact, the patterns done and those in all.
    log
        Told which batch was chosen for which artifact.

    Raises
    ------
    InputError
        If an artifact or a scan cannot be used, does not fit the other, or two of a kind cannot be told
        apart.
    """
    if not (artifacts or iterations) or not scans:
        raise InputError(
            f"evaluate: got {len(artifacts)} artifacts and {len(scans)} scans, expected one at least"
        )
    if out is not None and Path(out).exists() and not Path(out).is_dir():
        raise InputError(f"{out}: is a file, expected a folder to write to")
    sessions: list[Network] = [
        Session(Path(each), provider) if isinstance(each, str | Path) else each for each in artifacts
    ]
    labels = _distinct_labels(sessions)
    loaded = _load(scans, references)
    for scan in loaded:
        check_whole(scan.positions, scan.size, None, f"{scan.name}: evaluate takes the whole object")
        if iterations or refine:
            check_iterative(scan, alpha)
        for network in sessions:
            network.check_scan(scan)
            patch_weight(weighting or network.contract.stitching.weighting, scan.size, scan.probe)
    batches = [DEFAULT_BATCH if batch is None else batch] * len(sessions)
    if batch is None:
        for number, network in enumerate(sessions):
            if not isinstance(network, Session):
                raise InputError(
                    f"{network.name}: --batch auto is for artifacts, expected a number with servers"
                )
            sessions[number], batches[number] = tuned(network, loaded[0], log=log)
    networks = [
        Method(label, network, batch=size, is_tuned=batch is None)
        for label, network, size in zip(labels, sessions, batches, strict=True)
    ]
    methods = methods_of(networks, refine, iterations)
    total = (len(sessions) * (1 + refine) + iterations) * sum(len(scan) for scan in loaded)
    done = 0

    summaries = []
    results: list[dict[str, ScanResult]] = [{} for _ in methods]
    for scan in loaded:
        made: list[Reconstruction] = []
        for method in methods:

            def report(patterns: int, label: str = method.label) -> None:
                nonlocal done
                done += patterns
                progress(label, done, total)

            session = method.session
            if session is None or method.epochs:
                # The row of the network is the one before.
                start = None if session is None else made[-1]
                made.append(
                    refine_object(
                        scan,
                        start,
                        method.epochs,
                        lambda _: report(len(scan)),  # noqa: B023
                        alpha=alpha,
                    )
                )
                continue
            _warm_up(session, scan, method.batch)
            made.append(
                reconstruct(
                    session,
                    scan,
                    weighting,
                    method.batch,
                    report,
                    placement=placement,
                    synchronise=synchronise,
                )
            )
        summary = summarise(scan, made, region)
        summaries.append(summary)
        for found, method, reconstruction in zip(results, methods, made, strict=True):
            found[scan.name] = _judge(
                method.session, scan, reconstruction, summary, plane, register, ptychopinn
            )

    rows = tuple(row_of(method, found) for method, found in zip(methods, results, strict=True))
    evaluation = Evaluation(
        tuple(summaries),
        rows,
        batch,
        {} if out is None else _figures(summaries, rows),
        tuple(commands),
        {scan.name: _confidence(scan, rows) for scan in summaries},
        _software(),
    )
    if out is not None:
        write_evaluation(evaluation, Path(out))
    return evaluation


def _software() -> dict[str, str]:
    """Versions of what the figures depend on."""
    names = ("ptychonnx", "onnxruntime-gpu", "onnxruntime", "numpy", "scikit-image", "scipy", "cdtools-py")
    found = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def write_evaluation(evaluation: Evaluation, out: Path) -> None:
    """Write the figures, `report.html` and, last, `metrics.json`; each file appears whole or not at all."""
    content, page = evaluation.to_json(), render_page(evaluation)
    for name, image in evaluation.figures.items():
        with atomic_path(out / f"{name}.png") as partial:
            partial.write_bytes(image)
    write_text(out / "report.html", page)
    write_text(out / "metrics.json", content)


def _distinct_labels(sessions: Sequence[Network]) -> list[str]:
    """One label a session; those that clash get the stem of their file, or their URL, as a suffix."""
    counts = Counter(session.contract.label for session in sessions)
    labels: dict[str, Network] = {}
    for session in sessions:
        label = session.contract.label
        if counts[label] > 1:
            label = f"{label} ({session.name.removesuffix('.onnx')})"
        if label in labels:
            raise InputError(
                f"{labels[label].source} and {session.source}: both are labelled {session.contract.label!r} and "
                f"named {session.name!r}, expected labels or file names that differ"
            )
        labels[label] = session
    return list(labels)


def _load(scans: Sequence[Path | Scan], references: Sequence[Path | None] | None) -> list[Scan]:
    """The scans, with distinct names."""
    if references is None:
        references = [None] * len(scans)
    if len(references) != len(scans):
        raise InputError(
            f"evaluate: got {len(references)} references for {len(scans)} scans, expected one for each"
        )
    loaded = []
    for source, reference in zip(scans, references, strict=True):
        if not isinstance(source, Scan):
            loaded.append(read_scan(Path(source), reference=reference))
        elif reference is not None:
            raise InputError(
                f"{source.name}: the scan is loaded already, expected its reference inside it and not in "
                f"{reference}"
            )
        else:
            loaded.append(source)
    counts = Counter(scan.name for scan in loaded)
    numbers: Counter[str] = Counter()
    for index, scan in enumerate(loaded):
        if counts[scan.name] > 1:
            numbers[scan.name] += 1
            loaded[index] = replace(scan, name=f"{scan.name} #{numbers[scan.name]}")
    return loaded


def _warm_up(session: Network, scan: Scan, batch: int) -> None:
    """Run one batch that is not counted: the first run of a session also allocates."""
    group = np.arange(session.contract.channels)
    count = min(batch, len(scan))
    for _ in session.batches(scan, np.tile(group, (count, 1)), count):
        pass


def summarise(scan: Scan, made: Sequence[Reconstruction], rule: RegionRule | None) -> ScanSummary:
    """Place the reference on the canvas and declare the region that all reconstructions share."""
    # The canvas follows from positions and N alone, so it is the same for every artifact.
    shape, origin = made[0].stitched.object.shape, made[0].stitched.origin
    covered: NDArray[np.bool_] = np.logical_and.reduce([each.stitched.covered for each in made])
    reference = placement = None
    if scan.reference is not None:
        reference, known, placement = reference_on_canvas(scan.reference, (shape[0], shape[1]), origin)
        covered &= known
    region, record = declare_region(scan, covered, origin, rule)
    return ScanSummary(
        name=scan.name,
        patterns=len(scan),
        size=scan.size,
        probe_known=scan.probe is not None,
        reference=reference,
        region=region,
        region_record=record,
        placement=placement,
        pixel_size=scan.pixel_size,
    )


def _judge(
    session: Network | None,
    scan: Scan,
    reconstruction: Reconstruction,
    summary: ScanSummary,
    plane: bool,
    register: bool,
    ptychopinn: bool,
) -> ScanResult:
    """Compare one reconstruction with the reference of its scan, if there is one."""
    stitched = reconstruction.stitched
    image = stitched.object
    comparison = profile = None
    notes = []
    trained_with = None if session is None else session.contract.probe.sha256
    if scan.probe is not None and trained_with is not None and trained_with != scan.probe_sha256():
        notes.append("the probe of the scan is not the one that the network was trained with")
    if reconstruction.requests is not None and len(reconstruction.requests.versions) > 1:
        versions = " and ".join(reconstruction.requests.versions)
        notes.append(f"the server changed the model during the scan: versions {versions} answered")
    if reconstruction.refinement:
        notes.append(reconstruction.refinement)
    if summary.reference is None:
        notes.append("no reference: reconstructed, not compared")
    else:
        comparison = compare(
            image,
            summary.reference,
            summary.region,
            plane=plane,
            register=register,
            pixel_size=summary.pixel_size,
        )
        if comparison.alignment is not None and ptychopinn:
            rectangle = Rectangle(*comparison.rectangle_px)
            if min(rectangle.shape) < _SMALLEST_FOR_PTYCHOPINN:
                notes.append("ptychopinn profile: the rectangle is too small")
            else:
                profile = compare_as_ptychopinn(image[rectangle.slices], summary.reference[rectangle.slices])
        if comparison.alignment is not None:
            image = apply_alignment(image, comparison.alignment).astype(np.complex64)
    return ScanResult(
        object=image,
        covered=stitched.covered,
        weighting=reconstruction.weighting,
        placement=reconstruction.placement,
        synchronised=reconstruction.synchronised,
        inference_seconds=reconstruction.inference_seconds,
        stitching_seconds=reconstruction.stitching_seconds,
        patterns=reconstruction.patterns,
        requests=reconstruction.requests,
        comparison=comparison,
        ptychopinn=profile,
        notes=tuple(notes),
    )


def _confidence(summary: ScanSummary, rows: Sequence[Row]) -> Confidence | None:
    """Intervals of all reconstructions of a scan that could be compared with its reference."""
    reference = summary.reference
    if reference is None:
        return None
    samples = {}
    for row in rows:
        result = row.results[summary.name]
        if result.comparison is not None and result.comparison.alignment is not None:
            samples[row.label] = sample(result.object, reference, summary.region, result.comparison)
    return confidence(samples)


def _figures(scans: Sequence[ScanSummary], rows: Sequence[Row]) -> dict[str, bytes]:
    """Figures by name (without ending): what they show, and the scan if there are several."""
    figures = {}
    for number, scan in enumerate(scans, start=1):
        suffix = "" if len(scans) == 1 else f"_{number}_{re.sub(r'[^A-Za-z0-9]+', '-', scan.name).strip('-')}"
        panels = panels_of(rows, scan)
        title = scan.name
        if scan.reference is None:
            figures[f"reconstruction{suffix}"] = reconstruction_figure(panels, scan.region, title)
            continue
        figures[f"comparison{suffix}"] = comparison_figure(scan.reference, scan.region, panels, title)
        figures[f"errors{suffix}"] = error_figure(scan.reference, scan.region, panels, title)
        figures[f"frc{suffix}"] = frc_figure(panels, title)
        figures[f"psd{suffix}"] = psd_figure(panels, title)
    return figures
