"""Training with Keras, which owns the loop; loss and data are ours."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan.grouping import group_offsets
from ptychonnx.train.config import TrainingConfig
from ptychonnx.train.dataset import TrainingData
from ptychonnx.train.run import fingerprint
from ptychonnx.train.tensorflow.network import KerasNetwork, build_network, save_weights
from ptychonnx.train.tensorflow.physics import physics_loss, supervised_loss
from ptychonnx.train.training_job import FitResult, TrainingJob

__all__ = ["fit"]

_STATE_NAME = "state.weights.h5"
_POLICIES = {"32": "float32", "bf16-mixed": "mixed_bfloat16", "16-mixed": "mixed_float16"}


# From the inputs of a network, and a beam or none, to object parts.
Predict: TypeAlias = Callable[[Sequence[tf.Tensor], Sequence[tf.Tensor]], tf.Tensor]


class ScanTables:
    """Beams of the scans of a training in tables."""

    def __init__(self, data: TrainingData) -> None:
        probes, modes = data.padded_probes
        self.alone = len(modes) == 1
        self.probes, self.modes = tf.constant(probes), tf.constant(modes)
        self.weights, self.masks, self.scales = map(tf.constant, data.beam_tables.values())

    @property
    def specs(self) -> list[tf.TensorSpec]:
        """Of `conditions`."""
        size = self.masks.shape[-1]
        shapes = [] if self.alone else [[None, None, size, size, 2], [None, size, size], [None]]
        return [tf.TensorSpec(shape, tf.float32) for shape in shapes]

    def conditions(self, beam: tf.Tensor) -> list[tf.Tensor]:
        """Probe, mask and scale of each input [B] of the network; none if it has but one beam, which is its own."""
        if self.alone:
            return []
        beams = self.beams(beam)
        probe = tf.stack([tf.math.real(beams["probe"]), tf.math.imag(beams["probe"])], axis=-1)
        return [probe, tf.cast(beams["mask"], tf.float32), beams["scale"]]

    def beams(self, beam: tf.Tensor) -> dict[str, tf.Tensor]:
        """Probe, weight, mask and scale of the only beam, or with an axis of groups first those of `beam` [groups]."""
        if self.alone:
            beam = 0
        most = tf.reduce_max(tf.gather(self.modes, beam))
        return {
            "probe": tf.gather(self.probes, beam)[..., :most, :, :],
            "weight": tf.gather(self.weights, beam),
            "mask": tf.gather(self.masks, beam),
            "scale": tf.gather(self.scales, beam),
        }


class ReconstructionTask(keras.Model):
    """Predict the patches of each group and score them, against the patterns or against known objects."""

    def __init__(self, network: KerasNetwork, data: TrainingData, training: TrainingConfig) -> None:
        super().__init__()
        self.network = network
        self.model = network.model
        self.training_config = training
        self.data = data
        self.scans = ScanTables(data)
        self.built = True

    def call(
        self, inputs: Sequence[tf.Tensor], beam: Sequence[tf.Tensor], training: bool = False
    ) -> tf.Tensor:
        """Object parts of the network, with a beam for each of its inputs, or with its own if there is none."""
        return self.network.call(inputs, beam, training)

    @cached_property
    def infer(self) -> Predict:
        """The network outside of training, compiled once for every batch."""
        inputs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in self.model.inputs]
        signature = [inputs, self.scans.specs]
        return tf.function(lambda inputs, beam: self.call(inputs, beam), input_signature=signature)

    def predict_parts(self, beam: NDArray[np.intp], *inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Object parts [B, N, N, C, 2] of `TrainingData.inputs` of groups with beams [groups], with the weights as they
        are now.
        """
        conditions = self.scans.conditions(np.repeat(beam, len(inputs[0]) // len(beam)))
        return np.asarray(
            self.infer([tf.constant(values) for values in inputs], conditions), dtype=np.float32
        )

    def score(self, batch: dict[str, tf.Tensor], predict: Predict) -> tf.Tensor:
        """Loss of a batch from `_dataset`, for a network that is called as `predict`."""
        amplitude, offsets, labels = batch["amplitude"], batch["offsets"], batch.get("labels")
        members, size = amplitude.shape[1], amplitude.shape[-1]
        channels = self.data.channels
        inputs = [tf.reshape(amplitude, [-1, channels, size, size])]
        if self.data.takes_offsets:
            inputs.append(tf.reshape(batch["places"], [-1, channels, 2]))
        conditions = self.scans.conditions(tf.repeat(batch["beam"], members // channels))
        parts = tf.cast(predict(inputs, conditions), tf.float32)
        patches = tf.complex(parts[..., 0], parts[..., 1])
        patches = tf.reshape(tf.transpose(patches, [0, 3, 1, 2]), [-1, members, size, size])
        if labels is not None:
            return supervised_loss(patches, labels, self.scans.weights[0])
        return physics_loss(
            patches, amplitude, offsets, **self.scans.beams(batch["beam"]), loss=self.training_config.loss
        )

    def train_step(self, batch: Any) -> dict[str, tf.Tensor]:
        devices = self.distribute_strategy.num_replicas_in_sync
        with tf.GradientTape() as tape:
            loss = self.score(batch, partial(self.call, training=True))
            # Gradients of all devices are added up.
            scaled = self.optimizer.scale_loss(loss / devices)
        variables = self.model.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(scaled, variables), variables, strict=True))
        self._loss_tracker.update_state(loss)
        return {"loss": self._loss_tracker.result()}

    def test_step(self, batch: Any) -> dict[str, tf.Tensor]:
        groups = tf.shape(batch["amplitude"])[0]
        # A compiled function would read the weights of the first device on all of them.
        alone = self.distribute_strategy.num_replicas_in_sync == 1
        loss = self.score(batch, self.infer if alone else self.call)
        self._loss_tracker.update_state(loss, sample_weight=groups)
        return {"loss": self._loss_tracker.result()}


class Reporter(keras.callbacks.Callback):
    """Keeps the checkpoint of every epoch and reports progress."""

    def __init__(self, job: TrainingJob, network: KerasNetwork, task: ReconstructionTask) -> None:
        super().__init__()
        self.job = job
        self.network = network
        self.task = task
        self.done = job.checkpoints.done * job.data.steps_in_epoch(job.training)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        self.done += 1
        self.job.progress.update(self.done)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        logs = {} if logs is None else logs
        logs["disagreement"] = self.job.data.disagreement(self.task.predict_parts)

        def write(folder: Path) -> None:
            self.network.save(folder)
            save_weights(self.task, folder / _STATE_NAME, *self.task.optimizer.variables)

        self.job.checkpoints.end_epoch(
            float(logs["loss"]),
            float(logs["val_loss"]),
            logs["disagreement"],
            float(np.asarray(self.task.optimizer.learning_rate)),
            write,
            self.network.tensors().values(),
        )
        if self.job.checkpoints.finished:
            self.model.stop_training = True


def fit(job: TrainingJob) -> FitResult:
    """Train a network, and write the checkpoint of its best epoch and logs into the run folder.

    Raises InputError if the settings do not fit the devices. Raises VerificationError if a loss or a weight is not
    finite. Raises EnvironmentFailure if a checkpoint cannot be written.
    """
    training, checkpoints = job.training, job.checkpoints
    strategy = _strategy(job)
    tf.config.experimental.enable_op_determinism()
    native = build_network(
        job.architecture,
        job.network,
        job.retrieval_constants(),
        training.seed,
        policy=_POLICIES[training.precision],
        scope=strategy.scope(),
    )
    if job.initial is not None:
        native.load(job.initial)
    initial = fingerprint(native.tensors())
    if not checkpoints.finished:
        with strategy.scope():
            _run(job, native)
    return FitResult.of_best_epoch(job, native, initial, ("tensorflow", "keras"))


def _run(job: TrainingJob, native: KerasNetwork) -> None:
    training, data, checkpoints = job.training, job.data, job.checkpoints
    steps = data.steps(training)
    task = ReconstructionTask(native if len(data.beams) == 1 else native.general(), data, training)
    schedule = keras.optimizers.schedules.CosineDecay(
        training.learning_rate / 25,
        steps,
        alpha=0.0,
        warmup_target=training.learning_rate,
        warmup_steps=max(1, steps // 10),
    )
    task.compile(optimizer=keras.optimizers.Adam(schedule, global_clipnorm=1.0))
    task.optimizer.build(task.model.trainable_variables)
    if checkpoints.latest is not None:
        task.load_weights(checkpoints.latest / _STATE_NAME)
    logs = job.log_folder()
    logs.mkdir(parents=True, exist_ok=True)
    callbacks = [Reporter(job, native, task), keras.callbacks.CSVLogger(logs / "metrics.csv")]
    if job.tensorboard():
        callbacks.append(keras.callbacks.TensorBoard(logs, write_graph=False))
    remaining = range(checkpoints.done, training.epochs)
    order = np.concatenate([data.order(training, epoch) for epoch in remaining])
    scored = data.scored
    held_out = tf.data.Dataset.from_tensor_slices(np.arange(len(scored)))
    at_once = min(data.groups_in_step(training), len(scored) // training.devices * training.devices)
    task.fit(
        _dataset(data, data.train, tf.data.Dataset.from_tensor_slices(order)),
        steps_per_epoch=data.steps_in_epoch(training),
        # A device without a pattern has no loss, so several devices leave out an incomplete step.
        validation_data=_dataset(data, scored, held_out.batch(at_once, drop_remainder=training.devices > 1)),
        initial_epoch=checkpoints.done,
        epochs=training.epochs,
        shuffle=False,
        callbacks=callbacks,
        verbose=0,
    )


def _dataset(data: TrainingData, groups: NDArray[np.intp], rows: tf.data.Dataset) -> tf.data.Dataset:
    """Batches for rows of `groups`: amplitudes [groups, members, N, N], their offsets in whole pixels and exact, the
    number of their beam, and labels if there are any.
    """
    diffraction, index = tf.constant(data.diffraction), tf.constant(groups)
    offsets = tf.constant(data.offsets(groups))
    places = tf.constant(group_offsets(data.positions, groups))
    beams = tf.constant(data.beam_of[groups[:, 0]])
    labels = None if data.labels is None else tf.constant(data.labels)

    def gather(row: tf.Tensor) -> dict[str, tf.Tensor]:
        patterns = tf.gather(index, row)
        batch = {
            "amplitude": tf.gather(diffraction, patterns),
            "offsets": tf.gather(offsets, row),
            "places": tf.gather(places, row),
            "beam": tf.gather(beams, row),
        }
        if labels is not None:
            batch["labels"] = tf.gather(labels, patterns)
        return batch

    return rows.map(gather).prefetch(2)


def _strategy(job: TrainingJob) -> tf.distribute.Strategy:
    """Strategy for the first GPU, or for several devices that share every step."""
    count = job.training.devices
    if count == 1:
        return tf.distribute.get_strategy()
    kind = "GPU" if tf.config.list_logical_devices("GPU") else "CPU"
    devices = [device.name for device in tf.config.list_logical_devices(kind)]
    if count > len(devices):
        raise InputError(f"--devices {count}: TensorFlow has {len(devices)} {kind} here")
    job.require_equal_shares()
    return tf.distribute.MirroredStrategy(devices[:count])
