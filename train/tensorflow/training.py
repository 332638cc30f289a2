"""Training with Keras: our part is the loss and the data, the loop is Keras's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from train.config import NetworkConfig, TrainingConfig
from train.dataset import TrainingData
from train.first_guess import first_guess
from train.fitting import Fitted, OnStep
from train.history import History
from train.registry import Architecture
from train.run import fingerprint
from train.tensorflow.network import KerasNetwork, build_network
from train.tensorflow.physics import physics_loss, supervised_loss

__all__ = ["fit"]


class ReconstructionTask(keras.Model):
    """Predict the patches of each group and score them, against the patterns or against known objects."""

    def __init__(
        self, model: keras.Model, data: TrainingData, training: TrainingConfig, channels: int
    ) -> None:
        super().__init__()
        self.model = model
        self.training_config = training
        self.channels = channels
        self.data = data
        self.weight = tf.constant(data.weight())
        self.probe = tf.constant(data.probe)
        self.mask = tf.constant(data.mask)

    def call(self, diffraction: tf.Tensor, training: bool = False) -> tf.Tensor:
        return self.model(diffraction, training=training)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        amplitude, offsets, labels = x["amplitude"], x["offsets"], x.get("labels")
        members, size = amplitude.shape[1], amplitude.shape[-1]
        parts = self.model(tf.reshape(amplitude, [-1, self.channels, size, size]), training=training)
        patches = tf.complex(parts[..., 0], parts[..., 1])
        patches = tf.reshape(tf.transpose(patches, [0, 3, 1, 2]), [-1, members, size, size])
        if labels is not None:
            return supervised_loss(patches, labels, self.weight)
        return physics_loss(
            patches,
            amplitude,
            offsets,
            probe=self.probe,
            weight=self.weight,
            mask=self.mask,
            scale=self.data.scale,
            loss=self.training_config.loss,
        )

    def train_step(self, batch: Any) -> dict[str, tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x=batch, training=True)
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        self._loss_tracker.update_state(loss)
        return {"loss": self._loss_tracker.result()}

    def test_step(self, batch: Any) -> dict[str, tf.Tensor]:
        self._loss_tracker.update_state(self.compute_loss(x=batch, training=False))
        return {"loss": self._loss_tracker.result()}


class Reporter(keras.callbacks.Callback):
    """Forwards steps to the command line's progress bar, and epochs to the history."""

    def __init__(self, history: History, on_step: OnStep, total: int) -> None:
        super().__init__()
        self.history = history
        self.on_step = on_step
        self.total = total
        self.done = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.done += 1
        self.on_step(self.done, self.total)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = logs or {}
        rate = float(np.asarray(self.model.optimizer.learning_rate))
        self.history.append(logs["loss"], logs["val_loss"], rate)


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
    steps = data.steps(training)
    history = History(folder / "history.csv")
    task = ReconstructionTask(native.model, data, training, network.gridsize**2)
    schedule = keras.optimizers.schedules.CosineDecay(
        training.learning_rate / 25,
        steps,
        alpha=0.0,
        warmup_target=training.learning_rate,
        warmup_steps=max(1, steps // 10),
    )
    task.compile(optimizer=keras.optimizers.Adam(schedule, global_clipnorm=1.0))
    (folder / "logs").mkdir()
    task.fit(
        _dataset(data, training, data.train, shuffle=True),
        validation_data=_dataset(data, training, data.held_out, shuffle=False),
        epochs=training.epochs,
        shuffle=False,
        callbacks=[
            Reporter(history, on_step, steps),
            keras.callbacks.CSVLogger(folder / "logs" / "keras.csv"),
        ],
        verbose=0,
    )
    native = KerasNetwork(task.model)
    native.save(folder)
    return Fitted(
        history=history,
        initial_tensors=initial,
        trained_tensors=fingerprint(native.tensors()),
        parameters=sum(value.size for value in native.tensors().values()),
        spectral_operator=native.spectral_operator(),
        packages=("tensorflow", "keras"),
    )


def _dataset(
    data: TrainingData, training: TrainingConfig, groups: NDArray[np.intp], *, shuffle: bool
) -> tf.data.Dataset:
    """Batches of groups: amplitudes [groups, members, N, N], their offsets and, if there are any, labels."""
    diffraction = tf.constant(data.diffraction)
    labels = None if data.labels is None else tf.constant(data.labels)

    def gather(index: tf.Tensor, offsets: tf.Tensor) -> dict[str, tf.Tensor]:
        found = {"amplitude": tf.gather(diffraction, index), "offsets": offsets}
        if labels is not None:
            found["labels"] = tf.gather(labels, index)
        return found

    rows = tf.data.Dataset.from_tensor_slices((groups.astype(np.int64), data.offsets(groups)))
    if shuffle:
        rows = rows.shuffle(len(groups), seed=training.seed, reshuffle_each_iteration=True)
        rows = rows.take(data.groups_in_epoch)
    return rows.batch(data.groups_in_step(training), drop_remainder=shuffle).map(gather).prefetch(2)
