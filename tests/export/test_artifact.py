"""A trained run becomes an artifact, and no artifact is published if a check fails."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

pytest.importorskip("onnx_ir")

from onnx import numpy_helper

from ptychonnx.export.artifact.export_options import ExportOptions
from ptychonnx.export.artifact.export_run import export_run
from ptychonnx.export.portability.operator_table import NAMES, require
from ptychonnx.export.verification.denormals import constant_denormals
from ptychonnx.export.verification.report_files import report_text
from ptychonnx.export.verification.verification_report import VerificationReport
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, simulate_scan
from ptychonnx.runtime.contract import CONTRACT_KEY
from ptychonnx.runtime.contract.integrity import CONTRACT_HASH_KEY
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.fitting import train
from ptychonnx.train.registry import architectures, get_architecture
from ptychonnx.train.run import held_out_scan, read_run, write_run
from ptychonnx.train.trained_network import load_network

PACKAGES = {"torch": "lightning", "tensorflow": "tf2onnx"}
# Every registered architecture is tested.
FRAMEWORKS = {name: PACKAGES[architecture.framework] for name, architecture in architectures().items()}
TORCH = [name for name, package in FRAMEWORKS.items() if package == "lightning"]
N = 64


def some_scan(n=N):
    rng = np.random.default_rng(0)
    side = n + 24
    image = 1 - 0.3 * rng.random((side, side)) * np.exp(0.5j * rng.random((side, side)))
    grid = np.stack(np.meshgrid(np.arange(7), np.arange(7), indexing="ij"), -1).reshape(-1, 2)
    positions = (grid * 4 + n // 2).astype(np.float64)
    axis = np.arange(n) - n // 2
    square = axis[:, None] ** 2 + axis[None, :] ** 2
    probe = (20 * np.exp(-square / 60 + 0.02j * square)).astype(np.complex64)[None]
    amplitude = np.sqrt(rng.poisson(forward(cut_windows(image, positions, n), probe) ** 2))
    reference = Reference(image.astype(np.complex64))
    return Scan(amplitude.astype(np.float32), positions, probe, reference=reference, name="tiny")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Trained runs, by architecture; trained once."""
    folder, done = tmp_path_factory.mktemp("runs"), {}

    def run(name):
        pytest.importorskip(FRAMEWORKS[name])
        if name not in done:
            config = NetworkConfig(n=N, width=4, blocks=1, modes=8, first_steps=1, final_steps=1)
            training = TrainingConfig(epochs=2, batch=4, overlap=1, learning_rate=0.02)
            train(some_scan(), get_architecture(name), config, training, folder / name)
            done[name] = folder / name
        return done[name]

    return run


@pytest.fixture(scope="module")
def results(runs, tmp_path_factory):
    """Results of their export, by architecture; exported once."""
    done = {}

    def result(name):
        if name not in done:
            done[name] = export_run(runs(name), tmp_path_factory.mktemp(name) / "models" / f"{name}.onnx")
        return done[name]

    return result


AGAIN = ["cnn", "hybrid"]


