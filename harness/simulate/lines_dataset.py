"""Lines dataset: a training and a test scan of different random-lines objects, cached on disk."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from ptychonnx.harness.simulate.manifest import write_simulated
from ptychonnx.harness.simulate.measurement import simulate_raster
from ptychonnx.harness.simulate.objects import make_object
from ptychonnx.harness.simulate.probes import ProbeKind, make_probe
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import MOST_PHOTONS

__all__ = ["LinesConfig", "LinesDataset", "build_lines", "simulate_scan"]

# Part of the cache key: increase it when the same parameters produce other data.
_GENERATOR_VERSION = 1


@dataclass(frozen=True, config=ConfigDict(extra="forbid", title="Simulation"))
class LinesConfig:
    """Parameters of the lines dataset; equal configurations produce equal bytes."""

    n: int = Field(default=64, ge=16, le=1024, description="Side of a diffraction pattern, in pixels")
    probe: ProbeKind = Field(
        default="zone-plate", description="Probe: a focused X-ray beam, or an idealised disk"
    )
    photons: float = Field(
        default=1e9, gt=0, le=MOST_PHOTONS, description="Mean number of photons per pattern"
    )
    step: int = Field(
        default=6, ge=1, le=1024, description="Raster step, in pixels; smaller steps give more overlap"
    )
    jitter: int = Field(default=1, ge=0, le=1024, description="Largest random shift of a position, in pixels")
    train_grid: int = Field(default=40, ge=2, description="Side of the training scan, in positions")
    test_grid: int = Field(default=20, ge=2, description="Side of the test scan, in positions")
    absorption: float = Field(default=0.5, ge=0, le=1, description="Amplitude contrast, 0 to 1")
    phase_shift: float = Field(default=1.2, ge=0, le=3.1, description="Phase contrast, in radians")
    seed: int = Field(default=0, ge=0, description="Seed of the objects, the positions and the noise")


@dataclass(frozen=True)
class LinesDataset:
    """Files of the dataset, and whether they were built by this call."""

    train: Path
    test: Path
    manifest: Path
    rebuilt: bool


def build_lines(config: LinesConfig, folder: Path) -> LinesDataset:
    """Write `train.npz`, `test.npz` and `manifest.json` into a folder, unless they are up to date.

    The files are rebuilt if a parameter, the generator, or the hash of a file differs from the manifest.

    Raises InputError if the folder cannot be written, or holds a `train.npz` or `test.npz` that is not simulated.
    """
    train, test, manifest = (folder / name for name in ("train.npz", "test.npz", "manifest.json"))
    content = {"generator": "lines", "version": _GENERATOR_VERSION, "parameters": asdict(config)}
    scans = {
        path: partial(simulate_scan, config, grid, np.random.SeedSequence([config.seed, number]), path.stem)
        for number, (path, grid) in enumerate([(train, config.train_grid), (test, config.test_grid)])
    }
    return LinesDataset(train, test, manifest, write_simulated(manifest, content, scans))


def simulate_scan(config: LinesConfig, grid: int, seed: np.random.SeedSequence, name: str) -> Scan:
    """Simulate a raster scan of grid x grid positions over an object of random lines, with Poisson noise."""
    object_rng, position_rng, noise_rng = map(np.random.default_rng, seed.spawn(3))
    return simulate_raster(
        partial(
            make_object,
            "lines",
            rng=object_rng,
            absorption=config.absorption,
            phase_shift=config.phase_shift,
        ),
        make_probe(config.probe, config.n) * np.float32(np.sqrt(config.photons)),
        grid=grid,
        step=config.step,
        jitter=config.jitter,
        position_rng=position_rng,
        noise_rng=noise_rng,
        name=name,
    )
