"""Settings of networks and of training, shared by both frameworks and validated in one place."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

__all__ = ["Loss", "Monitor", "NetworkConfig", "Precision", "TrainingConfig"]

Loss = Literal["mae", "poisson"]
Monitor = Literal["loss", "disagreement"]
Precision = Literal["32", "bf16-mixed", "16-mixed"]


@dataclass(
    frozen=True, config=ConfigDict(extra="forbid", title="Network (defaults of the architecture: --list)")
)
class NetworkConfig:
    """Settings of a network. An architecture may lack some.

    With a gridsize g the network sees C = g * g neighbouring patterns and their offsets, and returns C patches.
    """

    n: int = Field(default=64, ge=16, description="Side of a diffraction pattern, in pixels")
    gridsize: int = Field(
        default=1,
        ge=1,
        le=4,
        description="The network sees gridsize x gridsize neighbouring patterns at a time",
    )
    width: int = Field(default=16, ge=4, description="Channels of the first hidden layer")
    blocks: int = Field(default=3, ge=1, description="Number of Fourier blocks, or levels of the encoder")
    modes: int = Field(default=20, ge=2, description="Fourier modes kept along each axis")
    first_steps: int = Field(default=9, ge=1, description="Steps of phase retrieval before the network")
    final_steps: int = Field(default=12, ge=0, description="Steps of phase retrieval after the network")

    @property
    def channels(self) -> int:
        """C: number of patterns that the network sees at a time."""
        return self.gridsize**2


@dataclass(
    frozen=True, config=ConfigDict(extra="forbid", title="Training (defaults of the architecture: --list)")
)
class TrainingConfig:
    """Settings of training. The learning rate warms up to its peak, and then decays to zero."""

    epochs: int = Field(default=3, ge=1, description="Passes over the scan")
    batch: int = Field(default=18, ge=1, description="Patterns per optimiser step")
    learning_rate: float = Field(default=2e-3, gt=0, description="Peak learning rate of the schedule")
    loss: Loss = Field(
        default="mae", description="Physics loss: mae of amplitudes, or poisson likelihood of counts"
    )
    overlap: int = Field(
        default=9,
        ge=1,
        le=16,
        description="Neighbours whose patches are merged before the loss; 1 trains each alone",
    )
    validation: float = Field(
        default=0.05, gt=0, lt=1, description="Fraction of the patterns that is held out"
    )
    seed: int = Field(
        default=0, ge=0, description="Seed of the initial weights and of the order of the patterns"
    )
    monitor: Monitor = Field(
        default="loss",
        description="Figure of the held-out patterns that selects the best epoch: their loss, or the disagreement of "
        "overlapping patches",
    )
    patience: int | None = Field(
        default=None, ge=1, description="Stop after this many epochs without improvement; all run if not set"
    )
    precision: Precision = Field(
        default="32", description="Arithmetic of the training steps; weights stay float32"
    )
    devices: int = Field(
        default=1, ge=1, description="GPUs that share a step (Torch also: processes on the CPU)"
    )
    fresh_scans: bool = Field(
        default=False,
        description="Simulate new scans of the family in --data, of `simulate family`, for every epoch",
        json_schema_extra={"flag": "--fresh-scans/--no-fresh-scans"},
    )
    tensorboard: bool | None = Field(
        default=None, description="Write TensorBoard logs; if not set, when TensorBoard is installed"
    )
