"""OpenVINO as a provider: what onnxruntime gives, for any batch and any beam."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.runtime.errors import DeviceError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.openvino_run import _COMPILED_SIZES, has_bfloat16
from tests.runtime.test_session import SIZE, contract, fix_batch, write_identity

pytest.importorskip("openvino")


@pytest.fixture
def artifact(tmp_path):
    return write_identity(tmp_path / "identity.onnx", contract())


def patterns(n, seed=0, side=SIZE):
    return np.random.default_rng(seed).random((n, 1, side, side), dtype=np.float32)


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_of_any_size_give_what_onnxruntime_gives(artifact, threads):
    session = Session(artifact, "openvino", threads)
    held = []
    for size in (16, 5, 8, 7, 1, 16, 20, 3):
        held.append(session.predict(patterns(size, size)))
    for size, patches in zip((16, 5, 8, 7, 1, 16, 20, 3), held, strict=True):
        np.testing.assert_allclose(patches, patterns(size, size) * np.complex64(1 + 0.5j), rtol=1e-6)
    # Sizes beyond the first are filled up, except those larger than all before.
    (compiled,) = session._resilient._run._compiled.values()
    assert set(compiled) == {16, 5, 8, 20}
    assert _COMPILED_SIZES == 3
    assert session.provider == "OpenVINO"
    assert set(session.placement()) == {"OpenVINO"}


def test_a_fixed_batch_is_filled_up(artifact):
    fix_batch(artifact, 4, 4)
    given = patterns(6)
    np.testing.assert_allclose(
        Session(artifact, "openvino").predict(given), given * np.complex64(1 + 0.5j), rtol=1e-6
    )


def test_a_general_network_takes_the_beam_of_a_scan():
    rng = np.random.default_rng(0)
    cpu, session = (Session("zoo:any_64", provider, 1) for provider in ("cpu", "openvino"))
    given = 10 * patterns(2, side=64)
    given.flags.writeable = False  # as in a file that is mapped into memory
    shapes = cpu.contract.beam.shapes(64)
    sizes = {name: [2 if isinstance(axis, str) else axis for axis in shape] for name, shape in shapes.items()}
    beam = {name: rng.random(size, dtype=np.float32) + np.float32(0.5) for name, size in sizes.items()}
    beam["mask"] = np.ones_like(beam["mask"])
    for values in (None, beam, None):
        expected = cpu.predict(given, beam=values)
        found = session.predict(given, beam=values)
        assert np.abs(found - expected).max() < 1e-3 * np.abs(expected).max()
    assert np.abs(cpu.predict(given) - cpu.predict(given, beam=beam)).max() > 1e-2 * np.abs(expected).max()


def test_bfloat16_is_refused_by_a_processor_without_it(artifact, monkeypatch):
    monkeypatch.setattr("ptychonnx.runtime.inference.openvino_run.has_bfloat16", lambda: False)
    with pytest.raises(DeviceError, match="this processor has no bfloat16"):
        Session(artifact, "openvino:bfloat16")


def test_bfloat16_rounds_to_eight_bits(artifact):
    if not has_bfloat16():
        pytest.skip("this processor has no bfloat16")
    session = Session(artifact, "openvino:bfloat16")
    given = patterns(4)
    expected = given * np.complex64(1 + 0.5j)
    assert np.abs(session.predict(given) - expected).max() < 2e-2
    assert session.provider == "OpenVINO, bfloat16"
