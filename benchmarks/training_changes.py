"""Training variants that `ptychonnx train` has no option for, used by `benchmarks.training_settings`.

Each function replaces a part of a library or of `ptychonnx.train` for the rest of the process. They are experiments and
not meant to be adopted as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

__all__ = ["CHANGES", "STAGE_STEPS"]

AVERAGING = 0.99  # of the weights, a step
STAGE_STEPS = 4  # of phase retrieval between the two stages
SETTLED = 1_000_000  # epochs after which a rate that does not fall here would have fallen

Change = Callable[[], None]


def linear_input() -> None:
    """What a network sees of a pattern is its scaled amplitude."""
    import tensorflow as tf
    import torch

    tf.math.log1p = torch.log1p = lambda amplitude: amplitude


def root_input() -> None:
    """What `baseline` sees of a pattern is the square root of its scaled amplitude."""
    import tensorflow as tf

    _see(tf.sqrt)


def logarithm_input() -> None:
    """What `baseline` sees of a pattern is the logarithm of one and its scaled amplitude."""
    import tensorflow as tf

    _see(tf.math.log1p)


def _see(transform: Callable[[Any], Any]) -> None:
    import tensorflow as tf

    from ptychonnx.train.initial_retrieval import AMPLITUDE_GAIN
    from ptychonnx.train.tensorflow.layers import ScaledPatterns

    ScaledPatterns.call = lambda self, diffraction: tf.transpose(
        transform(diffraction * self.scale) * AMPLITUDE_GAIN, [0, 2, 3, 1]
    )


def constant_rate() -> None:
    """The rate warms up as usual and stays there."""
    import keras
    import torch
    from torch.optim.lr_scheduler import LambdaLR

    decay = keras.optimizers.schedules.CosineDecay
    keras.optimizers.schedules.CosineDecay = lambda rate, steps, **options: decay(
        rate, SETTLED * steps, **options
    )

    class Constant(LambdaLR):
        def __init__(self, optimizer: Any, max_lr: float, total_steps: int, pct_start: float) -> None:
            super().__init__(optimizer, lambda step: min(1, 1 / 25 + step / (pct_start * total_steps)))

    torch.optim.lr_scheduler.OneCycleLR = Constant


def averaged_weights() -> None:
    """What an epoch leaves is the exponential average of the weights."""
    import tensorflow as tf

    from ptychonnx.train.tensorflow import training as keras_training
    from ptychonnx.train.torch import training as torch_training

    class Averaged(keras_training.Reporter):
        average: list[tf.Tensor] | None = None

        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            now = [tf.identity(each) for each in self.network.model.trainable_variables]
            old = now if self.average is None else self.average
            self.average = [
                AVERAGING * last + (1 - AVERAGING) * each for last, each in zip(old, now, strict=True)
            ]
            super().on_train_batch_end(batch, logs)

        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            variables = self.network.model.trainable_variables
            kept = [tf.identity(each) for each in variables]
            for variable, average in zip(variables, self.average, strict=True):
                variable.assign(average)
            super().on_epoch_end(epoch, logs)
            for variable, value in zip(variables, kept, strict=True):
                variable.assign(value)

    class AveragedModule(torch_training.Reporter):
        average: dict[str, Any] | None = None

        def on_train_batch_end(self, trainer: Any, task: Any, *others: Any) -> None:
            now = {name: value.detach().clone() for name, value in task.module.named_parameters()}
            old = now if self.average is None else self.average
            self.average = {name: AVERAGING * old[name] + (1 - AVERAGING) * now[name] for name in now}
            super().on_train_batch_end(trainer, task, *others)

        def on_train_epoch_end(self, trainer: Any, task: Any) -> None:
            kept = {name: value.detach().clone() for name, value in task.module.named_parameters()}
            task.module.load_state_dict(self.average, strict=False)
            super().on_train_epoch_end(trainer, task)
            task.module.load_state_dict(kept, strict=False)

    keras_training.Reporter = Averaged
    torch_training.Reporter = AveragedModule


def unlit_features() -> None:
    """A network is not told where the light is."""
    import ptychonnx.train.run
    import ptychonnx.train.training_job

    for module in (ptychonnx.train.training_job, ptychonnx.train.run):
        original = module.constants_for_network
        module.constants_for_network = lambda *given, original=original: replace(
            original(*given), light=original(*given).light * 0
        )


def factor_output() -> None:
    """The network multiplies the first guess, by the exponential of what it gives."""
    import tensorflow as tf
    import torch

    from ptychonnx.train.initial_retrieval import CONTRAST_GAIN
    from ptychonnx.train.tensorflow.layers import ToObject
    from ptychonnx.train.torch.blocks import ObjectHead

    def keras_call(self: Any, corrections: list[Any], features: Any) -> Any:
        channels = corrections[0].shape[-1]
        guess = tf.complex(
            1 + features[..., :channels] / CONTRAST_GAIN,
            features[..., channels : 2 * channels] / CONTRAST_GAIN,
        )
        made = guess * tf.exp(tf.complex(corrections[0] / CONTRAST_GAIN, corrections[1] / CONTRAST_GAIN))
        return tf.stack([tf.math.real(made), tf.math.imag(made)], axis=-1)

    def torch_forward(self: Any, hidden: Any, features: Any) -> Any:
        first, second = (self.project(hidden) / CONTRAST_GAIN).split(self.channels, dim=1)
        real, imaginary = (features[:, : 2 * self.channels] / CONTRAST_GAIN).split(self.channels, dim=1)
        size, cosine, sine = torch.exp(first), torch.cos(second), torch.sin(second)
        real = 1 + real
        parts = [size * (real * cosine - imaginary * sine), size * (real * sine + imaginary * cosine)]
        return torch.stack(parts, dim=-1).permute(0, 2, 3, 1, 4)

    ToObject.call = keras_call
    ObjectHead.forward = torch_forward


def lit_input() -> None:
    """`baseline` sees the amplitude of the probe beside the pattern."""
    import tensorflow as tf

    import ptychonnx.train.tensorflow.baseline as baseline

    build, patterns = baseline.build, baseline.ScaledPatterns

    def built(config: Any, guess: Any) -> Any:
        light = tf.constant(guess.light[..., None])

        class WithLight(patterns):
            def call(self, diffraction: Any) -> Any:
                seen = super().call(diffraction)
                return tf.concat([seen, seen[..., :1] * 0 + light], axis=-1)

        baseline.ScaledPatterns = WithLight
        return build(config, guess)

    baseline.build = built


def two_stages() -> None:
    """A second network of the same kind corrects what the first and a few steps of phase retrieval gave."""
    import torch
    from torch import nn

    import ptychonnx.train.torch.hybrid as hybrid
    from ptychonnx.train.initial_retrieval import AMPLITUDE_GAIN, CONTRAST_GAIN
    from ptychonnx.train.torch.retrieval import Retrieval

    build = hybrid.Hybrid

    class Continued(nn.Module):
        """The features of the second network."""

        def forward(self, parts: Any, amplitude: Any) -> Any:
            features = [
                (parts[:, :, :, 0] - 1) * CONTRAST_GAIN,
                parts[:, :, :, 1] * CONTRAST_GAIN,
                torch.log1p(amplitude) * AMPLITUDE_GAIN,
                amplitude * 0 + self.light,
            ]
            return torch.cat(features, dim=1)

    class TwoStages(nn.Module):
        def __init__(self, config: Any, guess: Any) -> None:
            super().__init__()
            self.first, self.second = build(config, guess), build(config, guess)
            self.retrieval, self.scale = Retrieval(guess), guess.scale
            continued = Continued()
            continued.register_buffer("light", torch.from_numpy(guess.light), persistent=False)
            self.second.features = continued

        def forward(self, diffraction: Any) -> Any:
            amplitude = diffraction * self.scale
            parts = self.first(diffraction).permute(0, 3, 1, 4, 2)
            return self.second(self.retrieval(amplitude, STAGE_STEPS, None, parts), amplitude)

    hybrid.Hybrid = TwoStages


CHANGES: dict[str, Change] = {
    change.__name__: change
    for change in (
        linear_input,
        root_input,
        logarithm_input,
        constant_rate,
        averaged_weights,
        unlit_features,
        factor_output,
        lit_input,
        two_stages,
    )
}
