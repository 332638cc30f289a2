"""A beam as an input: the same values, features and objects as from constants, for one beam or one for each pattern."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from ptychonnx.harness.simulate.objects import make_object
from ptychonnx.harness.simulate.probes import disk_probe, zone_plate_probe
from ptychonnx.runtime.scan.forward_model import cut_windows, forward, illumination
from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.initial_retrieval import (
    MOMENTUM,
    STEP,
    RetrievalConstants,
    preconditioner,
    retrieval_constants,
)
from ptychonnx.train.registry import architectures, get_architecture

torch = pytest.importorskip("torch")

from ptychonnx.train.torch.beam import BeamPreparation  # noqa: E402
from ptychonnx.train.torch.network import build_network  # noqa: E402

N = 32
_IMAGES = ("probe", "lit", "back", "spread", "valid", "light")


def speckles(size: int, seed: int, width: float) -> NDArray[np.complex128]:
    """A structured probe: filtered noise inside a disk."""
    noise = np.random.default_rng(seed).normal(size=(2, size, size))
    axis = np.fft.fftfreq(size)
    band = np.exp(-0.5 * (axis[:, None] ** 2 + axis**2) / width**2)
    return np.fft.ifft2(np.fft.fft2(noise[0] + 1j * noise[1]) * band) * disk_probe(size, radius=size / 3)


def probes(size: int) -> dict[str, NDArray[np.complexfloating]]:
    plate = zone_plate_probe(size)
    return {
        "zone plate": plate,
        "no central stop": zone_plate_probe(size, central_stop=0),
        "focus": zone_plate_probe(size, defocus=5e-6),
        "defocused": zone_plate_probe(size, defocus=150e-6),
        "pinhole": disk_probe(size, radius=3),
        "disk": disk_probe(size),
        "wide disk": disk_probe(size, radius=size / 2.2),
        "modes": np.concatenate([plate, 0.5 * np.roll(plate, 4, axis=1), 0.3 * np.roll(plate, -6, axis=2)]),
    }


def with_photons(probe: NDArray, photons: float) -> NDArray[np.complex64]:
    return (probe * np.sqrt(photons / illumination(probe).sum())).astype(np.complex64)


def pairs(probe: NDArray[np.complexfloating]) -> torch.Tensor:
    return torch.from_numpy(np.stack([probe.real, probe.imag], axis=-1).astype(np.float32))


def beam_of(probe: NDArray, mask: NDArray, scale: float) -> tuple[torch.Tensor, ...]:
    return pairs(probe), torch.from_numpy(mask.astype(np.float32)), torch.tensor(scale, dtype=torch.float32)


def constants(probe: NDArray, scale: float = 1.0, mask: NDArray | None = None, members: int = 1):
    return retrieval_constants(probe, scale, mask, steps=3, final_steps=2, members=members)


@pytest.mark.parametrize("name", probes(N))
@pytest.mark.parametrize("size", [N, 64])
def test_the_values_are_those_of_the_definition(name, size):
    probe, scale = with_photons(probes(size)[name], 1e6), size / 1e3
    mask = np.random.default_rng(1).random((size, size)) > 0.1
    expected = constants(probe, scale, mask)
    other = constants(with_photons(disk_probe(size, radius=5), 100), 0.3)
    beam = BeamPreparation(other)(*beam_of(probe, mask, scale))
    for value in _IMAGES:
        wanted = getattr(expected, value)
        difference = np.abs(getattr(beam, value).numpy() - wanted).max()
        # `back` holds the length of a step, which is shorter by up to 1e-3.
        assert difference <= (1.1e-3 if value == "back" else 1e-5) * np.abs(wanted).max(), value
    assert expected.step * (1 - 1.1e-3) <= beam.step.item() <= expected.step


@pytest.mark.parametrize("seed", range(6))
def test_steps_are_stable_for_speckles_whose_spots_are_equally_bright(seed):
    probe = with_photons(speckles(64, seed, 0.03 + 0.03 * seed), 64**2)
    density = illumination(probe)
    largest = STEP / preconditioner(density).step.item()  # 100 power iterations may fall 0.3 % short
    prepared = BeamPreparation(constants(probe))(*beam_of(probe, np.ones((64, 64)), 1.0))
    curvature = 1.3 / prepared.step.item()
    assert 0.99 * STEP < STEP * largest / curvature < 0.997 * STEP * (2 + 2 * MOMENTUM) / (1 + 2 * MOMENTUM)


def test_negligible_values_are_zero():
    probe = zone_plate_probe(N).copy()
    probe[0, 0, 0] = 1e-20
    beam = BeamPreparation(constants(probe))(*beam_of(probe, np.ones((N, N)), 1.0))
    assert beam.probe[0, 0, 0, 0, 0] == 0
    assert beam.probe.count_nonzero() > 0.9 * beam.probe.numel()


def amplitudes(probe: NDArray, patterns: int, members: int = 1) -> NDArray[np.float32]:
    rng = np.random.default_rng(5)
    image = make_object("lines", (64, 64), rng)
    centres = rng.integers(N // 2, 64 - N // 2, size=(patterns * members, 2)).astype(float)
    return forward(cut_windows(image, centres, N), probe).astype(np.float32).reshape(patterns, members, N, N)


def network(name: str, beam: RetrievalConstants, gridsize: int = 1):
    """With weights that make every layer matter; the same for any beam."""
    config = NetworkConfig(n=N, width=8, blocks=2, modes=8, first_steps=3, final_steps=2, gridsize=gridsize)
    module = build_network(get_architecture(name), config, beam, seed=1).module
    torch.nn.init.normal_(module.network.head.project.weight, std=0.1, generator=torch.manual_seed(2))
    return module


_TORCH = [name for name, kind in architectures().items() if kind.framework == "torch"]


@pytest.mark.parametrize(("name", "gridsize"), [*((name, 1) for name in _TORCH), ("hybrid", 2)])
@torch.no_grad()
def test_one_network_serves_two_beams_at_once(name, gridsize):
    """What a network built for a beam returns, returns the network of another beam that takes this one as an input."""
    members = gridsize**2
    mask = np.ones((N, N), dtype=bool)
    mask[3:5] = False
    beams = [(with_photons(zone_plate_probe(N), 1e5), mask, N / 1e5**0.5)]
    beams.append((with_photons(disk_probe(N), 1e7), ~mask | mask, N / 1e7**0.5))
    built = network(
        name, constants(with_photons(disk_probe(N, radius=4), 1e3), 0.1, members=members), gridsize
    )
    offsets = torch.tensor([[[0.0, 0.0], [0.0, 6.0], [5.5, 0.0], [6.0, 7.0]]] * 2)
    others = () if members == 1 else (offsets,)
    patterns, expected, shared = [], [], []
    for probe, valid, scale in beams:
        own = network(name, constants(probe, scale, valid, members), gridsize)
        patterns.append(torch.from_numpy(amplitudes(probe, 2, members)))
        expected.append(own(patterns[-1], *others))
        values = dict(zip(("probe", "mask", "scale"), beam_of(probe, valid, scale), strict=True))
        shared.append(built(patterns[-1], *others, **values))
        # The shorter step changes the object by less than it changes the values.
        assert (shared[-1] - expected[-1]).abs().max() < 1e-3
    mixed = {
        key: torch.stack(values).repeat_interleave(2, dim=0)
        for key, values in zip(
            ("probe", "mask", "scale"), zip(*(beam_of(*beam) for beam in beams), strict=True), strict=True
        )
    }
    twice = () if members == 1 else (torch.cat([offsets, offsets]),)
    together = built(torch.cat(patterns), *twice, **mixed)
    assert (together - torch.cat(shared)).abs().max() < 1e-5
    assert (expected[0] - built(patterns[0], *others)).abs().max() > 0.05
