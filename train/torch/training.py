"""Training with Lightning, which owns the loop; loss and data are ours."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.trainer.states import TrainerStatus
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ptychonnx.runtime.errors import InputError
from ptychonnx.train.config import TrainingConfig
from ptychonnx.train.dataset import TrainingData
from ptychonnx.train.run import fingerprint
from ptychonnx.train.torch.beam import BeamPreparation
from ptychonnx.train.torch.blocks import Features
from ptychonnx.train.torch.network import TorchNetwork, build_network
from ptychonnx.train.torch.physics import physics_loss, supervised_loss
from ptychonnx.train.torch.retrieval import Retrieval
from ptychonnx.train.training_job import FitResult, TrainingJob

__all__ = ["fit"]

_STATE_NAME = "state.ckpt"
_WARM_UP = 0.1  # share of the steps in which the learning rate rises


class ScanTables(nn.Module):
    """Training data with the beams of its scans in tables, on the device of the network."""

    probes: Tensor
    weights: Tensor
    masks: Tensor
    scales: Tensor

    def __init__(self, data: TrainingData) -> None:
        super().__init__()
        self.data = data
        self.labels = None if data.labels is None else torch.from_numpy(data.labels)
        probes, self.modes = data.padded_probes
        for name, table in {"probes": probes, **data.beam_tables}.items():
            self.register_buffer(name, torch.from_numpy(table), persistent=False)

    def conditions(self, beam: NDArray[np.intp]) -> dict[str, Tensor]:
        """Probe, mask and scale of each input [B] of the network; none if it has but one beam, which is its own."""
        if len(self.data.beams) == 1:
            return {}
        probe = self.probes[beam, : self.modes[beam].max()]
        return {
            "probe": torch.view_as_real(probe),
            "mask": self.masks[beam].float(),
            "scale": self.scales[beam],
        }


class ReconstructionTask(LightningModule):
    """Predict the patches of each group and score them, against the patterns or against known objects.

    Held-out patterns are those of `held_out` in every epoch; `fresh` returns the data of later epochs, from 1, that are
    trained on instead of its own.
    """

    def __init__(
        self,
        module: nn.Module,
        data: TrainingData,
        training: TrainingConfig,
        fresh: Callable[[int], TrainingData] | None = None,
    ) -> None:
        super().__init__()
        self.module = module
        self.training_config = training
        self.data = data
        self.fresh = fresh
        self.held_out = self.trained_on = ScanTables(data)

    def score(self, batch: tuple[Tensor, Tensor], scans: ScanTables | None = None) -> Tensor:
        index, offsets = batch
        scans = scans or self.held_out
        data = scans.data
        groups, members = index.shape
        size = data.diffraction.shape[-1]
        rows = index.cpu().numpy()
        beam = data.beam_of[rows[:, 0]]
        inputs = [torch.from_numpy(values).to(self.device) for values in data.inputs(rows)]
        amplitude = inputs[0].reshape(groups, members, size, size)
        parts = self.module(*inputs, **scans.conditions(np.repeat(beam, len(inputs[0]) // groups)))
        patches = torch.view_as_complex(parts.float().contiguous()).movedim(-1, 1)
        patches = patches.reshape(groups, members, size, size)
        one = len(data.beams) == 1
        beam = 0 if one else beam
        weight = scans.weights[beam]
        if scans.labels is not None:
            return supervised_loss(patches, scans.labels[index.cpu()].to(self.device), weight)
        return physics_loss(
            patches,
            amplitude,
            offsets,
            probe=scans.probes[beam, : scans.modes[beam].max()],
            weight=weight,
            mask=scans.masks[beam],
            scale=data.scale if one else scans.scales[beam],
            loss=self.training_config.loss,
        )

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        loss = self.score(batch, self.trained_on)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]), sync_dist=True)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self.log("validation_loss", self.score(batch), batch_size=len(batch[0]), sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        self.log("disagreement", self.data.disagreement(self.predict), sync_dist=True)

    def predict(self, beam: NDArray[np.intp], *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Object parts [B, N, N, C, 2] of `TrainingData.inputs` of groups with beams [groups], with the weights as they
        are now.
        """
        with torch.inference_mode(), self.trainer.precision_plugin.forward_context():
            tensors = [torch.from_numpy(values).to(self.device) for values in inputs]
            conditions = self.held_out.conditions(np.repeat(beam, len(inputs[0]) // len(beam)))
            return self.module(*tensors, **conditions).float().cpu().numpy()

    def train_dataloader(self) -> DataLoader:
        # Rebuilt for each epoch, whose number determines the order. Every device takes its share of each step.
        data = self.data
        if self.fresh is not None and self.current_epoch:
            data = self.fresh(self.current_epoch)
            self.trained_on = ScanTables(data).to(self.device)
        # Scans with fewer dark patterns than the first ones would have more steps than were planned.
        rows = data.order(self.training_config, self.current_epoch)
        rows = rows[: self.data.steps_in_epoch(self.training_config)]
        share = rows[:, self.trainer.global_rank :: self.trainer.world_size]
        return _loader(data, data.train[share.ravel()], share.shape[1])

    def val_dataloader(self) -> DataLoader:
        return _loader(self.data, self.data.scored, self.data.groups_in_step(self.training_config))

    def configure_optimizers(self) -> Any:
        steps = self.data.steps(self.training_config)
        optimizer = torch.optim.Adam(self.module.parameters(), lr=self.training_config.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=self.training_config.learning_rate,
            total_steps=steps,
            # Torch divides by zero where the warm-up ends with the first step, which is so with ten steps.
            pct_start=_WARM_UP if steps != 1 / _WARM_UP else 1.01 * _WARM_UP,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Reporter(Callback):
    """Keeps the checkpoint of every epoch and reports progress."""

    def __init__(self, job: TrainingJob) -> None:
        self.job = job

    def on_train_epoch_start(self, trainer: Trainer, _: LightningModule) -> None:
        # Random numbers of layers depend on the epoch alone, so a resumed training draws the same.
        seeds = np.random.SeedSequence([self.job.training.seed, trainer.current_epoch, trainer.global_rank])
        torch.manual_seed(int(seeds.generate_state(1)[0]))

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.job.progress.update(trainer.global_step)

    def on_train_epoch_end(self, trainer: Trainer, task: LightningModule) -> None:
        metrics = trainer.callback_metrics
        checkpoints = self.job.checkpoints

        def write(folder: Path) -> None:
            trainer.save_checkpoint(folder / _STATE_NAME)
            if trainer.is_global_zero:
                TorchNetwork(task.module).save(folder)
                task.module.train()

        checkpoints.end_epoch(
            float(metrics["loss"]),
            float(metrics["validation_loss"]),
            float(metrics["disagreement"]),
            trainer.optimizers[0].param_groups[0]["lr"],
            write,
            (weight.detach().cpu().numpy() for weight in task.module.parameters()),
        )
        trainer.should_stop = trainer.should_stop or checkpoints.finished


def fit(job: TrainingJob) -> FitResult:
    """Train a network, and write the checkpoint of its best epoch and logs into the run folder.

    Raises InputError if the settings do not fit the devices. Raises VerificationError if a loss or a weight is not
    finite. Raises EnvironmentFailure if a checkpoint cannot be written.
    """
    training, data, checkpoints = job.training, job.data, job.checkpoints
    job.require_equal_shares()
    # Lightning hands the seed to the processes of further devices.
    seed_everything(training.seed, verbose=False)
    native = build_network(job.architecture, job.network, job.retrieval_constants(), training.seed)
    if job.initial is not None:
        native.load(job.initial)
    initial = fingerprint(native.tensors())
    for module in native.module.modules():
        if isinstance(module, BeamPreparation | Features | Retrieval):
            _compute_exactly(module)
    if not checkpoints.finished:
        with _denormals_flushed():
            _run(job, ReconstructionTask(native.module.train(), data, training, job.fresh))
    native = TorchNetwork(native.module.cpu())
    return FitResult.of_best_epoch(job, native, initial, ("torch", "lightning", "neuraloperator"))


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers to zero in the calling thread, and in threads that start meanwhile.

    They are far below rounding, and slow Intel processors down. The state of the caller's thread is restored.
    """
    flushed = not torch.tensor([1e-40]).mul(1).any()
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(flushed)


def _run(job: TrainingJob, task: ReconstructionTask) -> None:
    training, latest = job.training, job.checkpoints.latest
    loggers = _loggers(job)
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # The patterns are in memory: workers would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
        # On the node of a cluster a training is not spread over further tasks.
        warnings.filterwarnings("ignore", message="The `srun` command is available")
        try:
            trainer = Trainer(
                max_epochs=training.epochs,
                accelerator="auto",
                devices=training.devices,
                precision=training.precision,
                deterministic="warn",
                logger=loggers,
                callbacks=[Reporter(job)],
                reload_dataloaders_every_n_epochs=1,
                use_distributed_sampler=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                gradient_clip_val=1.0,
                num_sanity_val_steps=0,
                log_every_n_steps=1,
            )
        except (ValueError, RuntimeError) as error:
            raise InputError(f"--devices, --precision: {error}") from error
        state = None if latest is None else latest / _STATE_NAME
        try:
            trainer.fit(task, ckpt_path=state, weights_only=True)
        except SystemExit as error:
            if trainer.state.status == TrainerStatus.INTERRUPTED:
                raise KeyboardInterrupt from error
            raise
    if not trainer.is_global_zero:
        # Lightning started this process as a copy of the command: its part ends here.
        sys.exit(0)


def _compute_exactly(module: nn.Module) -> None:
    """Exclude phase retrieval from mixed precision: amplitudes need five decimal places."""
    forward = module.forward

    def full(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) else value

    def exact(first: Tensor, *others: Any, **named: Any) -> Any:
        with torch.autocast(first.device.type, enabled=False):
            return forward(
                full(first), *map(full, others), **{name: full(value) for name, value in named.items()}
            )

    module.forward = exact


def _loggers(job: TrainingJob) -> list[Logger]:
    folder = job.log_folder()
    loggers: list[Logger] = [CSVLogger(folder.parent, name="", version=folder.name)]
    if job.tensorboard():
        loggers.append(
            TensorBoardLogger(folder.parent, name="", version=folder.name, default_hp_metric=False)
        )
    return loggers


def _loader(data: TrainingData, groups: NDArray[np.intp], groups_in_step: int) -> DataLoader:
    pairs = TensorDataset(torch.from_numpy(groups), torch.from_numpy(data.offsets(groups)))
    return DataLoader(pairs, groups_in_step)
