"""Results are never silently wrong: patches that are not finite, and artifacts that were changed, are refused."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import helper

from ptychonnx.runtime.contract import CONTRACT_KEY
from ptychonnx.runtime.contract.integrity import (
    CONTRACT_HASH_KEY,
    check_model_file,
    contract_sha256,
    graph_sha256,
    stored_contract,
)
from ptychonnx.runtime.errors import InputError, PtychonnxError, VerificationError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows
from ptychonnx.runtime.validation import checked
from tests.runtime.test_session import SIZE, contract, write_identity

ROOT = Path(__file__).resolve().parents[2]

SKIP = ReconstructOptions(skip_invalid=True)


@pytest.fixture
def oracle(truth, positions) -> Scan:
    return Scan(cut_windows(np.abs(truth), positions, SIZE), positions, name="oracle")


@pytest.mark.parametrize("gridsize", [1, 2])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_patch_that_is_not_finite_ends_the_reconstruction_with_its_number(
    tmp_path, oracle, value, gridsize
):
    session = Session(write_identity(tmp_path / "i.onnx", contract(gridsize), gridsize))
    reconstruct(session, oracle, batch=3)
    oracle.diffraction[13, 4, 5] = value
    with pytest.raises(VerificationError, match=r"i\.onnx: the patch of pattern 13 of oracle is not finite"):
        reconstruct(session, oracle, batch=3)


def test_invalid_patches_can_be_left_out_and_are_named(tmp_path, oracle):
    session = Session(write_identity(tmp_path / "i.onnx", contract()))
    keep = np.delete(np.arange(len(oracle)), [3, 13])
    expected = reconstruct(session, oracle.subset(keep)).stitched
    assert reconstruct(session, oracle, SKIP).skipped == ()
    oracle.diffraction[[3, 13], 4, 5] = np.nan
    result = reconstruct(session, oracle, SKIP, batch=3)
    assert result.skipped == (3, 13)
    covered = result.stitched.covered
    assert np.isfinite(result.stitched.object).all()
    assert covered.sum() == expected.covered.sum()
    np.testing.assert_allclose(result.stitched.object[covered], expected.object[expected.covered], rtol=1e-6)
    oracle.diffraction[:] = np.nan
    with pytest.raises(VerificationError, match="no patch of oracle is finite"):
        reconstruct(session, oracle, SKIP)


def test_values_whose_sum_overflows_are_finite(tmp_path, oracle):
    session = Session(write_identity(tmp_path / "i.onnx", contract()))
    oracle.diffraction[5] = 3e38
    assert reconstruct(session, oracle, batch=3).patterns == 20


def published(path: Path) -> Path:
    """An artifact with both hashes, as the exporter stamps it."""
    write_identity(path, None)
    model = onnx.load(path)
    text = contract(graph_sha256=graph_sha256(model)).to_json()
    helper.set_model_props(model, {CONTRACT_KEY: text, CONTRACT_HASH_KEY: contract_sha256(text)})
    onnx.save(model, path)
    return path


def test_a_flipped_bit_is_refused_wherever_it_is(tmp_path):
    good = published(tmp_path / "good.onnx").read_bytes()
    assert Session(tmp_path / "good.onnx").contract.label == "pinn_identity"
    bad = tmp_path / "bad.onnx"
    for bit in range(0, 8 * len(good), 11):
        content = bytearray(good)
        content[bit // 8] ^= 1 << bit % 8
        bad.write_bytes(content)
        with pytest.raises(PtychonnxError):
            stored_contract(bad, check_model_file(bad))


@pytest.mark.parametrize("name", ["pinn_cnn", "baseline"])
def test_a_flipped_bit_of_a_weight_is_refused_when_the_artifact_is_loaded(tmp_path, name):
    content = bytearray((ROOT / "zoo" / f"{name}.onnx").read_bytes())
    weights = max(onnx.load(ROOT / "zoo" / f"{name}.onnx").graph.initializer, key=lambda t: len(t.raw_data))
    start = bytes(content).index(weights.raw_data)
    for place in np.random.default_rng(0).integers(0, len(weights.raw_data), 5):
        damaged = bytearray(content)
        damaged[start + place] ^= 0x40
        (tmp_path / "m.onnx").write_bytes(damaged)
        with pytest.raises(VerificationError, match=r"m\.onnx: graph: was changed after it was published"):
            Session(tmp_path / "m.onnx")


def test_a_contract_that_was_changed_is_refused(tmp_path):
    path = published(tmp_path / "m.onnx")
    model = onnx.load(path)
    stamp = {entry.key: entry.value for entry in model.metadata_props}
    changes = {
        "contract": stamp | {CONTRACT_KEY: stamp[CONTRACT_KEY].replace("pinn_identity", "pinn_other")},
        "expected 000000": stamp | {CONTRACT_HASH_KEY: "0" * 64},
        "none is stored": {CONTRACT_KEY: stamp[CONTRACT_KEY]},
    }
    for message, metadata in changes.items():
        helper.set_model_props(model, metadata)
        onnx.save(model, path)
        with pytest.raises(VerificationError, match=message):
            Session(path)
    helper.set_model_props(model, {})
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"no ptychonnx\.contract"):
        Session(path)


@pytest.fixture
def server_runtime(monkeypatch) -> ModuleType:
    """The MLServer runtime, without MLServer."""
    for name in ("mlserver", "mlserver.codecs", "mlserver.errors", "mlserver.types", "mlserver.utils"):
        module = ModuleType(name)
        module.__getattr__ = lambda _: object  # type: ignore[method-assign]
        monkeypatch.setitem(sys.modules, name, module)
    place = ROOT / "export" / "deploy" / "ptychonnx_mlserver.py"
    spec = importlib.util.spec_from_file_location("server_runtime", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_mlserver_runtime_refuses_a_changed_artifact_too(tmp_path, server_runtime):
    def check(path):
        metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        server_runtime.check_hashes(path, metadata)

    for path in sorted((ROOT / "zoo").glob("*.onnx")):
        check(path)
    path = published(tmp_path / "m.onnx")
    check(path)
    good = path.read_bytes()
    path.write_bytes(good.replace(b"Identity", b"Identitz", 1))
    with pytest.raises(RuntimeError, match="graph was changed"):
        check(path)
    path.write_bytes(good.replace(b"pinn_identity", b"pinn_identitz"))
    with pytest.raises(RuntimeError, match="contract was changed"):
        check(path)


@pytest.mark.parametrize("value", [float("inf"), float("nan"), -1.0])
def test_a_limit_of_memory_that_is_no_number_is_refused(value):
    with pytest.raises(InputError, match="canvas_memory"):
        checked(ReconstructOptions, {"canvas_memory": value})
