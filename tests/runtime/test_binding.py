"""Runs through buffers that are used again."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.data_parallel import SharedRun
from ptychonnx.runtime.inference.io_binding import check_capture
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan import Scan
from tests.runtime.test_session import SIZE, contract, fix_batch, write_identity


@pytest.fixture
def artifact(tmp_path):
    return write_identity(tmp_path / "identity.onnx", contract())


def patterns(n, seed=0, channels=1):
    return np.random.default_rng(seed).random((n, channels, SIZE, SIZE), dtype=np.float32)


@pytest.mark.parametrize("gridsize", [1, 2])
@pytest.mark.parametrize("counts", [False, True])
def test_bound_buffers_give_what_a_plain_run_gives(tmp_path, gridsize, counts):
    domain = {"domain": "counts", "dtype": "uint16", "scale": 1.0, "scale_rule": "none"}
    parts = {"input": domain} if counts else {}
    path = write_identity(tmp_path / "g.onnx", contract(gridsize, **parts), gridsize, counts=counts)
    plain, bound = Session(path, "cpu", bound=False), Session(path, "cpu", bound=True)
    # Sizes come back after others, as the last batch of one scan and the first of the next do.
    for seed, size in enumerate((16, 16, 5, 16, 5, 1, 16)):
        given = patterns(size, seed, gridsize**2)
        given = (1000 * given).astype(np.uint16) if counts else given
        np.testing.assert_array_equal(bound.predict(given), plain.predict(given))


@pytest.mark.parametrize("bound", [False, True])
@pytest.mark.parametrize("fixed", [False, True])
def test_patches_that_a_caller_holds_do_not_change(artifact, bound, fixed):
    if fixed:
        fix_batch(artifact, 4, 4)
    session = Session(artifact, "cpu", bound=bound)
    held = [session.predict(patterns(4, seed)) for seed in range(8)]
    for seed, patches in enumerate(held):
        np.testing.assert_array_equal(patches, patterns(4, seed) * np.complex64(1 + 0.5j))
    given = patterns(4, 99)
    found = session.predict(given)
    given[:] = 0
    assert np.abs(found).max() > 0.9


def test_threads_do_not_mix_their_patches(artifact):
    session = Session(artifact, "cpu", bound=True)

    def ask(seed):
        given = patterns(1 + seed % 3, seed)
        return np.array_equal(session.predict(given), given * np.complex64(1 + 0.5j))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(400)))


def test_a_reconstruction_is_the_same_through_bound_buffers(artifact, truth, positions):
    scan = Scan(patterns(20)[:, 0], positions, name="random")
    plain, bound = (reconstruct(Session(artifact, "cpu", bound=b), scan, batch=7) for b in (False, True))
    np.testing.assert_array_equal(bound.stitched.object, plain.stitched.object)


def test_a_run_is_repeated_on_the_inputs_that_are_in_the_buffers(artifact):
    session = Session(artifact, "cpu", bound=True)
    session.predict(patterns(5))
    assert session.repeat(5)
    assert not Session(artifact, "cpu").repeat(5)


def test_devices_share_each_batch_in_its_order():
    runs = [lambda values, beam, number=number: values + 100 * number for number in range(3)]
    shared = SharedRun(runs)
    np.testing.assert_array_equal(shared(np.arange(7)), [0, 1, 2, 103, 104, 205, 206])
    np.testing.assert_array_equal(shared(np.arange(2)), [0, 1])


def test_the_cpu_runs_without_bound_buffers(artifact):
    assert Session(artifact, "cpu")._bound is None
    assert Session(artifact, "cpu", bound=True)._bound is not None


def test_a_cuda_graph_needs_a_fixed_batch_and_all_operators_on_the_device(artifact):
    on_cpu = Session(artifact, "cpu").placement()
    on_cuda = {"CUDAExecutionProvider": Counter(Conv=3)}
    with pytest.raises(InputError, match=r"net: takes any batch, .*: export it with --batch N"):
        check_capture(contract(), "net", on_cuda)
    with pytest.raises(InputError, match=r"net: .* found Concat, Mul, .* on CPUExecutionProvider"):
        check_capture(contract(batch=4), "net", on_cpu)
    with pytest.raises(InputError, match="found DFT on CPUExecutionProvider"):
        check_capture(contract(batch=4), "net", on_cuda | {"CPUExecutionProvider": Counter(DFT=1)})
    check_capture(contract(batch=4), "net", on_cuda)
