"""Training in both frameworks: the loss falls, the run folder is complete, the seed decides."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.scan.forward_model import cut_windows
from ptychonnx.train.fitting import settings_for, train
from ptychonnx.train.history import read_history
from ptychonnx.train.registry import architectures, get_architecture
from ptychonnx.train.run import fingerprint, held_out_scan, read_run
from ptychonnx.train.trained_network import initial_network, load_network
from tests.train.tiny import SHALLOW, SMALL, on_steps

PACKAGES = {"torch": "lightning", "tensorflow": "tensorflow"}
# Every registered architecture is tested.
FRAMEWORK = {name: PACKAGES[architecture.framework] for name, architecture in architectures().items()}
TORCH = [name for name, package in FRAMEWORK.items() if package == "lightning"]
KERAS = [name for name, package in FRAMEWORK.items() if package == "tensorflow"]


def train_tiny(scan, name, out, **values):
    pytest.importorskip(FRAMEWORK[name])
    architecture = get_architecture(name)
    steps = []
    network, training = settings_for(architecture, {**SHALLOW, "epochs": 2, **values})
    record = train(
        scan, architecture, network, training, out, on_steps(lambda done, total: steps.append((done, total)))
    )
    return record, steps


@pytest.fixture(scope="module")
def trained(tiny_scan, tmp_path_factory):
    """Record, steps and folder of a training with some settings; trained once."""
    folder, done = tmp_path_factory.mktemp("trained"), {}

    def run(name, **values):
        key = (name, *sorted(values.items()))
        if key not in done:
            out = folder / f"{len(done)}" / name
            done[key] = (*train_tiny(tiny_scan, name, out, **values), out)
        return done[key]

    return run


@pytest.fixture(scope="module")
def runs(trained):
    """The same for networks of several levels, which learn for longer."""
    return lambda name: trained(name, **SMALL, epochs=6)


@pytest.mark.parametrize("name", FRAMEWORK)
def test_the_loss_falls_and_the_folder_is_complete(runs, name):
    record, steps, folder = runs(name)
    history = read_history(folder / "history.csv")
    assert [epoch.epoch for epoch in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1].loss < history[0].loss
    best = min(history, key=lambda epoch: epoch.validation_loss)
    assert (record.best_epoch, record.final_loss) == (best.epoch, best.loss)
    assert all(0 < epoch.disagreement < 2 for epoch in history)
    assert steps[-1][0] == steps[-1][1] == len(steps)
    assert read_run(folder) == record
    assert len(held_out_scan(folder)) >= 16
    assert held_out_scan(folder).reference is None
    assert (folder / "logs").is_dir()
    fourier = "neuralop.layers.spectral_convolution.SpectralConv"
    assert record.spectral_operator == (fourier if name in TORCH else None)
    assert not [path for path in folder.parent.iterdir() if path.name not in FRAMEWORK]
    assert not (folder / "epochs").exists()


@pytest.mark.parametrize("name", FRAMEWORK)
def test_the_checkpoint_holds_what_was_trained(runs, name):
    record, _, folder = runs(name)
    network = load_network(folder, record)
    assert fingerprint(network.tensors()) == record.trained_tensors
    initial = initial_network(folder, record)
    assert fingerprint(initial.tensors()) == record.initial_tensors
    changed = [key for key, value in record.trained_tensors.items() if record.initial_tensors[key] != value]
    assert len(changed) == len(record.trained_tensors)
    patterns = held_out_scan(folder).diffraction[:3, None]
    output = network.predict(patterns)
    assert output.shape == (3, 32, 32, 1, 2)
    assert not np.allclose(output, initial.predict(patterns), atol=1e-4)


@pytest.mark.parametrize("flushed", [False, True])
def test_the_caller_decides_whether_denormal_numbers_are_flushed(tiny_scan, tmp_path, flushed):
    torch = pytest.importorskip("torch")
    torch.set_flush_denormal(flushed)
    try:
        train_tiny(tiny_scan, "fno", tmp_path / "run", epochs=1)
        assert bool(np.float32(2e-38) * np.float32(0.1) == 0) == flushed
    finally:
        torch.set_flush_denormal(False)


# Also the run with another seed, which decides the initial weights alone.
POISSON = {"loss": "poisson", "seed": 1, "epochs": 1}


@pytest.mark.parametrize("name", ["fno", "cnn"])
def test_the_seed_decides_every_weight(trained, tiny_scan, tmp_path, name):
    record, _, _ = trained(name)
    again, _ = train_tiny(tiny_scan, name, tmp_path / "again")
    other, _, _ = trained(name, **POISSON)
    assert again.trained_tensors == record.trained_tensors
    assert other.initial_tensors != record.initial_tensors


@pytest.mark.parametrize(
    ("name", "values"),
    [
        *((name, {"gridsize": 2, "blocks": 2 if name in TORCH else 1, "epochs": 1}) for name in FRAMEWORK),
        *((name, values) for name in ("fno", "cnn") for values in (POISSON, {"overlap": 4, "epochs": 1})),
    ],
)
def test_other_settings_train_too(trained, tiny_scan, name, values):
    record, _, folder = trained(name, **values)
    network = load_network(folder, record)
    channels = record.network.gridsize**2
    patterns = np.repeat(tiny_scan.diffraction[:2, None], channels, axis=1)
    offsets = np.zeros((2, channels, 2), dtype=np.float32)
    given = (patterns, offsets) if get_architecture(name).takes_offsets(record.network) else (patterns,)
    assert network.predict(*given).shape == (2, 32, 32, channels, 2)


@pytest.mark.parametrize("name", ["fno", "cnn"])
def test_a_physics_informed_network_learns_the_patches_of_another(tiny_scan, tmp_path, name):
    pytest.importorskip(FRAMEWORK[name])
    architecture, out = get_architecture(name), tmp_path / "run"
    network, training = settings_for(architecture, {**SHALLOW, "epochs": 3, "learning_rate": 1e-2})
    # Half the true object explains none of the patterns: only the labels teach it.
    known = cut_windows(tiny_scan.reference.object, tiny_scan.positions, 32, tiny_scan.reference.origin)
    record = train(tiny_scan, architecture, network, training, out, labels=known / 2)
    assert record.loss_name == "distilled"
    assert record.final_steps == SHALLOW["final_steps"]
    history = read_history(out / "history.csv")
    assert history[-1].loss < 0.7 * history[0].loss
    # The labels are part of what was trained on.
    with pytest.raises(InputError, match="another scan"):
        train(tiny_scan, architecture, network, training, out, labels=known, resume=True)


@pytest.mark.parametrize("name", ["fno", "cnn"])
def test_a_rate_at_which_training_diverges_ends_in_one_line(tiny_scan, tmp_path, name):
    pytest.importorskip(FRAMEWORK[name])
    with pytest.raises(
        VerificationError,
        match=r"^training diverged: the loss of epoch 1 is (inf|nan) .* lower learning rate$",
    ):
        train_tiny(tiny_scan, name, tmp_path / "run", learning_rate=1e30, epochs=3)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["fno", "cnn"])
@pytest.mark.parametrize("epochs", [5, 1])
def test_a_training_of_a_few_steps_has_a_schedule(tiny_scan, tmp_path, name, epochs):
    """Ten steps and two: the warm-up ends with the first step, or before it."""
    scan = tiny_scan.subset(np.arange(40))
    record, steps = train_tiny(scan, name, tmp_path / "run", epochs=epochs, batch=12)
    assert len(steps) == 2 * epochs
    assert record.epochs_done == epochs


@pytest.mark.parametrize("name", ["fno", "cnn"])
def test_mixed_precision_changes_the_arithmetic_and_leaves_weights_in_float32(
    trained, tiny_scan, tmp_path, name
):
    full, _, _ = trained(name)
    mixed, _ = train_tiny(tiny_scan, name, tmp_path / "mixed", precision="bf16-mixed")
    assert mixed.initial_tensors == full.initial_tensors
    assert mixed.trained_tensors != full.trained_tensors
    assert mixed.final_loss == pytest.approx(full.final_loss, rel=0.02)
    tensors = load_network(tmp_path / "mixed", mixed).tensors()
    assert {value.dtype for value in tensors.values()} <= {np.dtype("float32"), np.dtype("complex64")}


@pytest.mark.parametrize("name", TORCH)
def test_torch_networks_take_an_odd_size(name):
    pytest.importorskip("lightning")
    from ptychonnx.train.initial_retrieval import retrieval_constants
    from ptychonnx.train.torch.network import build_network

    network, _ = settings_for(get_architecture(name), {**SMALL, "n": 33})
    probe = np.ones((1, 33, 33), dtype=np.complex64)
    built = build_network(
        get_architecture(name), network, retrieval_constants(probe, 1.0, steps=2, final_steps=2), seed=0
    )
    assert built.predict(np.ones((2, 1, 33, 33), dtype=np.float32)).shape == (2, 33, 33, 1, 2)


def test_two_devices_that_share_every_step_train_a_keras_network_like_one(trained, tiny_scan, tmp_path):
    record, _, _ = trained("cnn")
    write_scan(tmp_path / "tiny.npz", tiny_scan)
    script = Path(__file__).with_name("two_cpus.py")
    subprocess.run(
        [sys.executable, str(script), str(tmp_path / "tiny.npz"), str(tmp_path / "run")],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        check=True,
    )
    shared = read_run(tmp_path / "run")
    assert shared.training.devices == 2
    assert shared.initial_tensors == record.initial_tensors
    assert shared.validation_loss == pytest.approx(record.validation_loss, rel=1e-3)


@pytest.mark.parametrize("name", KERAS)
def test_keras_networks_refuse_a_size_they_cannot_halve(tiny_scan, tmp_path, name):
    with pytest.raises(InputError, match="n = 32 cannot be halved 6 times"):
        train_tiny(tiny_scan, name, tmp_path / "run", blocks=6, epochs=1)
    assert not list(tmp_path.iterdir())


def test_training_again_replaces_the_run_but_nothing_else(tiny_scan, tmp_path):
    train_tiny(tiny_scan, "fno", tmp_path / "run", epochs=1)
    train_tiny(tiny_scan, "fno", tmp_path / "run", epochs=1, seed=5)
    assert read_run(tmp_path / "run").training.seed == 5
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match=r"holds files but no config.json"):
        train_tiny(tiny_scan, "fno", tmp_path / "mine", epochs=1)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize("name", ["fno", "cnn"])
def test_a_damaged_checkpoint_is_refused(runs, tmp_path, name):
    record, _, folder = runs(name)
    (checkpoint,) = folder.glob("checkpoint.*")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in folder.iterdir():
        if file.is_file():
            (copy / file.name).write_bytes(file.read_bytes())
    (copy / checkpoint.name).write_bytes(checkpoint.read_bytes()[:100])
    with pytest.raises(InputError, match="not the weights of this network"):
        load_network(copy, record)
    (copy / checkpoint.name).unlink()
    with pytest.raises(InputError, match="no such file"):
        load_network(copy, record)
