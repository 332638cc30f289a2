"""Modules from files and packages, and weights as trainers write them."""

from __future__ import annotations

import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("neuralop")

from torch import nn  # noqa: E402

from ptychonnx.export.artifact.source_loading import load_source, read_arguments  # noqa: E402
from ptychonnx.export.lowering.torch.weights import load_weights  # noqa: E402
from ptychonnx.runtime.errors import InputError  # noqa: E402

NET = """
import torch
from .sizes import WIDTH
{more}

class Net(torch.nn.Linear):
    def __init__(self, width=WIDTH, name="x"):
        super().__init__(3, width)
        self.name = name
"""


@pytest.mark.parametrize("is_package", [True, False])
def test_a_file_may_import_relatively(is_package, tmp_path):
    folder = tmp_path / "outer" / "inner"
    folder.mkdir(parents=True)
    (folder / "net.py").write_text(NET.format(more="from ..far import FAR"))
    (folder / "sizes.py").write_text("WIDTH = 5")
    (tmp_path / "outer" / "far.py").write_text("FAR = 1")
    if is_package:
        for place in (folder, folder.parent):
            (place / "__init__.py").write_text("")
    assert load_source(f"{folder / 'net.py'}:Net").out_features == 5
    assert str(folder) not in sys.path


def test_a_class_gets_arguments_and_a_package_is_imported(tmp_path, monkeypatch):
    (tmp_path / "ourpackage").mkdir()
    (tmp_path / "ourpackage" / "__init__.py").write_text("")
    (tmp_path / "ourpackage" / "sizes.py").write_text("WIDTH = 5")
    (tmp_path / "ourpackage" / "nets.py").write_text(NET.format(more=""))
    monkeypatch.chdir(tmp_path)
    module = load_source("ourpackage.nets:Net", read_arguments(["width=7", "name=a=b"]))
    assert (module.out_features, module.name) == (7, "a=b")
    with pytest.raises(
        InputError, match=r"ourpackage.nets:Net: takes \(width=5.*unexpected keyword.*'depth'"
    ):
        load_source("ourpackage.nets:Net", {"depth": 1})
    with pytest.raises(InputError, match=r"ourpackage.gone: no such module"):
        load_source("ourpackage.gone:Net")


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def prefixed(state, prefix):
    return {f"{prefix}{name}": value for name, value in state.items()}


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (lambda state: state, []),
        (lambda state: {"model_state_dict": state, "epoch": 3}, ["the dictionary 'model_state_dict'"]),
        (lambda state: {"a": {"model": state}, "optimizer": {"state": {}}}, ["the dictionary 'a.model'"]),
        (lambda state: prefixed(state, "backbone.net."), ["without the prefix 'backbone.net.'"]),
        (lambda state: prefixed(state, "module._orig_mod."), ["without the prefix 'module._orig_mod.'"]),
        (
            lambda state: {"state_dict": {**prefixed(state, "model."), "loss.weight": torch.zeros(2)}},
            ["the dictionary 'state_dict' without the prefix 'model.' and without loss.weight"],
        ),
    ],
)
def test_the_only_dictionary_that_fits_is_taken_and_said(wrap, said, network, tmp_path):
    torch.save(wrap(network.state_dict()), tmp_path / "w.pt")
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    notes = load_weights(other, tmp_path / "w.pt")
    assert torch.equal(other[0].weight, network[0].weight)
    assert [note.partition(", which")[0].removeprefix("weights: ") for note in notes] == said


def test_safetensors_are_loaded_and_complex_weights_are_pairs_there(tmp_path):
    saving = pytest.importorskip("safetensors.torch")

    class Complex(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, dtype=torch.complex64))

    trained, other = Complex(), Complex()
    saving.save_file({"weight": torch.view_as_real(trained.weight.detach())}, tmp_path / "w.safetensors")
    load_weights(other, tmp_path / "w.safetensors")
    assert torch.equal(other.weight, trained.weight)


def test_weights_that_do_not_fit_are_refused_by_name(network, tmp_path):
    state, path = network.state_dict(), tmp_path / "w.pt"
    without = {name: value for name, value in state.items() if name != "0.bias"}
    for content, reason in (
        ({"model": without}, r"0.bias is missing \(the closest is the dictionary 'model'\)"),
        ({**state, "extra.w": torch.zeros(1)}, r"extra.w is unused"),
        ({**state, "0.bias": torch.zeros(5)}, r"0.bias is \[5\], expected \[4\]"),
        ({"model": state, "ema": state}, r"'model' and 'ema' all fit this module; --weights-key names one"),
        ({"epoch": 3}, r"holds no tensors by name"),
    ):
        torch.save(content, path)
        with pytest.raises(InputError, match=reason):
            load_weights(network, path)
    torch.save({"model": state, "ema": {**state, "0.bias": torch.ones(4)}}, path)
    load_weights(network, path, "ema")
    assert network[0].bias.tolist() == [1] * 4
    path.write_bytes(b"junk")
    with pytest.raises(InputError, match="not a state dictionary"):
        load_weights(network, path)
    torch.jit.save(torch.jit.script(network), path)
    with pytest.raises(InputError, match=r"it is a TorchScript; save its state_dict\(\) instead"):
        load_weights(network, path)
