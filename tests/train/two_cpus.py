"""Train a tiny Keras network on two logical CPUs, which TensorFlow must be told of before it is first used."""

from __future__ import annotations

import sys
from pathlib import Path

import tensorflow as tf

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_visible_devices([], "GPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

from ptychonnx.runtime.formats import read_scan  # noqa: E402
from ptychonnx.train.fitting import settings_for, train  # noqa: E402
from ptychonnx.train.registry import get_architecture  # noqa: E402
from tests.train.tiny import SHALLOW  # noqa: E402

scan, out = map(Path, sys.argv[1:])
network, training = settings_for(get_architecture("cnn"), {**SHALLOW, "epochs": 2, "devices": 2})
train(read_scan(scan), get_architecture("cnn"), network, training, out)
