"""A lack of memory and a lost device: faults that are injected where a session calls its engine."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ptychonnx.runtime.errors import DeviceError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.resilient_run import ResilientRun
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows
from tests.runtime.test_session import SIZE, contract, error_of, fix_batch, write_identity

MEMORY = RuntimeError("[ONNXRuntimeError] : 6 : CUDA failure 2: out of memory ; GPU=0")
LOST = RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 719: unspecified launch failure ; GPU=0")


@pytest.fixture
def artifact(tmp_path):
    return write_identity(tmp_path / "identity.onnx", contract())


@pytest.fixture
def oracle(truth, positions) -> Scan:
    return Scan(cut_windows(np.abs(truth), positions, SIZE), positions, name="oracle")


def inject(session, fails):
    """Let the engine of a session fail with what `fails` returns for the number of the call and the batch."""
    engine, calls = session._resilient._run, []

    def run(*inputs, beam):
        calls.append(len(inputs[0]))
        if (error := fails(len(calls), len(inputs[0]))) is not None:
            raise error
        return engine(*inputs, beam=beam)

    session._resilient._run = run
    return calls


def test_a_batch_that_does_not_fit_into_the_memory_is_halved_until_it_does(artifact, oracle, truth, caplog):
    session = Session(artifact, "cpu")
    calls = inject(session, lambda call, batch: MEMORY if batch > 3 else None)
    result = reconstruct(session, oracle, batch=16)
    assert error_of(result, truth) < 1e-6
    assert calls == [16, 8, 4, *[2] * 10]
    assert session.largest_batch == 2
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        f"CPUExecutionProvider has too little memory for a batch of {2 * half}, going on with {half}"
        for half in (8, 4, 2)
    ]


def test_a_single_pattern_or_a_fixed_batch_without_memory_is_an_error(artifact):
    session = Session(artifact, "cpu")
    inject(session, lambda call, batch: MEMORY)
    patterns = np.ones((4, 1, SIZE, SIZE), np.float32)
    with pytest.raises(DeviceError, match=r"identity.onnx: failed on CPUExecutionProvider .*out of memory"):
        session.predict(patterns)
    fix_batch(artifact, 4, 4)
    session = Session(artifact, "cpu")
    calls = inject(session, lambda call, batch: MEMORY)
    with pytest.raises(DeviceError, match="out of memory"):
        session.predict(patterns)
    assert calls == [4]


def test_a_scan_goes_on_on_the_cpu_when_the_device_is_lost(artifact, oracle, truth, caplog):
    pytest.importorskip("openvino")
    session = Session(artifact, "openvino")
    calls = inject(session, lambda call, batch: LOST if call == 3 else None)
    result = reconstruct(session, oracle, batch=4)
    assert error_of(result, truth) < 1e-6
    assert calls == [4, 4, 4]
    assert session.provider == "OpenVINO, then CPUExecutionProvider"
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "OpenVINO failed in the middle" in record.message
    assert record.message.endswith("going on with the CPU")


def test_a_device_that_fails_in_its_first_batch_is_never_replaced(artifact):
    pytest.importorskip("openvino")
    session = Session(artifact, "openvino")
    inject(session, lambda call, batch: LOST)
    with pytest.raises(DeviceError, match=r"failed on OpenVINO .*unspecified launch failure"):
        session.predict(np.ones((4, 1, SIZE, SIZE), np.float32))
    assert session.provider == "OpenVINO"


def test_two_threads_lose_one_device_together(caplog):
    together, taken = threading.Barrier(2), []
    lost = threading.Event()

    def device(values, beam):
        if lost.is_set():
            together.wait(10)
            raise LOST
        return values

    def take_over():
        taken.append(True)
        return lambda values, beam: values + 1

    run = ResilientRun("net", "gpu", device, True, take_over)
    assert run(np.zeros(3)).sum() == 0
    lost.set()
    with ThreadPoolExecutor(2) as pool:
        assert [output.sum() for output in pool.map(run, [np.zeros(3), np.zeros(2)])] == [3, 2]
    assert len(taken) == len(caplog.records) == 1


def test_what_fails_on_the_cpu_afterwards_is_an_error():
    def fail(values, beam):
        raise LOST

    answers = iter([lambda values, beam: values, fail])
    run = ResilientRun(
        "net", "gpu", lambda *values, beam: next(answers)(*values, beam=beam), True, lambda: fail
    )
    run(np.zeros(3))
    with pytest.raises(DeviceError, match="net: failed on the CPU, after gpu"):
        run(np.zeros(3))
