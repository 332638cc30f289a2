"""A small known experiment, and the place of the measured data."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

SIZE = 16


def asymmetric_object(rows: int = 40, columns: int = 52) -> np.ndarray:
    """An object that no flip and no transposition maps onto itself; complex64 [rows, columns]."""
    rng = np.random.default_rng(5)
    spectrum = np.fft.fft2(rng.normal(size=(rows, columns)) + 1j * rng.normal(size=(rows, columns)))
    low = (np.abs(np.fft.fftfreq(rows)) < 0.2)[:, None] & (np.abs(np.fft.fftfreq(columns)) < 0.2)
    noise = np.fft.ifft2(spectrum * low)
    amplitude = 1 - 0.4 * noise.real**2 / np.max(noise.real**2)
    return (amplitude * np.exp(0.8j * noise.imag / np.abs(noise.imag).max())).astype(np.complex64)


def gaussian_probe(size: int = SIZE, photons: float = 1e5) -> np.ndarray:
    """complex64 [1, size, size], off-centre and astigmatic, so that it has no symmetry either."""
    row, column = np.mgrid[:size, :size] - size // 2
    envelope = np.exp(-((row - 1) ** 2 + column**2 / 2) / (size / 4) ** 2)
    probe = envelope * np.exp(1j * (0.03 * row**2 - 0.02 * column**2 + 0.1 * row))
    return (probe * np.sqrt(photons / np.sum(np.abs(probe) ** 2))).astype(np.complex64)[None]


@pytest.fixture
def probe() -> np.ndarray:
    return gaussian_probe()


@pytest.fixture
def truth() -> np.ndarray:
    return asymmetric_object()


@pytest.fixture
def positions() -> np.ndarray:
    """Whole-pixel (row, column) centres [20, 2], no grid, more columns than rows."""
    rng = np.random.default_rng(3)
    rows, columns = np.meshgrid(np.arange(8, 33, 8), np.arange(8, 45, 9), indexing="ij")
    jitter = rng.integers(-1, 2, (20, 2))
    raw = np.stack([rows.ravel(), columns.ravel()], axis=1) + jitter
    return np.clip(raw, [8, 8], [32, 44]).astype(np.float64)


@pytest.fixture
def scan(truth, probe, positions) -> Scan:
    """Noise-free patterns of the known object, with everything that a scan may carry."""
    patches = cut_windows(truth, positions, SIZE)
    mask = np.ones((SIZE, SIZE), dtype=bool)
    mask[2, 3] = False
    return Scan(
        diffraction=forward(patches, probe).astype(np.float32),
        positions=positions,
        probe=probe,
        mask=mask,
        reference=Reference(truth, (0.0, 0.0)),
        pixel_size=2e-8,
        wavelength=1.5e-10,
        name="known",
        labels=patches,
    )


@pytest.fixture
def explains(scan: Scan, truth: np.ndarray, probe: np.ndarray) -> Callable[..., None]:
    """Asserts that patterns and positions of a scan agree with the known object, and with no mirror image of it."""

    def check(back: Scan, tolerance: float = 2e-3) -> None:
        if back.reference is None:
            known, light = truth, probe
            origin = tuple(np.median(back.positions - scan.positions[: len(back)], axis=0))
        else:
            known, light, origin = back.reference.object, back.probe, back.reference.origin
            np.testing.assert_allclose(known, truth, atol=1e-6)
        good = np.ones((back.size, back.size), dtype=bool) if back.mask is None else back.mask
        patches = cut_windows(known, back.positions, back.size, origin)
        measured = np.asarray(back.diffraction)
        scale = measured.max()
        error = np.abs(forward(patches, light) - measured)[:, good].max() / scale
        assert error < tolerance, f"patterns are {error:.2g} off"
        for mirror in (known[::-1], known[:, ::-1]):
            patches = cut_windows(mirror, back.positions, back.size, origin)
            assert np.abs(forward(patches, light) - measured)[:, good].max() / scale > 0.02

    return check


@pytest.fixture(scope="session")
def measured() -> Path:
    """Folder of the measured data."""
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("PTYCHONNX_DATA", default))
    if not (folder / "siemens-star-small.npz.bz2").is_file():
        pytest.skip(f"no measured data in {folder}, set PTYCHONNX_DATA")
    return folder
