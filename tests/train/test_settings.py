"""Settings and the registry: what is wrong is named, and what there is, listed."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.train import registry
from ptychonnx.train.config import NetworkConfig
from ptychonnx.train.fitting import refuse_unused, settings_for
from ptychonnx.train.registry import Architecture, architectures, get_architecture


@pytest.mark.parametrize(
    ("name", "typed", "message"),
    [
        (
            "cnn",
            {"width", "modes"},
            "--modes: cnn does not have it, expected some of --gridsize, --width, --blocks, ",
        ),
        (
            "baseline",
            {"overlap"},
            "--overlap: baseline does not have it, expected some of --epochs, --batch, ",
        ),
    ],
)
def test_a_setting_that_an_architecture_lacks_is_refused_with_those_it_has(name, typed, message):
    with pytest.raises(InputError, match=message) as refusal:
        refuse_unused(get_architecture(name), typed)
    assert "--modes," not in str(refusal.value)
    refuse_unused(get_architecture("fno"), typed)
    refuse_unused(get_architecture(name), {"width", "epochs"})


def test_an_unknown_architecture_lists_those_there_are():
    with pytest.raises(InputError, match=r"'resnet' is unknown, expected one of cnn, baseline, fno, hybrid"):
        get_architecture("resnet")


def test_labels_name_physics_informed_networks_and_the_baseline():
    labels = {name: architecture.label for name, architecture in architectures().items()}
    assert labels.pop("baseline") == "baseline"
    assert {"cnn", "fno", "hybrid", "hybrid_resnet", "fno_vanilla", "ffno", "uno", "unet"} <= labels.keys()
    assert labels == {name: f"pinn_{name}" for name in labels}


def test_the_defaults_of_every_architecture_are_settings():
    for architecture in architectures().values():
        network, training = settings_for(architecture, {})
        settings = vars(network) | vars(training)
        assert {name: settings[name] for name in architecture.defaults} == dict(architecture.defaults)


def test_every_built_in_architecture_has_one_row_in_the_docs():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "architectures.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \|", page.partition("## Which one")[0], flags=re.MULTILINE)
    assert sorted(rows) == sorted(architecture.name for architecture in registry._BUILT_IN)


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


def register(monkeypatch, value, name="extra"):
    def load(self):
        if isinstance(value, Exception):
            raise value
        return value

    point = EntryPoint(name, "nowhere:extra", registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [point])
    monkeypatch.setattr(EntryPoint, "load", load)


def test_an_installed_package_adds_an_architecture(monkeypatch):
    register(monkeypatch, Architecture("extra", "torch", "nowhere:build", "theirs"))
    assert get_architecture("extra").label == "pinn_extra"
    assert list(architectures())[-1] == "extra"
    with pytest.raises(InputError, match=r"expected one of cnn, .*, extra"):
        get_architecture("resnet")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "expected a ptychonnx.train.registry.Architecture"),
        (Architecture("cnn", "torch", "m:f", ""), "names its architecture 'cnn', expected 'extra'"),
        (AttributeError("no such thing"), r"cannot be loaded \(AttributeError: no such thing\)"),
    ],
)
def test_an_entry_point_that_cannot_be_used_is_refused_and_in_nobodys_way(monkeypatch, value, message):
    register(monkeypatch, value)
    for look_up in (architectures, lambda: get_architecture("extra")):
        with pytest.raises(InputError, match=rf"entry point 'extra' \(nowhere:extra\).*{message}"):
            look_up()
    assert get_architecture("cnn").framework == "tensorflow"


def test_a_package_cannot_take_a_built_in_name(monkeypatch):
    register(monkeypatch, Architecture("cnn", "torch", "m:f", ""), name="cnn")
    with pytest.raises(InputError, match="the name 'cnn' is taken"):
        architectures()


@pytest.mark.parametrize(
    ("builder", "message"),
    [
        (
            "ptychonnx.torhc.mine:build",
            r"^ptychonnx.torhc.mine: no such module \(ptychonnx.torhc does not exist\)",
        ),
        (
            "ptychonnx.train.config:build",
            "its builder 'ptychonnx.train.config:build' does not exist: ptychonnx.train.config has no build",
        ),
        ("ptychonnx.train.config", "has no function named after a colon"),
    ],
)
def test_a_builder_that_is_not_there_is_named(builder, message):
    with pytest.raises(InputError, match=message):
        Architecture("mine", "torch", builder, "").load_builder()


def test_a_missing_framework_is_named_with_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "ptychonnx.train.torch.network", raising=False)
    with pytest.raises(
        InputError, match=r'ptychonnx.train.torch.network needs torch.*pip install "ptychonnx\[torch\]"'
    ):
        Architecture("x", "torch", "ptychonnx.train.torch.network:build", "").load_builder()


def channels_first(config, guess):
    from torch import nn

    return nn.Sequential(nn.Conv2d(1, 2, 3, padding=1))


def test_a_network_of_another_shape_is_refused_before_it_trains():
    network = pytest.importorskip("ptychonnx.train.torch.network")
    architecture = Architecture("mine", "torch", f"{__name__}:channels_first", "")
    with pytest.raises(
        InputError, match=r"'mine'.* returns float32 \[3, 2, 16, 16\], expected .*\[3, 16, 16, 1, 2\]"
    ):
        network.build_network(architecture, NetworkConfig(n=16), constants=None, seed=0)


def test_a_network_that_takes_no_offsets_sees_one_pattern_at_a_time():
    network = pytest.importorskip("ptychonnx.train.torch.network")
    architecture = Architecture("mine", "torch", f"{__name__}:channels_first", "")
    with pytest.raises(
        InputError, match="'mine': its network does not take amplitudes and offsets, as --gridsize 2"
    ):
        network.build_network(architecture, NetworkConfig(n=16, gridsize=2), constants=None, seed=0)


def test_without_neuraloperator_a_fourier_network_is_an_error_and_no_fallback():
    program = (
        "import sys; sys.modules['neuralop'] = None\n"
        "from ptychonnx.train.registry import get_architecture\n"
        "get_architecture('fno').load_builder()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "InputError: ptychonnx.train.torch.fno needs neuralop" in done.stderr
