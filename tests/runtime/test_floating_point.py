"""Denormal numbers in the thread of the caller."""

from __future__ import annotations

import platform
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ptychonnx.runtime.inference.floating_point import floating_point_kept

_PROGRAM = """
import numpy as np
import ptychonnx
ptychonnx.reconstruct("zoo:pinn_fno", ptychonnx.simulate_lines(grid=3), provider="cpu")
assert np.float32(1e-40) * np.float32(1) > 0
"""


def denormal() -> float:
    # Operands that are no constants, and a product that is denormal too.
    return float(np.array([2e-38], np.float32)[0] * np.array([0.1], np.float32)[0])


@pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="no effect elsewhere"
)
def test_denormal_numbers_are_flushed_meanwhile_and_in_threads_that_start_then():
    assert denormal() > 0
    with floating_point_kept(flushed=True), ThreadPoolExecutor(1) as pool:
        assert denormal() == 0
        assert pool.submit(denormal).result() == 0
    assert denormal() > 0


def test_an_error_leaves_the_state_as_it_was():
    with pytest.raises(ZeroDivisionError), floating_point_kept(flushed=True):
        1 / 0  # noqa: B018
    assert denormal() > 0
    with floating_point_kept():
        assert denormal() > 0


def test_the_first_session_of_a_process_leaves_the_denormal_numbers_of_its_caller():
    # onnxruntime changes the thread that makes the first session of a process.
    run = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
