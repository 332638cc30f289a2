"""What `ptychonnx inspect` and `ptychonnx sign` print, and their exit codes."""

from __future__ import annotations

import json
import shutil
import subprocess
from functools import partial
from pathlib import Path

import onnx
import pytest
from onnx import helper

from ptychonnx.export.artifact.module_description import MODULE_KEY
from ptychonnx.export.artifact.publication import publish
from ptychonnx.runtime.contract import CONTRACT_KEY, Quality
from ptychonnx.runtime.contract.integrity import MAX_BYTES_VARIABLE, graph_sha256
from tests.export.small_network import contract_of, small_network

HASHES = ["contract", "graph", "reference input", "reference output"]


@pytest.fixture
def run(run):
    """The command line on a terminal of 100 columns."""
    return partial(run, columns=100)


def published(path: Path, **changes) -> Path:
    publish(small_network(), contract_of("small", **changes), path)
    return path


@pytest.fixture
def artifact(tmp_path) -> Path:
    return published(tmp_path / "small.onnx")


def conversion(**changes):
    return {
        "exporter": "onnx.helper",
        "opset": 20,
        "ir_version": 10,
        "lowering": "none",
        "passes": [],
    } | changes


def row(text, operator):
    """Cells of the table's row of an operator."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"│ {operator} "))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_operators_are_shown_before_and_after_and_where_they_run(run, tmp_path):
    before = {"Conv": 3, "Tile": 2}
    path = published(tmp_path / "small.onnx", conversion=conversion(operators_before=before))
    code, text, err = run("inspect", "--provider", "cpu", path)
    assert (code, err) == (0, "")
    assert row(text, "Conv")[:3] == ["Conv", "3", "3"]
    assert row(text, "Tile")[1:4] == ["2", "", ""]
    assert row(text, "MaxPool")[1:4] == ["", "1", "1"]
    assert row(text, "MaxPool")[4:] == ["yes"] * 4
    assert row(text, "all")[1:3] == ["5", str(len(small_network().graph.node))]
    assert max(len(line) for line in text.splitlines() if line.startswith("│")) <= 100
    assert "Looked up in the operator lists of cpu: onnxruntime's CPUExecutionProvider 1." in text


def test_an_operator_that_a_target_lacks_is_named_with_the_reason(run, tmp_path):
    model = small_network()
    # TensorRT and the CUDA provider have no Det; it takes the place of nothing in the network.
    model.graph.node.append(helper.make_node("Det", ["diffraction"], ["unused"], name="determinant"))
    path = tmp_path / "small.onnx"
    publish(model, contract_of("small"), path)
    code, text, _ = run("inspect", path)
    assert code == 0
    assert "no" in row(text, "Det")[4:]
    assert "no" in row(text, "all")[4:]
    assert " has no Det (1 node)" in text


def test_precision_quality_and_batch_are_shown(run, tmp_path):
    figures = {"amplitude_ssim": 0.91}
    quality = Quality(
        parent_sha256="0" * 64,
        scan="noise.npz",
        parent=figures,
        artifact={"amplitude_ssim": 0.905},
        allowed_fall={"amplitude_ssim": 0.01},
    )
    path = published(
        tmp_path / "small.onnx",
        conversion=conversion(precision="fp16", float_layers=["second"]),
        quality=quality.model_dump(),
    )
    code, text, _ = run("inspect", path)
    assert code == 0
    assert "fp16, in float32: second" in text
    assert "0.9100 -> 0.9050 (may fall by 0.01)" in text
    assert "[batch, 1, 16, 16]" in text


def test_verify_says_what_was_checked(run, artifact):
    code, text, err = run("inspect", "--verify", artifact)
    assert (code, err) == (0, "")
    lines = text.splitlines()
    assert [line[:24].strip() for line in lines] == HASHES
    assert all(line[24:].strip().startswith("ok ") for line in lines)


def change_contract(path: Path, old: str, new: str) -> None:
    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key == CONTRACT_KEY:
            assert old in entry.value
            entry.value = entry.value.replace(old, new)
    onnx.save(model, path)


def test_verify_fails_on_a_changed_artifact_with_one_line(run, artifact):
    change_contract(artifact, '"scale": 0.05', '"scale": 0.50')
    code, text, err = run("inspect", "--verify", artifact)
    assert code == 1
    assert text.split() == ["contract", "DIFFERS", *text.split()[2:]]
    assert "ok" not in text
    assert err.startswith(f"Verification failed: {artifact}: contract: was changed")
    assert err.count("\n") == 1


def test_an_unsafe_file_is_refused_by_every_command(run, artifact, monkeypatch):
    monkeypatch.setenv(MAX_BYTES_VARIABLE, "100")
    for command in (["inspect"], ["inspect", "--verify"], ["sign", "--key", "key.pem"]):
        code, text, err = run(*command, artifact)
        assert (code, text) == (2, "")
        assert f"bytes, expected at most 100 ({MAX_BYTES_VARIABLE} raises it)" in err


def test_a_key_without_verify_is_a_mistake(run, artifact):
    code, _, err = run("inspect", artifact, "--public-key", "key.pub")
    assert code == 2
    assert "expected --verify with it" in err


def test_sign_and_verify_from_key_to_refusal(run, artifact, tmp_path):
    pytest.importorskip("model_signing", reason="needs the extra ptychonnx[signing]")
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl to make keys")
    key, public = tmp_path / "key.pem", tmp_path / "key.pub"
    for command in (
        f"openssl ecparam -name prime256v1 -genkey -noout -out {key}",
        f"openssl ec -in {key} -pubout -out {public}",
    ):
        subprocess.run(command.split(), check=True, capture_output=True)
    code, _, err = run("inspect", "--verify", "--public-key", public, artifact)
    assert code == 1
    assert "small.onnx.sig: no such file" in err
    code, text, _ = run("sign", artifact, "--key", key)
    assert (code, text.strip()) == (0, f"{artifact}.sig")
    code, text, _ = run("inspect", "--verify", "--public-key", public, artifact)
    assert code == 0
    assert [line[:24].strip() for line in text.splitlines()] == ["signature", *HASHES]
    change_contract(artifact, '"seed": 1', '"seed": 2')
    code, text, err = run("inspect", "--verify", "--public-key", public, artifact)
    assert (code, text) == (1, "")
    assert "the file was changed after it was signed" in err
    code, _, err = run("sign", artifact, "--key", key)
    assert code == 1
    assert "contract: was changed" in err


def test_json_is_the_contract_alone(run, artifact):
    code, text, _ = run("inspect", "--json", artifact)
    assert code == 0
    assert json.loads(text)["label"] == "small"


def test_sign_has_help_that_tells_how_to_make_a_key(run):
    code, text, _ = run("sign", "--help")
    assert code == 0
    assert "Example" in text
    assert "openssl ecparam -name prime256v1" in text


def test_a_module_without_a_contract_is_described(run, tmp_path):
    path, model = tmp_path / "m.onnx", small_network()
    described = {
        "source": "net.py:build [x]",
        "operators_before": {"Conv": 4},
        "graph_sha256": graph_sha256(model),
    }
    helper.set_model_props(model, {MODULE_KEY: json.dumps(described)})
    onnx.save(model, path)
    code, text, err = run("inspect", path)
    assert (code, err) == (0, "")
    assert "diffraction: float [batch, 1, 16, 16]" in text
    assert "net.py:build [x]" in text
    assert row(text, "Conv") == ["Conv", "4", "3", *["yes"] * 4]
    assert json.loads(run("inspect", "--json", path)[1]).items() >= described.items()
    code, text, _ = run("inspect", "--verify", path)
    assert code == 0
    assert [line.split()[:2] for line in text.splitlines()] == [["graph", "ok"], ["reference", "not"]]
    bare = onnx.load(path)
    del bare.metadata_props[:]
    onnx.save(bare, path)
    for options in ([], ["--verify"]):
        code, _, err = run("inspect", *options, path)
        assert code == 2
        assert "no ptychonnx.contract in its metadata" in err
