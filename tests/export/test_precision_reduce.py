"""A float32 artifact is reduced, or refused with figures."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import onnx
import pytest

from ptychonnx.export.artifact.graph_variants import counts_input, fix_batch
from ptychonnx.export.artifact.reduce_artifact import reduce_artifact
from ptychonnx.export.portability import require
from ptychonnx.harness.evaluation.precision_gate import AllowedDecrease, PrecisionGate
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.progress import Callback, ProgressUpdate
from ptychonnx.runtime.scan import Scan
from tests.export.small_network import contract_of, scan_of_noise, small_network, write_artifact

PRECISIONS = ["fp16", "int8"]
COUNTS = {"domain": "counts", "dtype": "uint16", "scale": 0.05, "scale_rule": "a guess"}

PARITY = {
    "max_relative_error": 1e-6,
    "rms_relative_error": 1e-7,
    "tolerance": 1e-4,
    "batches": [1],
    "patterns": "some",
    "engine": "onnxruntime",
}


@pytest.fixture(scope="module")
def scan():
    return scan_of_noise()


@pytest.fixture
def parent(tmp_path):
    return write_artifact(tmp_path / "parent.onnx", small_network())


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_reduced_artifact_has_a_contract_and_reconstructs_alike(precision, scan, tmp_path):
    parent = write_artifact(tmp_path / "parent.onnx", small_network(), contract_of("parent", parity=PARITY))
    out = tmp_path / "models" / "reduced.onnx"
    result = reduce_artifact(parent, out, precision, scan, PrecisionGate(scan))
    session = Session(out, "cpu")
    contract = session.contract
    assert contract == result.contract
    assert (contract.conversion.precision, contract.conversion.float_layers) == (precision, [])
    assert contract.graph_sha256 != contract.quality.parent_sha256
    assert (
        contract.quality.scan == "noise.npz, 25 patterns, against the reconstruction of the float32 artifact"
    )
    assert set(contract.quality.allowed_fall) == set(contract.quality.parent)
    assert contract.quality.artifact["phase_pearson"] > 0.995
    # Figures of the parent against the network it was made from are not those of this one.
    assert contract.parity is None
    assert contract.weights is None
    inputs = scan.diffraction[:3, None]
    expected = Session(parent, "cpu").predict(inputs)
    assert 0 < np.abs(session.predict(inputs) - expected).max() < 0.1 * np.abs(expected).max()
    assert [path.name for path in out.parent.iterdir()] == ["reduced.onnx"]
    text = "\n".join(result.lines())
    assert f"{precision} in 3 of 3 layers" in text
    assert "may fall by 0.005" in text


@pytest.mark.parametrize(("precision", "trap"), [("fp16", "overflow"), ("int8", "outlier")])
def test_the_one_layer_that_degrades_stays_in_float_and_is_named(precision, trap, scan, tmp_path):
    parent = write_artifact(tmp_path / "parent.onnx", small_network(trap))
    updates = []
    result = reduce_artifact(
        parent,
        tmp_path / "reduced.onnx",
        precision,
        scan,
        PrecisionGate(scan),
        progress=Callback(updates.append),
    )
    assert result.contract.conversion.float_layers == ["second"]
    text = "\n".join(result.lines())
    assert f"{precision} in 2 of 3 layers" in text
    assert "second (second.weight) stays in float32: its reduction alone" in text
    assert ProgressUpdate("Measuring the sensitivity of layers", 3, 3, "layers") in updates


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_precision_that_every_layer_fails_is_refused_with_figures_and_keeps_the_old_file(
    precision, parent, scan, tmp_path
):
    out = tmp_path / "out" / "reduced.onnx"
    out.parent.mkdir()
    out.write_text("the old one")
    gate = PrecisionGate(scan, AllowedDecrease(pearson=0, ssim=0, frc_cutoff=0))
    with pytest.raises(
        VerificationError,
        match=rf"^{precision}: refused even with 2 of 3 layers .* ssim fell by .* allowed 0",
    ):
        reduce_artifact(parent, out, precision, scan, gate)
    assert list(out.parent.iterdir()) == [out]
    assert out.read_text() == "the old one"


@pytest.mark.parametrize("precision", PRECISIONS)
def test_counts_and_a_fixed_batch_are_kept(precision, scan, tmp_path):
    contract = contract_of("counts", input=COUNTS, batch=4)
    model = fix_batch(counts_input(small_network()), 4)
    parent = write_artifact(tmp_path / "parent.onnx", model, contract)
    result = reduce_artifact(parent, tmp_path / "reduced.onnx", precision, scan, PrecisionGate(scan))
    assert result.contract.input.dtype == "uint16"
    assert result.contract.batch == 4
    graph = onnx.load(result.path).graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT16
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_value == 4


@pytest.mark.parametrize(("precision", "can", "cannot"), [("fp16", "cuda", "cpu"), ("int8", "cpu", "cuda")])
def test_a_required_target_must_run_the_reduced_graph_and_not_only_its_parent(
    precision, can, cannot, parent, scan, tmp_path
):
    out = tmp_path / "reduced.onnx"
    for target in (can, cannot):
        require(onnx.load(parent), target)
    with pytest.raises(VerificationError, match=f"^{cannot}: node .* would not run there"):
        reduce_artifact(parent, out, precision, scan, PrecisionGate(scan), require=(can, cannot))
    assert not out.exists()
    reduce_artifact(parent, out, precision, scan, PrecisionGate(scan), require=(can,))


def test_the_same_inputs_give_the_same_bytes_in_another_process(parent, scan, tmp_path):
    np.savez(tmp_path / "scan.npz", diffraction=scan.diffraction, positions=scan.positions)
    program = (
        "import sys, numpy as np\n"
        "from ptychonnx.export.artifact.reduce_artifact import reduce_artifact\n"
        "from ptychonnx.harness.evaluation.precision_gate import PrecisionGate\n"
        "from ptychonnx.runtime.scan.scan import Scan\n"
        "found = np.load(sys.argv[1] + '/scan.npz')\n"
        "scan = Scan(found['diffraction'], found['positions'], name='noise.npz')\n"
        "for precision in ('fp16', 'int8'):\n"
        "    out = f'{sys.argv[1]}/{sys.argv[2]}_{precision}.onnx'\n"
        "    reduce_artifact(sys.argv[1] + '/parent.onnx', out, precision, scan, PrecisionGate(scan))\n"
    )
    for seed in "12":
        # The order of sets of strings depends on it.
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program, str(tmp_path), seed]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        assert (done.stdout, done.stderr) == ("", "")
    for precision in PRECISIONS:
        first, second = ((tmp_path / f"{seed}_{precision}.onnx").read_bytes() for seed in "12")
        assert first == second
        assert str(tmp_path).encode() not in first


def test_bad_requests_are_refused(parent, scan, tmp_path):
    out = tmp_path / "out.onnx"
    gate = PrecisionGate(scan)
    with pytest.raises(InputError, match=r"ends in \.onnx"):
        reduce_artifact(parent, tmp_path / "out.bin", "fp16", scan, gate)
    with pytest.raises(InputError, match="patterns is 0"):
        reduce_artifact(parent, out, "fp16", scan, gate, patterns=0)
    wide = Scan(np.ones((4, 32, 32), dtype=np.float32), np.zeros((4, 2)), name="wide.npz")
    with pytest.raises(InputError, match=r"wide\.npz: patterns are 32 x 32"):
        reduce_artifact(parent, out, "fp16", wide, gate)
    reduced = reduce_artifact(parent, tmp_path / "half.onnx", "fp16", scan, gate)
    with pytest.raises(InputError, match="is fp16 already"):
        reduce_artifact(reduced.path, out, "int8", scan, gate)
    assert not out.exists()


def test_a_parent_that_does_not_work_is_refused(scan, tmp_path):
    model = small_network()
    for tensor in model.graph.initializer:
        if tensor.name == "second.bias":
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.full(4, np.nan, dtype=np.float32), tensor.name))
    parent = write_artifact(tmp_path / "parent.onnx", model)
    with pytest.raises(InputError, match=r"returns NaN or infinity for noise\.npz"):
        reduce_artifact(parent, tmp_path / "out.onnx", "int8", scan, PrecisionGate(scan))
