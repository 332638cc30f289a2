"""`ptychonnx export-module` on the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("neuralop")
pytest.importorskip("lightning")
torch = pytest.importorskip("torch")

from ptychonnx.export.verification.engines import open_onnxruntime  # noqa: E402

EXAMPLE = Path(__file__).parents[2] / "examples" / "fno.py"

SOURCE = """
import torch

def linear():
    return torch.nn.Linear(3, 2)

class LowPass(torch.nn.Module):
    def forward(self, x):
        return torch.fft.irfft(torch.fft.rfft(x)[..., :3], n=x.shape[-1])

def Two():
    class Two(torch.nn.Module):
        def forward(self, a, b):
            return a + b
    return Two()
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "src" / "net.py"
    path.parent.mkdir()
    path.write_text(SOURCE)
    return path


def test_the_example_is_exported_verified_and_inspected(run, tmp_path):
    out = tmp_path / "fno.onnx"
    code, text, err = run("export-module", f"{EXAMPLE}:build", "--shape", "1,32,32", "--out", out)
    assert code == 0, err
    assert "onnxruntime" in text
    assert "agrees in all 12 cases" in text
    assert "4 layers" in text
    names = {"fno.onnx", "fno.verification.json", "fno.verification.txt"}
    assert {path.name for path in tmp_path.iterdir()} == names
    code, text, _ = run("inspect", out)
    assert code == 0
    assert "x: float [batch, 1, 32, 32]" in text
    assert "fno.py:build" in text
    assert str(EXAMPLE.parent) not in text
    code, text, _ = run("inspect", "--verify", out)
    assert (code, text.count(" ok ")) == (0, 3)


def test_weights_are_those_of_the_file(run, source, tmp_path):
    trained = torch.nn.Linear(3, 2)
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    out = tmp_path / "net.onnx"
    code, _, err = run(
        "export-module", f"{source}:linear", "--shape", "3", "--weights", tmp_path / "w.pt", "--out", out
    )
    assert code == 0, err
    x = np.ones((2, 3), np.float32)
    found = open_onnxruntime(out.read_bytes())(x)
    np.testing.assert_allclose(found, trained(torch.from_numpy(x)).detach().numpy(), rtol=1e-6)


def test_names_are_printed_as_they_are(run, source, tmp_path):
    code, text, _ = run(
        "export-module", f"{source}:Two", "--shape", "3", "--shape", "3", "--out", tmp_path / "two.onnx"
    )
    assert code == 0
    assert "net.py:Two: 0 parameters" in text


def test_another_size_is_a_file_of_its_own_and_verified(run, source, tmp_path):
    out = tmp_path / "net.onnx"
    code, text, err = run(
        "export-module", f"{source}:LowPass", "--shape", "8", "--shape-also", "11", "--out", out
    )
    assert code == 0, err
    assert text.count("net.py:LowPass: 0 parameters") == text.count("lowering: Fourier transforms") == 2
    for size, path in ((8, out), (11, tmp_path / "net_11.onnx")):
        assert path.with_suffix(".verification.txt").exists()
        x = np.random.default_rng(0).normal(size=(3, size)).astype(np.float32)
        expected = np.fft.irfft(np.fft.rfft(x)[..., :3], n=size)
        np.testing.assert_allclose(open_onnxruntime(path.read_bytes())(x), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("linear", ["--shape", "3,x"], "--shape 3,x: expected sizes such as 1,64,64"),
        ("linear", ["--shape", "0"], "--shape 0: expected sizes"),
        ("linear", ["--shape", "3:float8"], "--shape 3:float8: expected sizes"),
        ("linear", ["--shape", "3:0..4"], "--shape 3:0..4: bounds are for integers"),
        ("linear", ["--shape", "3", "--shape-also", "3,3;4"], "expected the sizes of 1 inputs"),
        ("linear", ["--shape", "3", "--shape-also", "3"], "--shape-also 3: is the size of --shape"),
        ("linear", ["--shape", "3", "--arg", "width"], "--arg width: expected NAME=VALUE"),
        ("linear", ["--shape", "3", "--arg", "width=3"], "net.py:linear: takes ()"),
        ("linear", [], "a torch module does not say what it takes: expected --shape"),
        ("linear", ["--shape", "y=3"], "the module takes input, got y"),
        ("linear", ["--example", "gone.npz"], "gone.npz: no such file"),
        ("linear", ["--shape", "4"], "does not run on inputs of shape [2, 4]"),
        ("absent", ["--shape", "3"], "defines no 'absent'"),
        ("linear", ["--shape", "3", "--weights", "gone.pt"], "gone.pt: no such file"),
        ("linear", ["--shape", "3", "--require", "tpu"], "--require tpu: expected 'cpu', 'cuda'"),
    ],
)
def test_bad_requests_get_one_line_and_leave_nothing(name, options, reason, run, source, tmp_path):
    out = tmp_path / "out" / "net.onnx"
    code, text, err = run("export-module", f"{source}:{name}", *options, "--out", out)
    assert (code, text) == (2, "")
    assert reason in err
    stages = ("Loading ", "Running ", "Converting ")
    assert [line for line in err.splitlines() if not line.startswith(stages)] == [err.splitlines()[-1]]
    assert not out.parent.exists()
