"""A batch that threads share gives what one run gives, each pattern in its place."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest

from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.data_parallel import DataParallelRun, is_worth_splitting
from tests.runtime.test_session import SIZE, contract, write_identity


def patterns(count, dtype=np.float32):
    return np.random.default_rng(count).integers(1, 50, (count, 1, SIZE, SIZE)).astype(dtype)


@pytest.fixture
def artifact(tmp_path):
    return write_identity(tmp_path / "identity.onnx", contract())


@pytest.mark.parametrize(("count", "threads"), [(2, 2), (7, 2), (7, 3), (16, 4), (5, 1)])
def test_every_pattern_is_run_once_and_stays_in_its_place(artifact, count, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(str(artifact), options, providers=["CPUExecutionProvider"])
    given = patterns(count)
    (expected,) = session.run(None, {"diffraction": given})
    np.testing.assert_array_equal(DataParallelRun(session, threads)(given), expected)


def test_a_session_shares_large_batches_and_no_others(artifact, monkeypatch):
    shared = []
    monkeypatch.setattr(
        DataParallelRun,
        "__call__",
        lambda self, x, beam, run=DataParallelRun.__call__: shared.append(len(x)) or run(self, x, beam=beam),
    )
    session, alone = Session(artifact, "cpu", 2), Session(artifact, "cpu", 1)
    for count in (1, 7, 8, 33):
        given = patterns(count)
        # A column of patterns is no contiguous array.
        for each in (given, np.repeat(given, 2, axis=0)[::2]):
            np.testing.assert_array_equal(session.predict(each), alone.predict(each))
            np.testing.assert_array_equal(session.predict(each)[:, 0], given[:, 0] * (1 + 0.5j))
    assert shared == [8] * 4 + [33] * 4
    assert [is_worth_splitting(count, 4) for count in (15, 16)] == [False, True]


def test_every_input_is_shared_alike(tmp_path):
    path = write_identity(tmp_path / "o.onnx", contract(2, offsets={}), 2, offsets=True)
    given = np.random.default_rng(1).random((9, 4, SIZE, SIZE), dtype=np.float32)
    offsets = np.random.default_rng(2).normal(size=(9, 4, 2)).astype(np.float32)
    shared, alone = Session(path, "cpu", 2), Session(path, "cpu", 1)
    np.testing.assert_array_equal(shared.predict(given, offsets), alone.predict(given, offsets))


def test_counts_are_shared_too(tmp_path):
    counting = contract(input={"scale": 1.0, "scale_rule": "none", "domain": "counts", "dtype": "uint16"})
    session = Session(write_identity(tmp_path / "counts.onnx", counting, counts=True), "cpu", 2)
    given = patterns(9, np.uint16)
    np.testing.assert_allclose(session.predict(given)[:, 0].real, np.sqrt(given[:, 0]), rtol=1e-6)


def test_several_callers_do_not_get_each_others_patches(artifact):
    session = Session(artifact, "cpu", 2)
    with ThreadPoolExecutor(4) as callers:
        for given, found in [
            (given, callers.submit(session.predict, given)) for given in map(patterns, range(8, 24))
        ]:
            np.testing.assert_array_equal(found.result()[:, 0].real, given[:, 0])


def test_what_goes_wrong_in_a_part_comes_out(artifact):
    session = ort.InferenceSession(str(artifact), providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match=r"[Dd]imension|shape|INVALID_ARGUMENT"):
        DataParallelRun(session, 2)(np.zeros((8, 1, SIZE, SIZE + 1), np.float32))


@pytest.mark.parametrize("end", ["closed", "forgotten"])
def test_no_thread_outlives_its_session(artifact, end):
    before = set(threading.enumerate())
    session = Session(artifact, "cpu", 2)
    session.predict(patterns(8))
    (thread,) = set(threading.enumerate()) - before
    if end == "closed":
        session.close()
    del session
    thread.join(5)
    assert not thread.is_alive()


def test_a_closed_session_can_be_asked_again(artifact):
    session = Session(artifact, "cpu", 2)
    for _ in range(2):
        assert len(session.predict(patterns(8))) == 8
        session.close()
