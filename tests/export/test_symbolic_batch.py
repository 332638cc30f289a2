"""Functions of torch that fix the batch while torch traces them are exported for any batch."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

from torch import fft, nn  # noqa: E402

from ptychonnx.export.artifact.export_module import ModuleInput, export_module  # noqa: E402
from ptychonnx.runtime.errors import InputError  # noqa: E402

MATRIX = torch.tensor([[1.0, -2.0], [0.5, 3.0]])


class KeepsBatch(nn.Module):
    def forward(self, x):
        spectrum = fft.fft(x)
        ranks = x.argsort(-1)
        return {
            "kron": torch.kron(x, MATRIX),
            "complex_kron": torch.kron(spectrum[:, 0], MATRIX.to(torch.complex64)),
            "along": torch.take_along_dim(x, ranks, -1),
            "along_constant": x.take_along_dim(torch.tensor([[[2, 0, 1]]]), 2),
            "along_flat": torch.take_along_dim(x, ranks),
            "steps": x.diff(dim=-2),
            "centred": spectrum - spectrum.mean(0, keepdim=True),
            "mean": spectrum.mean(),
            "three": torch.einsum("bij,jk,kl->bil", x[..., :2], MATRIX, MATRIX),
        }


def test_modules_that_mix_or_index_the_batch_are_exported_for_any_batch(tmp_path):
    """Exact comparison at other batches than those of the export and of its verification."""
    out, module = tmp_path / "batch.onnx", KeepsBatch()
    result = export_module(module, [ModuleInput((4, 3))], out)
    assert "every output depends on the whole batch" in "\n".join(result.verdict())
    session = ort.InferenceSession(out, providers=["CPUExecutionProvider"])
    for batch in (1, 7):
        x = np.random.default_rng(batch).normal(size=(batch, 4, 3)).astype(np.float32)
        names = [value.name for value in session.get_outputs()]
        outputs = dict(zip(names, session.run(None, {"x": x}), strict=True))
        for name, expected in module(torch.from_numpy(x)).items():
            real = torch.view_as_real(expected) if expected.is_complex() else expected
            np.testing.assert_allclose(outputs[name], real.numpy(), rtol=0, atol=2e-5, err_msg=name)


class FixedIndex(nn.Module):
    def forward(self, x):
        y = x.clone()
        y[torch.tensor([0, 1])] = 0
        return y


def test_a_module_that_does_not_run_in_a_batch_of_one_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(InputError, match=r"does not run in a batch of one: index 1 .*; --batch N exports"):
        export_module(FixedIndex(), [ModuleInput((3,))], tmp_path / "fixed.onnx")


def test_elements_that_do_not_depend_on_each_other_bring_no_remark(tmp_path):
    result = export_module(nn.Linear(3, 2), [ModuleInput((3,))], tmp_path / "linear.onnx")
    assert not [line for line in result.verdict() if "whole batch" in line]
