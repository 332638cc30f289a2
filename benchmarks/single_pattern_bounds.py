"""Bounds on reconstructions from single patterns, without a trained network, on the lines dataset.

`python -m benchmarks.single_pattern_bounds` measures them and writes its part of `docs/results/quality.json`. A few
minutes on one core.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ptychonnx.harness.metrics.comparison import compare
from ptychonnx.harness.metrics.reference_placement import reference_on_canvas
from ptychonnx.harness.metrics.region import declare_region, largest_rectangle
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.reconstruction.stitching import Stitcher, patch_weight
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, window_corners
from ptychonnx.train.initial_retrieval import retrieval_constants
from ptychonnx.train.torch.retrieval import Retrieval

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS / "results" / "quality.json"
TABLES = DOCS / "results" / "tables.json"
FIGURES = {
    "amplitude_ssim": "amplitude SSIM",
    "amplitude_pearson": "amplitude Pearson",
    "phase_ssim": "phase SSIM",
    "phase_pearson": "phase Pearson",
}
CHUNK = 50


def figures(
    scan: Scan, patches: NDArray[np.complexfloating], *, synchronise: bool = False
) -> dict[str, float | None]:
    """SSIM and Pearson correlation of the stitched patches [n, N, N], as in `ptychonnx evaluate`."""
    image, reference, region, _ = _stitched(scan, patches, synchronise)
    found = compare(image, reference, region)
    return {
        f"{quantity}_{metric}": getattr(getattr(found, quantity), metric)
        for quantity in ("amplitude", "phase")
        for metric in ("ssim", "pearson")
    }


def stitched_rectangles(
    scan: Scan, patches: NDArray[np.complexfloating], *, synchronise: bool = False
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """The stitched object and the true one in the largest rectangle of their region."""
    image, reference, _, rectangle = _stitched(scan, patches, synchronise)
    return image[rectangle], reference[rectangle]


def _stitched(
    scan: Scan, patches: NDArray[np.complexfloating], synchronise: bool
) -> tuple[NDArray[np.complex64], NDArray[np.complex64], NDArray[np.bool_], tuple[slice, slice]]:
    """The stitched object, the true one, and the region to compare with its largest rectangle."""
    weight = patch_weight("probe", scan.size, scan.probe)
    stitcher = Stitcher(scan.positions, weight, synchronise=synchronise)
    for index in range(len(scan)):
        stitcher.add(patches[index : index + 1], scan.positions[index : index + 1])
    stitched = stitcher.result()
    reference, known, _ = reference_on_canvas(scan.reference, stitched.object.shape, stitched.origin)
    region, _ = declare_region(scan, stitched.covered & known, stitched.origin)
    return stitched.object, reference, region, largest_rectangle(region).slices


def test_scan(config: LinesConfig) -> Scan:
    """The test scan of a simulated dataset."""
    return simulate_scan(config, config.test_grid, np.random.SeedSequence([config.seed, 1]), "test")


def record(part: str, rows: Sequence[Mapping[str, Any]], table: str | None = None) -> None:
    """Write a part of `quality.json`, and the table of it that the documentation shows."""
    _update(RESULTS, part, rows)
    if table is not None:
        record_table(part, table)


def record_table(part: str, table: str) -> None:
    """Write a table in Markdown, which a page of results includes by its name."""
    _update(TABLES, part, table.splitlines())


def _update(path: Path, part: str, value: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_text(path, json.dumps(content | {part: value}, indent=1, ensure_ascii=path == RESULTS) + "\n")


def retrieved(scan: Scan, steps: int) -> NDArray[np.complex64]:
    """Initial phase retrieval of every pattern on its own."""
    scale = scan.size / np.sqrt(scan.flux)
    retrieval = Retrieval(retrieval_constants(scan.probe, scale, scan.mask, steps=steps, final_steps=0))
    found = []
    with torch.inference_mode():
        for start in range(0, len(scan), CHUNK):
            amplitude = torch.from_numpy(scan.diffraction[start : start + CHUNK, None]) * float(scale)
            real, imaginary = retrieval(amplitude, steps)[:, 0].unbind(dim=2)
            found.append(torch.complex(real, imaginary).numpy())
    return np.concatenate(found)


def explained(scan: Scan, sweeps: int, *, joint: bool) -> NDArray[np.complex128]:
    """rPIE (Maiden, Johnson and Li, Optica 4, 736 (2017), alpha = 0.1) on one object, or on every window on its own."""
    probe = scan.probe[0].astype(np.complex128)
    density = np.abs(probe) ** 2
    update = probe.conj() / (0.9 * density + 0.1 * density.max())
    amplitude = np.fft.ifftshift(scan.diffraction, axes=(-2, -1))
    canvas = np.ones(scan.reference.object.shape, dtype=np.complex128)
    corners = window_corners(scan.positions, scan.size).astype(int)
    windows = [canvas[r : r + scan.size, c : c + scan.size] for r, c in corners]
    if not joint:
        windows = [window.copy() for window in windows]
    rng = np.random.default_rng(0)
    for _ in range(sweeps):
        for index in rng.permutation(len(scan)):
            wave = np.fft.fft2(probe * windows[index], norm="ortho")
            change = wave * (amplitude[index] / np.maximum(np.abs(wave), 1e-9) - 1)
            windows[index] += update * np.fft.ifft2(change, norm="ortho")
    return np.stack(windows)


def bounds() -> Iterator[tuple[str, dict[str, float | None]]]:
    """Each setting and its metrics."""
    for kind, config in (("complex", LinesConfig()), ("amplitude only", LinesConfig(phase_shift=0))):
        scan = test_scan(config)
        known = scan.reference.object
        for blur in (0.5, 0.7, 1.0):
            blurred = gaussian_filter(known.real, blur) + 1j * gaussian_filter(known.imag, blur)
            windows = cut_windows(blurred, scan.positions, scan.size)
            yield f"{kind}: true object blurred by {blur:g} pixels", figures(scan, windows)
        yield (
            f"{kind}: all patterns together, rPIE, 10 sweeps",
            figures(scan, explained(scan, 10, joint=True)),
        )
        yield f"{kind}: each pattern alone, rPIE, 40 sweeps", figures(scan, explained(scan, 40, joint=False))
        for steps in (1, 4, 12, 24, 48, 96):
            patches = retrieved(scan, steps)
            number = "1 step" if steps == 1 else f"{steps} steps"
            yield f"{kind}: each pattern alone, first guess, {number}", figures(scan, patches)
        yield (
            f"{kind}: each pattern alone, first guess, {steps} steps, global phases synchronised",
            figures(scan, patches, synchronise=True),
        )


def main() -> None:
    rows = []
    for setting, found in bounds():
        print(setting, found, flush=True)
        rows.append({"setting": setting, **found})
    record("bounds", rows)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