@pytest.fixture(scope="module")
def again(runs, tmp_path_factory):
    """Folder of second exports, for all targets, by a process that walks sets in another order and needs no trainer."""
    program = (
        "import sys; from pathlib import Path\n"
        "from ptychonnx.export.artifact.export_options import ExportOptions\n"
        "from ptychonnx.export.artifact.export_run import export_run\n"
        "options = ExportOptions(require=('cpu', 'cuda', 'tensorrt', 'openvino'))\n"
        "for run in map(Path, sys.argv[2:]): export_run(run, Path(sys.argv[1], f'{run.name}.onnx'), options)\n"
        "assert not {'lightning', 'torchmetrics'} & set(sys.modules)"
    )
    folder = tmp_path_factory.mktemp("again")
    arguments = [sys.executable, "-c", program, str(folder), *(str(runs(name)) for name in AGAIN)]
    # This process has a seed of its own, by chance unless the environment names it.
    other = "1" if os.environ.get("PYTHONHASHSEED") == "0" else "0"
    subprocess.run(arguments, env=os.environ | {"PYTHONHASHSEED": other}, check=True)
    return folder


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_trained_run_becomes_an_artifact_with_a_complete_contract(name, runs, results):
    run, result = runs(name), results(name)
    out = result.path
    record = read_run(run)
    contract = Session(out, "cpu").contract
    assert contract == result.contract
    assert (contract.label, contract.architecture, contract.n) == (record.label, name, N)
    assert contract.input.scale == record.scale
    assert contract.parity.max_relative_error <= 1e-5
    assert contract.parity.batches == [1, 3, 16]
    assert contract.weights.changed_tensors > 0
    assert contract.weights.trainable_tensors == len(record.trained_tensors)
    # Weights of convolutions of a doubled image are mixed, and those of products with spectra are reordered.
    assert 0 < contract.weights.found_bit_for_bit <= contract.weights.trainable_tensors
    assert contract.weights.initial_output_distance > 1e-4  # ten times the parity above
    assert contract.conversion.passes[-1] == "MetadataRemoval"
    assert ("SpectralConv" in contract.conversion.lowering) == (name in TORCH)
    scan = held_out_scan(run)
    patches = Session(out, "cpu").predict(scan.diffraction[:2, None])
    native = load_network(run, record).predict(scan.diffraction[:2, None])
    assert np.abs(patches[:, 0].real - native[..., 0, 0]).max() < 1e-4
    assert np.abs(patches[:, 0].imag - native[..., 0, 1]).max() < 1e-4
    beside = {f"{name}.verification.json", f"{name}.verification.txt"}
    assert {path.name for path in out.parent.iterdir()} == {out.name, *beside}
    assert contract.conversion.operators_before["Conv"] > 0
    for target in NAMES:
        require(onnx.load(out), target)
    text = "\n".join(result.verdict())
    for words in ("tiny", "batches of 1, 3, 16", "worst element", "bit for bit"):
        assert words in text
    report = VerificationReport.model_validate_json((out.with_suffix(".verification.json")).read_text())
    assert report == result.report
    assert set(report.inputs) == {"held-out", "random", "all-zero", "faint", "bright"}
    assert {case.engine.split()[0] for case in report.cases} >= {"onnxruntime", "onnx"}
    assert not report.failures
    assert report_text(report) == (out.with_suffix(".verification.txt")).read_text()


@pytest.mark.parametrize("name", ["fno", "hybrid", "uno"])
def test_a_network_trained_at_an_odd_size_exports(name, tmp_path):
    pytest.importorskip(FRAMEWORKS[name])
    config = NetworkConfig(n=33, width=4, blocks=1 + (name == "uno"), modes=8, first_steps=1, final_steps=1)
    training = TrainingConfig(epochs=2, batch=4, overlap=1, learning_rate=0.02)
    train(some_scan(33), get_architecture(name), config, training, tmp_path / "run")
    contract = export_run(tmp_path / "run", tmp_path / "odd.onnx").contract
    assert contract.n == 33
    assert contract.parity.max_relative_error <= 1e-5


@pytest.mark.parametrize("name", ["fno", "cnn"])
def test_a_network_of_four_patterns_exports_and_reconstructs(name, tmp_path):
    pytest.importorskip(FRAMEWORKS[name])
    scan = simulate_scan(LinesConfig(n=32, step=4), 8, np.random.SeedSequence(7), "lines")
    config = NetworkConfig(n=32, gridsize=2, width=4, blocks=1, modes=8, first_steps=1, final_steps=1)
    training = TrainingConfig(epochs=2, batch=4, learning_rate=1e-2)
    train(scan, get_architecture(name), config, training, tmp_path / "run")
    result = export_run(tmp_path / "run", tmp_path / "four.onnx")
    assert [each.shape for each in result.contract.inputs] == [(4, 32, 32), (4, 2)]
    assert result.contract.stitching.synchronise
    assert set(result.report.inputs) == {"held-out", "random", "all-zero", "faint", "bright"}
    assert result.contract.parity.max_relative_error <= 1e-5
    stitched = reconstruct(Session(result.path, "cpu"), scan).stitched
    start = np.array(stitched.origin).astype(int)
    known = scan.reference.object[start[0] :, start[1] :]
    rows, columns = np.minimum(known.shape, stitched.object.shape)
    known, found, weight = (a[:rows, :columns] for a in (known, stitched.object, stitched.weight))
    lit = weight > np.median(weight)
    # Patches stitched in another order of channels lie a step away, where the object is another one.
    assert np.corrcoef(np.angle(found[lit]), np.angle(known[lit]))[0, 1] > 0.7


