"""A family of scans: beams, objects, brightness and overlap drawn at random, to train networks that fit any beam."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pydantic
from pydantic import ConfigDict, Field, model_validator

from ptychonnx.harness.simulate.beams import BeamFamily, beam_diameter, draw_beam
from ptychonnx.harness.simulate.manifest import write_simulated
from ptychonnx.harness.simulate.measurement import simulate_raster
from ptychonnx.harness.simulate.objects import ObjectKind, make_object
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import MOST_PHOTONS

__all__ = [
    "FamilyConfig",
    "FamilyDataset",
    "MemberScan",
    "build_family",
    "draw_parameters",
    "simulate_member",
]

# Part of the cache key: increase it when the same parameters produce other data.
_GENERATOR_VERSION = 1
# Share of scans with one mode, and with each further number of modes in equal parts.
_COHERENT = 0.6
_ABSORPTION = (0.02, 0.7)


@pydantic.dataclasses.dataclass(frozen=True, config=ConfigDict(extra="forbid", title="Family"))
class FamilyConfig:
    """Ranges that the scans of a family are drawn from; equal configurations produce equal bytes.

    The first scans of a larger family are those of a smaller one. Beams and objects are equally frequent; six scans of
    ten have one mode. Photons and contrasts are drawn uniformly in their logarithm. Overlap is one minus the step over
    the diameter of the beam, which encircles 90 % of its power.
    """

    n: int = Field(default=64, ge=16, le=1024, description="Side of a diffraction pattern, in pixels")
    scans: int = Field(default=40, ge=1, le=10_000, description="Number of scans")
    grid: int = Field(default=16, ge=3, le=256, description="Side of each raster scan, in positions")
    beam: tuple[BeamFamily, ...] = Field(
        default=("zone-plate", "zone-plate-open", "kb", "pinhole", "defocused", "aberrated", "structured"),
        min_length=1,
        description="Family of beams; repeat for several",
    )
    object: tuple[ObjectKind, ...] = Field(
        default=("lines", "cells", "grains", "circuits", "spokes", "smooth", "natural"),
        min_length=1,
        description="Kind of object; repeat for several",
    )
    max_modes: int = Field(default=4, ge=1, le=8, description="Largest number of incoherent probe modes")
    min_photons: float = Field(default=1e5, gt=0, le=MOST_PHOTONS, description="Fewest photons per pattern")
    max_photons: float = Field(default=1e10, gt=0, le=MOST_PHOTONS, description="Most photons per pattern")
    min_overlap: float = Field(default=0.4, ge=0, lt=1, description="Least overlap, 0 to 1")
    max_overlap: float = Field(default=0.8, ge=0, lt=1, description="Largest overlap, 0 to 1")
    max_phase: float = Field(default=5.0, gt=0, le=6.3, description="Largest phase contrast, in radians")
    seed: int = Field(default=0, ge=0, description="Seed that all random numbers are derived from")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for name in ("photons", "overlap"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low > high:
                raise ValueError(f"min_{name} {low:g} is above max_{name} {high:g}")
        return self


@dataclass(frozen=True)
class MemberScan:
    """Parameters of one scan of a family.

    * `number`: place in the family; the random numbers of the scan depend on it and on the seed.
    * `step`: raster step, pixels; `jitter` is the largest displacement of a position.
    * `diameter`: of the beam, pixels, see `beams.beam_diameter`.
    """

    number: int
    beam: str
    modes: int
    object: str
    photons: float
    absorption: float
    phase_shift: float
    overlap: float
    step: int
    jitter: int
    diameter: float


@dataclass(frozen=True)
class FamilyDataset:
    """Files of a family, and whether they were built by this call."""

    scans: tuple[Path, ...]
    manifest: Path
    rebuilt: bool


def build_family(config: FamilyConfig, folder: Path, progress: Progress = SILENT) -> FamilyDataset:
    """Write `scan_0000.npz` and so on, and `manifest.json`, into a folder, unless they are up to date.

    Raises InputError if the folder cannot be written, or holds a scan of one of these names that is not simulated.
    """
    files = tuple(folder / f"scan_{number:04d}.npz" for number in range(config.scans))
    manifest = folder / "manifest.json"
    members = [draw_parameters(config, number) for number in range(config.scans)]
    content: dict[str, Any] = {
        "generator": "family",
        "version": _GENERATOR_VERSION,
        "parameters": asdict(config),
        "scans": {path.name: asdict(member) for path, member in zip(files, members, strict=True)},
    }
    scans = {path: partial(simulate_member, config, number) for number, path in enumerate(files)}
    rebuilt = write_simulated(manifest, content, scans, progress, "Simulating a family")
    return FamilyDataset(files, manifest, rebuilt)


def draw_parameters(config: FamilyConfig, number: int) -> MemberScan:
    return _draw(config, number)[0]


def simulate_member(config: FamilyConfig, number: int) -> Scan:
    """Simulate one scan of a family: a jittered raster over an object of its own, with Poisson noise."""
    member, beam = _draw(config, number)
    return simulate_raster(
        partial(
            make_object,
            member.object,
            rng=_generator(config, number, 2),
            absorption=member.absorption,
            phase_shift=member.phase_shift,
        ),
        (beam * np.sqrt(member.photons)).astype(np.complex64),
        grid=config.grid,
        step=member.step,
        jitter=member.jitter,
        position_rng=_generator(config, number, 3),
        noise_rng=_generator(config, number, 4),
        name=f"scan_{number:04d}",
    )


def _draw(config: FamilyConfig, number: int) -> tuple[MemberScan, np.ndarray[Any, np.dtype[np.complex64]]]:
    rng = _generator(config, number, 0)
    family, kind = (
        _in_rounds(config.beam, config.seed, number, 5),
        _in_rounds(config.object, config.seed, number, 6),
    )
    several = config.max_modes > 1 and rng.uniform() > _COHERENT
    modes = int(rng.integers(2, config.max_modes + 1)) if several else 1
    beam = draw_beam(family, config.n, modes, _generator(config, number, 1))
    diameter = beam_diameter(beam)
    overlap = float(rng.uniform(config.min_overlap, config.max_overlap))
    step = max(1, round((1 - overlap) * diameter))
    member = MemberScan(
        number=number,
        beam=family,
        modes=modes,
        object=kind,
        photons=_log_uniform(rng, config.min_photons, config.max_photons),
        absorption=float(rng.uniform(*_ABSORPTION)),
        phase_shift=_log_uniform(rng, config.max_phase / 30, config.max_phase),
        overlap=overlap,
        step=step,
        jitter=round(0.15 * step),
        diameter=diameter,
    )
    return member, beam


def _in_rounds(choices: tuple[str, ...], seed: int, number: int, part: int) -> str:
    """The choice of one scan, where every round of scans takes each choice once, in an order of its own."""
    turn, place = divmod(number, len(choices))
    return choices[int(np.random.default_rng([seed, turn, part]).permutation(len(choices))[place])]


def _generator(config: FamilyConfig, number: int, part: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, number, part])


def _log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))
