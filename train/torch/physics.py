"""Forward model and physics-informed losses in Torch, as defined in `ptychonnx.runtime.scan.forward_model`."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "LOSSES",
    "amplitude_mae",
    "forward_intensity",
    "merge_patches",
    "physics_loss",
    "poisson_deviance",
    "supervised_loss",
]

# Keeps the square root differentiable at zero; far below one photon.
_FLOOR = 1e-8


def forward_intensity(patches: Tensor, probe: Tensor) -> Tensor:
    """Far-field intensity [..., N, N] of object patches [..., N, N] lit by a probe [modes, N, N], both complex.

    A probe [groups, modes, N, N] is that of each group of patches [groups, members, N, N].
    """
    probe = probe if probe.ndim == 3 else probe[:, None]
    far_field = torch.fft.fft2(patches.unsqueeze(-3) * probe, norm="ortho")
    intensity = (far_field.real.square() + far_field.imag.square()).sum(dim=-3)
    return torch.fft.fftshift(intensity, dim=(-2, -1))


def merge_patches(patches: Tensor, offsets: Tensor, weight: Tensor) -> Tensor:
    """Merge the patches complex [groups, members, N, N] of each group: windows of its weighted mean object.

    Offsets int64 [groups, members, 2] (row, column) are those of each window in its group, at least 0; the weight is
    real [N, N], or [groups, N, N], positive.
    """
    groups, members, size, _ = patches.shape
    if members == 1:
        return patches
    height, width = (int(extent) + size for extent in offsets.amax(dim=(0, 1)))
    axis = torch.arange(size, device=patches.device)
    rows = offsets[..., 0, None, None] + axis[:, None]
    columns = offsets[..., 1, None, None] + axis[None, :]
    canvas = torch.arange(groups, device=patches.device)[:, None, None, None] * (height * width)
    index = (canvas + rows * width + columns).reshape(-1)
    weight = weight if weight.ndim == 2 else weight[:, None]
    weights = weight.expand_as(patches.real).reshape(-1, 1)
    values = torch.view_as_real(patches).reshape(-1, 2)
    terms = torch.cat([weights * values, weights], dim=1)
    total = terms.new_zeros(groups * height * width, 3).index_add(0, index, terms)[index]
    merged = total[:, :2] / total[:, 2:]
    return torch.view_as_complex(merged.reshape(*patches.shape, 2))


def amplitude_mae(intensity: Tensor, amplitude: Tensor, mask: Tensor, scale: Tensor | float) -> Tensor:
    """Mean absolute error of the amplitude over valid pixels, in units of the scaled (RMS 1) amplitude.

    Mask [N, N] and scale [] are those of all patterns [groups, members, N, N], or [groups, N, N] and [groups] those of
    each group; so they are for `poisson_deviance`.
    """
    error = (torch.sqrt(intensity + _FLOOR) - amplitude).abs()
    return (scale * _mean_over_valid(error, mask)).mean()


def poisson_deviance(intensity: Tensor, amplitude: Tensor, mask: Tensor, scale: Tensor | float) -> Tensor:
    """Poisson negative log-likelihood of the counts, less its minimum, over the mean counts in a pixel.

    Rates are in photons, never normalised: likelihoods of normalised amplitudes are those of a fraction of a photon,
    and collapse the phase. The minimum (a perfect fit) is 0.
    """
    counts = amplitude.square()
    rate = intensity + _FLOOR
    deviance = rate - counts + torch.xlogy(counts, counts) - counts * torch.log(rate)
    return (scale**2 * _mean_over_valid(deviance, mask)).mean()


def _mean_over_valid(values: Tensor, mask: Tensor) -> Tensor:
    """Means [groups] over the valid pixels of all patterns of a group; [] for one mask of all."""
    if mask.ndim == 2:
        return values[..., mask].mean()
    valid = mask[:, None].expand_as(values)
    return torch.where(valid, values, 0).sum(dim=(1, 2, 3)) / valid.sum(dim=(1, 2, 3))


LOSSES = {"mae": amplitude_mae, "poisson": poisson_deviance}


def physics_loss(
    patches: Tensor,
    amplitude: Tensor,
    offsets: Tensor,
    *,
    probe: Tensor,
    weight: Tensor,
    mask: Tensor,
    scale: Tensor | float,
    loss: str,
) -> Tensor:
    """Loss of the merged patches of each group with respect to its measured amplitudes [groups, members, N, N].

    Patches, offsets and weight are those of `merge_patches`. Probe, weight, mask and scale are those of all groups or,
    with an axis of groups first, those of each. `loss` is ``mae`` or ``poisson``.
    """
    intensity = forward_intensity(merge_patches(patches, offsets, weight), probe)
    return LOSSES[loss](intensity, amplitude, mask, scale)


def supervised_loss(patches: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Mean distance of predicted and known patches, complex [groups, members, N, N], weighted by the illumination's
    amplitude: that of all groups [N, N], or of each [groups, N, N].
    """
    light = weight.sqrt()
    light = light / light.mean(dim=(-2, -1), keepdim=True)
    return ((light if light.ndim == 2 else light[:, None]) * (patches - labels).abs()).mean()