@pytest.mark.parametrize("name", ["fno", "cnn", "ffno"])
def test_the_file_holds_no_constant_that_is_negligible(name, results):
    count = constant_denormals(onnx.load(results(name).path))
    assert (count.denormal, count.negligible) == (0, 0)


@pytest.mark.parametrize("name", AGAIN)
def test_the_file_is_the_same_in_a_process_that_walks_sets_in_another_order(name, again, results):
    assert (again / f"{name}.onnx").read_bytes() == results(name).path.read_bytes()


@pytest.mark.parametrize("name", ["fno", "baseline", "cnn", "hybrid"])
def test_the_file_holds_no_path(name, runs, results):
    path = results(name).path
    data = path.read_bytes()
    places = {Path.cwd(), Path.home(), Path(sys.prefix), Path(sys.base_prefix), path.parent, runs(name)}
    for trace in {str(place).encode() for place in places if len(place.parts) > 1}:
        assert trace not in data
    assert b"site-packages" not in data
    assert b"stack_trace" not in data
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert sorted(metadata) == [CONTRACT_KEY, CONTRACT_HASH_KEY]
    contract = json.loads(metadata[CONTRACT_KEY])
    del model.metadata_props[:]
    # What is left is structure and names.
    assert "/" not in str(model)
    assert not [text for text in json.dumps(contract).split('"') if text.startswith("/")]


def sabotage(monkeypatch, framework, change):
    """Change the graph between converter and verification."""
    module = importlib.import_module(f"ptychonnx.export.lowering.{framework}.convert")
    convert = module.convert_network

    def changed(network, example, **settings):
        converted = convert(network, example, **settings)
        model = onnx.ModelProto()
        model.CopyFrom(converted.model)
        change(model)
        return replace(converted, model=model)

    monkeypatch.setattr(module, "convert_network", changed)


def spoil_one_weight(model):
    tensor = next(entry for entry in model.graph.initializer if entry.name.endswith("project.weight"))
    values = numpy_helper.to_array(tensor).copy()
    values.flat[0] += 0.1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def test_one_spoilt_weight_keeps_the_old_file(runs, tmp_path, monkeypatch):
    runs("fno")
    sabotage(monkeypatch, "torch", spoil_one_weight)
    out = tmp_path / "fno.onnx"
    out.write_text("the old one")
    said = (
        r"^parity: .* worst element .*; the first layer that differs is network.head.project; .*refused.txt"
    )
    with pytest.raises(VerificationError, match=said):
        export_run(runs("fno"), out)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "fno.onnx",
        "fno.refused.json",
        "fno.refused.txt",
    ]
    assert out.read_text() == "the old one"
    assert (
        "the first layer that differs is network.head.project" in (tmp_path / "fno.refused.txt").read_text()
    )
    monkeypatch.undo()
    export_run(runs("fno"), out)
    assert not list(tmp_path.glob("*.refused.*"))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fno", {"input": "counts", "batch": 3}),
        ("baseline", {"input": "counts"}),
        ("cnn", {"batch": 2, "opset": 18}),
        ("hybrid", {"opset": 21}),
    ],
)
def test_variants_answer_like_the_trained_network(name, options, runs, tmp_path):
    out = tmp_path / f"{name}.onnx"
    contract = export_run(runs(name), out, ExportOptions(**options)).contract
    counts = options.get("input") == "counts"
    assert contract.input.dtype == ("uint16" if counts else "float32")
    assert contract.batch == options.get("batch")
    assert contract.conversion.opset == options.get("opset", 20)
    scan = held_out_scan(runs(name))
    native = load_network(runs(name), read_run(runs(name))).predict(scan.diffraction[:5, None])
    groups = np.arange(5)[:, None]
    ((_, patches),) = Session(out, "cpu").batches(scan, groups, batch=5)
    assert np.abs(patches[:, 0].real - native[..., 0, 0]).max() < 1e-4
    assert np.abs(patches[:, 0].imag - native[..., 0, 1]).max() < 1e-4


