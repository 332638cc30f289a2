"""Keras networks of several beams: the values, objects and losses of Torch and of networks that were built for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychonnx.harness.simulate.family import FamilyConfig, simulate_member
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.beam_arrays import beam_arrays
from ptychonnx.runtime.scan.forward_model import cut_windows
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.dataset import combine, prepare
from ptychonnx.train.fitting import settings_for, train
from ptychonnx.train.initial_retrieval import constants_for_network
from ptychonnx.train.registry import get_architecture
from tests.train.tiny import SHALLOW

tf = pytest.importorskip("tensorflow")

from ptychonnx.train.tensorflow import training as keras_training  # noqa: E402
from ptychonnx.train.tensorflow.beam import BeamPreparation  # noqa: E402
from ptychonnx.train.tensorflow.network import build_network  # noqa: E402

CNN = get_architecture("cnn")
TRAINING = TrainingConfig(overlap=4, batch=8)
N = 32


def config_of(gridsize: int = 1) -> NetworkConfig:
    return NetworkConfig(n=N, width=4, blocks=2, first_steps=3, final_steps=2, gridsize=gridsize)


@pytest.fixture(scope="module")
def scans() -> list[Scan]:
    """Three scans with one, one and two modes, and different masks."""
    config = FamilyConfig(n=N, scans=3, grid=7, max_modes=1, min_photons=1e7, max_photons=1e9, seed=3)
    several = replace(config, max_modes=2)
    number = next(n for n in range(50) if len(simulate_member(several, n).probe) == 2)
    members = [simulate_member(config, 0), simulate_member(config, 1), simulate_member(several, number)]
    mask = np.ones((N, N), dtype=bool)
    mask[3:9, 20:] = False
    return [members[0], replace(members[1], mask=mask), members[2]]


def data_of(scans: list[Scan], gridsize: int = 1, loss: str = "mae"):
    training = replace(TRAINING, loss=loss)
    return combine([prepare(scan, config_of(gridsize), training, CNN) for scan in scans])


def constants(scan: Scan, gridsize: int = 1):
    beam = data_of([scan], gridsize).beam
    return constants_for_network(config_of(gridsize), beam.probe, beam.scale, beam.mask)


@pytest.mark.parametrize("number", [1, 2])
def test_the_values_are_those_of_the_definition(scans, number):
    expected = constants(scans[number])
    prepare_beam = BeamPreparation(constants(scans[0]))
    inputs = [tf.constant(values) for values in beam_arrays(scans[number]).values()]
    shared = prepare_beam(*inputs)
    of_each = prepare_beam(*(tf.stack([values, values]) for values in inputs))
    for name in ("probe", "lit", "back", "spread", "valid", "light"):
        wanted = getattr(expected, name)
        # `back` holds the length of a step, which is shorter by up to 1e-3.
        bound = (1.1e-3 if name == "back" else 1e-5) * np.abs(wanted).max()
        assert np.abs(getattr(shared, name) - wanted).max() <= bound, name
        batched = np.asarray(getattr(of_each, name))
        one = batched[:, 1] if wanted.ndim == 5 else batched[1]
        assert np.abs(one - getattr(shared, name)).max() <= 1e-6 * np.abs(wanted).max(), name
    assert expected.step * (1 - 1.1e-3) <= float(shared.step) <= expected.step * (1 + 1e-6)


@pytest.mark.parametrize("gridsize", [1, 2])
def test_one_network_serves_all_beams_at_once(scans, gridsize):
    """What a network built for a beam returns, returns the network of another beam that takes this one as an input."""
    config, data = config_of(gridsize), data_of(scans, gridsize)
    general = build_network(CNN, config, constants(scans[0], gridsize), seed=1).general()
    tables = keras_training.ScanTables(data)
    rows = np.stack([data.train[data.beam_of[data.train[:, 0]] == beam][0] for beam in range(3)])
    rows = rows[:, : data.channels]
    together = general.call(
        [tf.constant(values) for values in data.inputs(rows)], tables.conditions([0, 1, 2])
    )
    for beam, scan in enumerate(scans):
        inputs = data.inputs(rows[beam : beam + 1])
        expected = build_network(CNN, config, constants(scan, gridsize), seed=1).predict(*inputs)
        alone = general.predict(*inputs, *beam_arrays(scan).values())
        # The shorter step changes the object by less than it changes the values.
        assert np.abs(alone - expected).max() < 2e-3
        assert np.abs(together[beam : beam + 1] - alone).max() < 2e-4
    wrong = general.predict(*data.inputs(rows[1:2]), *beam_arrays(scans[0]).values())
    assert np.abs(wrong - together[1:2]).max() > 0.05


@pytest.mark.parametrize("loss", ["mae", "poisson"])
def test_the_loss_of_a_mixed_step_is_the_mean_of_the_losses_of_its_groups(scans, loss):
    """Each group is scored with the probe, mask and scale of its scan, as if it was trained on that scan alone."""
    rng = np.random.default_rng(0)
    training = replace(TRAINING, loss=loss)
    native = build_network(CNN, config_of(), constants(scans[0]), seed=1)
    data = data_of(scans, loss=loss)
    alone, batches, answers = [], [], []

    def score(data, network, batch, answer):
        task = keras_training.ReconstructionTask(network, data, training)
        parts = np.stack([answer.real, answer.imag], axis=-1)[..., None, :].astype(np.float32)
        return float(task.score(batch, lambda inputs, beam: tf.constant(parts)))

    for number, scan in enumerate(scans):
        part = data_of([scan], loss=loss)
        rows = part.train[:1]
        patches = cut_windows(scan.reference.object, scan.positions[rows[0]], N, scan.reference.origin)
        answers.append(patches * np.exp(0.1j * rng.normal(size=(len(patches), 1, 1))))
        batch = {
            "amplitude": tf.constant(part.diffraction[rows]),
            "offsets": tf.constant(part.offsets(rows)),
            "beam": tf.constant([0]),
        }
        alone.append(score(part, native, batch, answers[-1]))
        batches.append(batch | {"beam": tf.constant([number])})
    mixed = {name: tf.concat([batch[name] for batch in batches], axis=0) for name in batches[0]}
    assert np.diff(np.sort(alone)).min() > 0.1 * max(alone)
    assert score(data, native.general(), mixed, np.concatenate(answers)) == pytest.approx(
        np.mean(alone), rel=1e-4
    )


def test_a_network_learns_several_scans_and_the_run_lists_them(scans, tmp_path):
    network, training = settings_for(CNN, {**SHALLOW, "width": 4, "epochs": 2, "overlap": 4, "batch": 16})
    record = train(scans, CNN, network, training, tmp_path / "run")
    assert record.label == "pinn_cnn_any"
    assert [scan.modes for scan in record.scans] == [1, 1, 2]
    again = train(scans, CNN, network, training, tmp_path / "again")
    assert again.trained_tensors == record.trained_tensors != record.initial_tensors
    fresh = replace(training, fresh_scans=True)
    with pytest.raises(InputError, match="fresh_scans: cnn is trained in Keras"):
        train(scans, CNN, network, fresh, tmp_path / "fresh", fresh=lambda epoch: scans)


def test_a_network_without_phase_retrieval_takes_no_beam(scans):
    baseline = build_network(get_architecture("baseline"), config_of(), constants(scans[0]), seed=1)
    with pytest.raises(InputError, match="--general: this network takes no beam"):
        baseline.general()
