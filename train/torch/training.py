"""Training with Lightning: our part is the loss and the data, the loop is Lightning's."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from train.config import NetworkConfig, TrainingConfig
from train.dataset import TrainingData
from train.first_guess import first_guess
from train.fitting import Fitted, OnStep
from train.history import History
from train.registry import Architecture
from train.run import fingerprint
from train.torch.network import TorchNetwork, build_network
from train.torch.physics import physics_loss, supervised_loss

__all__ = ["fit"]


class ReconstructionTask(LightningModule):
    """Predict the patches of each group and score them, against the patterns or against known objects."""

    def __init__(
        self, module: nn.Module, data: TrainingData, training: TrainingConfig, channels: int
    ) -> None:
        super().__init__()
        self.module = module
        self.training_config = training
        self.channels = channels
        self.scale = data.scale
        constants = {"probe": data.probe, "weight": data.weight(), "mask": data.mask}
        for name, value in constants.items():
            self.register_buffer(name, torch.from_numpy(value), persistent=False)
        self.diffraction = torch.from_numpy(data.diffraction)
        self.labels = None if data.labels is None else torch.from_numpy(data.labels)

    def score(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        index, offsets = batch
        groups, members = index.shape
        size = self.diffraction.shape[-1]
        amplitude = self.diffraction[index.cpu()].to(self.device)
        parts = self.module(amplitude.reshape(-1, self.channels, size, size))
        patches = torch.view_as_complex(parts.float().contiguous()).movedim(-1, 1)
        patches = patches.reshape(groups, members, size, size)
        if self.labels is not None:
            return supervised_loss(patches, self.labels[index.cpu()].to(self.device), self.weight)
        return physics_loss(
            patches,
            amplitude,
            offsets,
            probe=self.probe,
            weight=self.weight,
            mask=self.mask,
            scale=self.scale,
            loss=self.training_config.loss,
        )

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> Tensor:
        loss = self.score(batch)
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(batch[0]))
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> None:
        self.log("validation_loss", self.score(batch), batch_size=len(batch[0]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.module.parameters(), lr=self.training_config.learning_rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=self.training_config.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=0.1,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class Reporter(Callback):
    """Forwards steps to the command line's progress bar, and epochs to the history."""

    def __init__(self, history: History, on_step: OnStep) -> None:
        self.history = history
        self.on_step = on_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        self.on_step(trainer.global_step, int(trainer.estimated_stepping_batches))

    def on_train_epoch_end(self, trainer: Trainer, _: LightningModule) -> None:
        metrics = trainer.callback_metrics
        rate = trainer.optimizers[0].param_groups[0]["lr"]
        self.history.append(float(metrics["loss"]), float(metrics["validation_loss"]), rate)


def fit(
    architecture: Architecture,
    network: NetworkConfig,
    training: TrainingConfig,
    data: TrainingData,
    folder: Path,
    on_step: OnStep,
) -> Fitted:
    """Train a network and write its checkpoint, history and logs into a folder.

    Raises
    ------
    InputError
        If the loss stops being finite.
    """
    native = build_network(architecture, network, first_guess(data.probe, data.scale), training.seed)
    initial = fingerprint(native.tensors())
    history = History(folder / "history.csv")
    task = ReconstructionTask(native.module.train(), data, training, network.gridsize**2)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # The patterns are in memory: workers would only copy them.
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*isinstance.*LeafSpec.*")
        trainer = Trainer(
            max_epochs=training.epochs,
            accelerator="auto",
            devices=1,
            logger=CSVLogger(folder, name="logs", version=""),
            callbacks=[Reporter(history, on_step)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            gradient_clip_val=1.0,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
        trainer.fit(
            task,
            _loader(data, data.train, training, shuffle=True),
            _loader(data, data.held_out, training, shuffle=False),
        )
    native = TorchNetwork(task.module.cpu())
    native.save(folder)
    return Fitted(
        history=history,
        initial_tensors=initial,
        trained_tensors=fingerprint(native.tensors()),
        parameters=sum(value.size for value in native.tensors().values()),
        spectral_operator=native.spectral_operator(),
        packages=("torch", "lightning", "neuraloperator"),
    )


def _loader(
    data: TrainingData, groups: NDArray[np.intp], training: TrainingConfig, *, shuffle: bool
) -> DataLoader:
    pairs = TensorDataset(torch.from_numpy(groups), torch.from_numpy(data.offsets(groups)))
    if not shuffle:
        return DataLoader(pairs, data.groups_in_step(training))
    order = torch.Generator().manual_seed(training.seed)
    sampler = RandomSampler(pairs, num_samples=data.groups_in_epoch, generator=order)
    return DataLoader(pairs, data.groups_in_step(training), sampler=sampler, drop_last=True)