@pytest.mark.parametrize("name", ["cnn", "hybrid"])
def test_the_last_retrieval_steps_are_chosen_at_export(name, runs, results, tmp_path):
    run, steps = runs(name), 4
    trained = results(name)
    more = export_run(run, tmp_path / "more.onnx", final_steps=steps)
    assert (trained.contract.conversion.final_steps, more.contract.conversion.final_steps) == (1, steps)
    # Other steps, the same weights.
    assert more.contract.weights.checkpoint_sha256 == trained.contract.weights.checkpoint_sha256
    scan = some_scan()
    # Without noise, which nothing explains.
    diffraction = forward(cut_windows(scan.reference.object, scan.positions[:5], N), scan.probe)
    diffraction = diffraction.astype(np.float32)
    native = load_network(run, read_run(run).with_final_steps(steps)).predict(diffraction[:, None])
    few, many = (
        Session(path, "cpu").predict(diffraction[:, None])[:, 0] for path in (trained.path, more.path)
    )
    assert np.abs(many - (native[..., 0, 0] + 1j * native[..., 0, 1])).max() < 1e-4
    unexplained = [np.abs(forward(found, scan.probe) - diffraction).mean() for found in (few, many)]
    assert unexplained[1] < 0.95 * unexplained[0]


def test_a_supervised_network_has_no_last_steps_to_choose(runs, results, tmp_path):
    assert results("baseline").contract.conversion.final_steps is None
    with pytest.raises(InputError, match=r"^--final-steps 4: baseline learned from known objects"):
        export_run(runs("baseline"), tmp_path / "baseline.onnx", final_steps=4)
    assert list(tmp_path.iterdir()) == []


def test_an_artifact_that_a_required_target_cannot_run_is_refused(runs, again, tmp_path):
    out = tmp_path / "hybrid.onnx"
    with pytest.raises(VerificationError, match=r"tensorrt.*Cast"):
        export_run(runs("hybrid"), out, ExportOptions(input="counts", require=("cuda", "tensorrt")))
    assert not out.exists()
    assert (again / "hybrid.onnx").is_file()


def test_a_run_that_was_never_trained_is_refused(runs, tmp_path):
    from ptychonnx.train.trained_network import initial_network

    run = shutil.copytree(runs("fno"), tmp_path / "run")
    record = read_run(run)
    initial_network(run, record).save(run)
    out = tmp_path / "out" / "fno.onnx"
    # Even though the record agrees with the checkpoint.
    write_run(run, record.model_copy(update={"trained_tensors": record.initial_tensors}))
    with pytest.raises(VerificationError, match=r"^weights: none of .* was changed by training"):
        export_run(run, out)
    assert not out.exists()


def test_a_run_whose_weights_meant_another_network_is_refused(runs, tmp_path):
    run = shutil.copytree(runs("baseline"), tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    assert config.pop("revision") == 2
    (run / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"run: was trained with revision 1 of the architecture 'baseline'"):
        export_run(run, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_bad_requests_are_refused(runs, tmp_path):
    with pytest.raises(InputError, match=r"no config.json inside"):
        export_run(tmp_path, tmp_path / "a.onnx")
    with pytest.raises(InputError, match=r"ends in \.onnx"):
        export_run(runs("fno"), tmp_path / "a.bin")
    with pytest.raises(InputError, match=r"precision int8 needs a gate"):
        export_run(runs("fno"), tmp_path / "a.onnx", ExportOptions(precision="int8"))
    assert list(tmp_path.iterdir()) == []


def test_importing_the_package_loads_no_framework():
    program = (
        "import sys, ptychonnx.export.artifact.export_run\n"
        "import ptychonnx.export.verification.verdict, ptychonnx.export.verification.verify\n"
        "print({name.split('.')[0] for name in sys.modules} & {'torch', 'tensorflow', 'keras', 'onnx_ir'})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
