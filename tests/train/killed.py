"""Train a tiny network, and kill this process with SIGKILL after a given optimiser step, in the middle of an epoch."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from ptychonnx.runtime.formats import read_scan
from ptychonnx.train.fitting import settings_for, train
from ptychonnx.train.registry import get_architecture
from tests.train.tiny import SHALLOW, on_steps

name, scan, out, last = sys.argv[1:]


def on_step(done: int, total: int) -> None:
    if done == int(last):
        os.kill(os.getpid(), signal.SIGKILL)


network, training = settings_for(get_architecture(name), {**SHALLOW, "epochs": 4})
train(read_scan(Path(scan)), get_architecture(name), network, training, Path(out), on_steps(on_step))
