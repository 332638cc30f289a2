"""Settings and the registry: what is wrong is named, and what there is, listed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from runtime.errors import InputError
from train import registry
from train.fitting import settings_for
from train.registry import Architecture, architectures, get_architecture


def test_an_unknown_architecture_lists_those_there_are():
    with pytest.raises(InputError, match=r"'resnet' is unknown, expected one of cnn, baseline, fno, hybrid"):
        get_architecture("resnet")


def test_labels_name_physics_informed_networks_and_the_baseline():
    labels = {name: architecture.label for name, architecture in architectures().items()}
    assert labels == {"cnn": "pinn_cnn", "baseline": "baseline", "fno": "pinn_fno", "hybrid": "pinn_hybrid"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "setting epochs = 0"),
        ({"learning_rate": -1.0}, "setting learning_rate = -1.0"),
        ({"loss": "huber"}, "setting loss = 'huber'"),
        ({"wdith": 8}, "setting wdith = 8"),
        ({"gridsize": 0}, "setting gridsize = 0"),
    ],
)
def test_a_bad_setting_is_named(values, message):
    with pytest.raises(InputError, match=message):
        settings_for(get_architecture("fno"), values)


def test_a_users_value_beats_the_architectures_which_beats_the_general_one():
    architecture = Architecture("x", "torch", "m:f", "", defaults={"width": 5, "epochs": 3})
    network, training = settings_for(architecture, {"width": 7})
    assert (network.width, training.epochs, network.blocks) == (7, 3, 3)


def register(monkeypatch, value):
    point = EntryPoint("extra", "nowhere:extra", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    monkeypatch.setattr(EntryPoint, "load", lambda self: value)


def test_an_installed_package_adds_an_architecture(monkeypatch):
    register(monkeypatch, Architecture("extra", "torch", "nowhere:build", "theirs"))
    assert get_architecture("extra").label == "pinn_extra"
    assert "cnn" in architectures()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "expected a train.registry.Architecture"),
        (Architecture("cnn", "torch", "m:f", ""), "is taken"),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_refused(monkeypatch, value, message):
    register(monkeypatch, value)
    with pytest.raises(InputError, match=message):
        architectures()


def test_a_missing_framework_is_named_with_the_extra_that_brings_it():
    architecture = Architecture("x", "torch", "no_such_framework:build", "")
    with pytest.raises(
        InputError, match=r'no_such_framework needs no_such_framework.*pip install "ptychonnx\[torch\]"'
    ):
        architecture.load_builder()


def test_without_neuraloperator_a_fourier_network_is_an_error_and_no_fallback():
    program = (
        "import sys; sys.modules['neuralop'] = None\n"
        "from train.registry import get_architecture\n"
        "get_architecture('fno').load_builder()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "InputError: train.torch.fno needs neuralop" in done.stderr
