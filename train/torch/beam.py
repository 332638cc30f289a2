"""Everything that a network derives from its beam in Torch, as defined in `ptychonnx.train.initial_retrieval`.

A network of one beam holds these values as constants. A general network takes the beam as an input: the probe
float32 [modes, N, N, 2] (real and imaginary part, in sqrt(photons)), the mask float32 [N, N] (1 at valid pixels, 0
elsewhere) and the scale [] (factor from measured to scaled amplitude). They may have a batch axis first, [B, modes, N,
N, 2], [B, N, N] and [B], so that training can mix scans; without it the beam is shared by all patterns, and everything
here is computed once a call.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ptychonnx.train.beam_values import BeamValues
from ptychonnx.train.initial_retrieval import (
    CAUTION,
    CHEBYSHEV_ITERATIONS,
    DAMPED,
    FAINT,
    FIRST_ITERATIONS,
    JOINT_STEP,
    NEGLIGIBLE,
    STEP,
    RetrievalConstants,
)

__all__ = ["Beam", "BeamPreparation"]


@dataclass(frozen=True)
class Beam(BeamValues[Tensor]):
    """The values as Torch tensors."""

    @staticmethod
    def _repeat(values: Tensor, times: int, axis: int) -> Tensor:
        return values.repeat_interleave(times, dim=axis)


class BeamPreparation(nn.Module):
    """Compute a `Beam` from probe, mask and scale.

    `constants`: of any beam: number of patterns of one object, and the expected covariance, which depends on N alone.
    """

    smoothing: Tensor

    def __init__(self, constants: RetrievalConstants) -> None:
        super().__init__()
        self.alone = constants.members == 1
        self.register_buffer("smoothing", torch.from_numpy(constants.smoothing), persistent=False)

    def forward(self, probe: Tensor, mask: Tensor, scale: Tensor) -> Beam:
        """The values for a probe [[B], modes, N, N, 2], a mask [[B], N, N] and a scale [[B]].

        The largest curvature is that of `initial_retrieval` to within 1e-3 for the probes of microscopes.
        """
        factor = scale[:, None, None, None, None] if scale.ndim else scale
        modes = _without_negligible(probe * factor)
        density = modes.square().sum(dim=(-4, -1))
        brightest = density.amax(dim=(-2, -1), keepdim=True)
        spread = torch.rsqrt(torch.sqrt(density / brightest + FAINT))
        step = STEP / self._curvature(torch.sqrt(density) * spread)
        real, imaginary = modes.unbind(dim=-1)
        # The two factors of the complex product, see `initial_retrieval`, [[B], modes, N, 2, N].
        same, exchanged = torch.stack([real, real], dim=-2), torch.stack([-imaginary, imaginary], dim=-2)
        forth = torch.stack([same, exchanged])
        # The conjugate exchanges the sign of the second factor.
        back = torch.stack([forth[0], -forth[1]])
        # Over rows, of all modes and both parts: [[B], 1, N, 1, N].
        everywhere = spread[..., None, :, None, :]
        lit = forth
        if self.alone:
            lit, back = forth * everywhere, back * (everywhere * step[..., None, None, None, None])
        return Beam(
            scale=scale[:, None, None, None] if scale.ndim else scale,
            probe=forth,
            lit=lit,
            back=back,
            spread=spread,
            valid=mask,
            light=torch.sqrt(density / brightest),
            step=step * (JOINT_STEP / STEP),
        )

    def _curvature(self, amplitude: Tensor) -> Tensor:
        """Largest eigenvalue of ``a (smoothing @ (a x) @ smoothing)`` for ``a`` [[B], N, N]: [] or [B].

        A power iteration gives a first estimate; Chebyshev polynomials of the operator, which stay below one on the
        damped eigenvalues and grow fastest beyond them, then converge as the square root of the gap, not as the gap
        (Saad, Numerical Methods for Large Eigenvalue Problems, 2nd ed., section 4.4).
        """

        def apply(image: Tensor, weight: Tensor) -> Tensor:
            return weight * (self.smoothing @ (amplitude * image) @ self.smoothing)

        image = amplitude
        for _ in range(FIRST_ITERATIONS):
            image = apply(image, amplitude)
            image = image / image.amax(dim=(-2, -1), keepdim=True)
        applied = apply(image, amplitude)
        damped = DAMPED * _sum(image * applied) / _sum(image * image)
        weight = amplitude * (4 / damped)
        before, image = image, applied * (2 / damped) - image
        for _ in range(CHEBYSHEV_ITERATIONS - 1):
            before, image = image, apply(image, weight) - (2 * image + before)
        largest = _sum(image * apply(image, amplitude)) / _sum(image * image)
        return (1 + CAUTION) * largest[..., 0, 0]


def _without_negligible(values: Tensor) -> Tensor:
    """Zero where negligible, see `initial_retrieval.NEGLIGIBLE`."""
    magnitude = values.abs()
    limit = NEGLIGIBLE * magnitude.amax(dim=(-4, -3, -2, -1), keepdim=True)
    return torch.where(magnitude < limit, 0.0, values)


def _sum(image: Tensor) -> Tensor:
    return image.sum(dim=(-2, -1), keepdim=True)
