"""`ptychonnx deploy` on the command line: what is written, and what is refused with one line."""

from __future__ import annotations

import pytest

pytest.importorskip("tritonclient.grpc")

from tests.export.deployed import artifact, files_of


@pytest.fixture
def small(tmp_path):
    return artifact(tmp_path / "models" / "small.onnx")


TARGETS = {
    "triton": [],
    "openvino": [],
    "mlserver": [],
    "kserve": ["--storage-uri", "s3://bucket/models"],
}


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_writes_appends_and_prunes(run, small, tmp_path, target):
    root = tmp_path / "repo"
    command = ["deploy", target, small, "--repository", root, *TARGETS[target]]
    code, text, err = run(*command)
    assert code == 0, err
    assert f"write   {root / 'small' / '1' / 'model.onnx'}" in text
    assert "small/1/model.onnx" in files_of(root)
    code, _, err = run(*command)
    assert code == 2
    assert (
        err == f"Checking artifacts\nError: {root / 'small'}: exists already, its newest version is 1; "
        "--append-version adds one\n"
    )
    code, text, err = run(*command, "--append-version", "--prune", 1)
    assert code == 0, err
    assert f"remove  {root / 'small' / '1'}" in text
    assert {name for name in files_of(root) if name.endswith(".onnx")} == {"small/2/model.onnx"}


@pytest.mark.parametrize("target", TARGETS)
def test_a_dry_run_says_the_same_and_writes_nothing(run, small, tmp_path, target):
    root = tmp_path / "repo"
    command = ["deploy", target, small, "--repository", root, *TARGETS[target]]
    code, dry, err = run(*command, "--dry-run")
    assert code == 0, err
    assert not root.exists()
    _, text, _ = run(*command)
    assert dry == text + "Nothing was written: --dry-run.\n"


@pytest.mark.parametrize("target", TARGETS)
def test_one_bad_artifact_stops_all(run, small, tmp_path, target):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    root = tmp_path / "repo"
    command = ["deploy", target, small, tmp_path / "bad.onnx", "--repository", root, *TARGETS[target]]
    code, text, err = run(*command)
    assert (code, text) == (2, "")
    stage, error = err.splitlines()
    assert stage == "Checking artifacts"
    assert error.startswith("Error: ")
    assert not root.exists()


def test_a_changed_artifact_has_exit_code_1(run, tmp_path):
    path = artifact(tmp_path / "small.onnx", graph_sha256="0" * 64)
    code, _, err = run("deploy", "triton", path, "--repository", tmp_path / "repo")
    assert code == 1
    assert "graph: was changed" in err
    assert not (tmp_path / "repo").exists()


@pytest.mark.parametrize(
    ("target", "options", "reason"),
    [
        ("triton", ["--accelerator", "tensorrt"], "expected --device gpu"),
        ("triton", ["--max-batch", "0"], "--max-batch 0: expected"),
        ("triton", ["--preferred-batch", "0"], "--preferred-batch 0: expected"),
        ("triton", ["--instances", "0"], "--instances 0: expected"),
        ("triton", ["--queue-delay", "-1"], "--queue-delay -1: expected"),
        (
            "triton",
            ["--device", "gpu", "--accelerator", "tensorrt", "--engine-cache", "cache"],
            "expected an absolute path on the server",
        ),
        ("openvino", ["--prune", "2"], "expected --append-version"),
        ("mlserver", ["--http-port", "0"], "--http-port 0: expected"),
        ("kserve", ["--storage-uri", "bucket"], "--storage-uri bucket: expected text of the form ^[a-z]"),
    ],
)
def test_bad_options_are_refused_with_one_line(run, small, tmp_path, target, options, reason):
    code, _, err = run("deploy", target, small, "--repository", tmp_path / "repo", *options)
    assert code == 2
    assert reason in err
    assert err.count("\n") == 1
    assert not (tmp_path / "repo").exists()


def test_the_help_names_every_target(run):
    _, text, _ = run("deploy", "--help")
    assert all(target in text for target in TARGETS)
    for target in TARGETS:
        assert "Example:" in run("deploy", target, "--help")[1]
