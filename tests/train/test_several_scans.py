"""Training on several scans: each has its own beam in the network and in the physics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ptychonnx.harness.simulate.family import FamilyConfig, simulate_member
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import cut_windows
from ptychonnx.train.config import NetworkConfig, TrainingConfig
from ptychonnx.train.dataset import combine, prepare
from ptychonnx.train.fitting import settings_for, train
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import held_out_scan, read_run
from tests.train.tiny import SMALL, on_steps

torch = pytest.importorskip("torch")
torch_training = pytest.importorskip("ptychonnx.train.torch.training")

NETWORK, TRAINING = NetworkConfig(n=32), TrainingConfig(overlap=4, batch=8)
HYBRID = get_architecture("hybrid")


@pytest.fixture(scope="module")
def scans() -> list[Scan]:
    """Three scans with one, one and two modes, and different masks."""
    config = FamilyConfig(n=32, scans=3, grid=7, max_modes=1, min_photons=1e7, max_photons=1e9, seed=3)
    several = replace(config, max_modes=2)
    number = next(n for n in range(50) if len(simulate_member(several, n).probe) == 2)
    members = [simulate_member(config, 0), simulate_member(config, 1), simulate_member(several, number)]
    mask = np.ones((32, 32), dtype=bool)
    mask[3:9, 20:] = False
    return [members[0], replace(members[1], mask=mask), members[2]]


def patches_of(scan: Scan) -> np.ndarray:
    return cut_windows(scan.reference.object, scan.positions, 32, scan.reference.origin)


def test_groups_stay_within_a_scan_and_every_scan_has_held_out_patterns(scans):
    data = combine([prepare(scan, NETWORK, TRAINING, HYBRID) for scan in scans])
    for rows in (data.train, data.held_out, data.neighbourhoods):
        assert np.all(data.beam_of[rows] == data.beam_of[rows[:, :1]])
        assert set(data.beam_of[rows[:, 0]]) == {0, 1, 2}
    assert not set(data.train.ravel()) & set(data.held_out.ravel())
    for pattern in (0, 60, 147 - 1):
        scan = scans[data.beam_of[pattern]]
        assert np.array_equal(data.diffraction[pattern], scan.diffraction[pattern % 49])
        assert np.array_equal(data.positions[pattern], scan.positions[pattern % 49])


def test_steps_mix_scans_of_equally_many_modes(scans):
    data = combine([prepare(scan, NETWORK, TRAINING, HYBRID) for scan in (scans[0], scans[1])])
    beams = data.beam_of[data.train[data.order(TRAINING, 0)][..., 0]]
    assert np.any(beams.min(axis=1) < beams.max(axis=1))
    data = combine([prepare(scan, NETWORK, TRAINING, HYBRID) for scan in scans])
    modes = np.array([1, 1, 2])[data.beam_of[data.train[data.order(TRAINING, 0)][..., 0]]]
    # One step at most is at the border between the two numbers of modes.
    assert np.sum(modes.min(axis=1) < modes.max(axis=1)) <= 1
    assert np.array_equal(data.order(TRAINING, 1), data.order(TRAINING, 1))
    assert not np.array_equal(data.order(TRAINING, 0), data.order(TRAINING, 1))


@pytest.mark.parametrize("loss", ["mae", "poisson"])
def test_the_loss_of_a_mixed_step_is_the_mean_of_the_losses_of_its_groups(scans, loss):
    """Each group is scored with the probe, mask and scale of its scan, as if it was trained on that scan alone."""
    training = replace(TRAINING, loss=loss)
    parts = [prepare(scan, NETWORK, training, HYBRID) for scan in scans]
    data = combine(parts)
    rng = np.random.default_rng(0)
    answers = [patches_of(scan) * np.exp(0.1j * rng.normal(size=(49, 1, 1))) for scan in scans]

    class Oracle(torch.nn.Module):
        def __init__(self, patches, rows):
            super().__init__()
            known = patches[rows.ravel()].astype(np.complex64)[:, :, :, None]
            self.parts = torch.view_as_real(torch.from_numpy(known))

        def forward(self, diffraction, **conditions):
            return self.parts

    alone = []
    for part, answer in zip(parts, answers, strict=True):
        rows = part.train[:1]
        task = torch_training.ReconstructionTask(Oracle(answer, rows), part, training)
        alone.append(task.score((torch.from_numpy(rows), torch.from_numpy(part.offsets(rows)))).item())
    rows = np.concatenate([part.train[:1] + 49 * number for number, part in enumerate(parts)])
    task = torch_training.ReconstructionTask(Oracle(np.concatenate(answers), rows), data, training)
    mixed = task.score((torch.from_numpy(rows), torch.from_numpy(data.offsets(rows)))).item()
    assert np.diff(np.sort(alone)).min() > 0.1 * max(alone)
    assert mixed == pytest.approx(np.mean(alone), rel=1e-4)


def test_the_network_takes_the_beam_of_each_pattern(scans):
    """An untrained network returns the retrieved object: with the right beam it explains the patterns of every scan."""
    data = combine([prepare(scan, NETWORK, TRAINING, HYBRID) for scan in scans])
    from ptychonnx.train.initial_retrieval import constants_for_network
    from ptychonnx.train.torch.network import build_network

    beam = data.beam
    native = build_network(
        HYBRID, NETWORK, constants_for_network(NETWORK, beam.probe, beam.scale, beam.mask), 0
    )
    task = torch_training.ReconstructionTask(native.module, data, TRAINING)
    first = [np.flatnonzero(data.beam_of == number)[:3] for number in range(3)]
    with torch.no_grad():
        for number, rows in enumerate(first):
            amplitude = torch.from_numpy(data.diffraction[rows][:, None])
            mixed = np.concatenate(first)
            patterns = torch.from_numpy(data.diffraction[mixed][:, None])
            alone = native.module(amplitude, **task.held_out.conditions(data.beam_of[rows]))
            together = native.module(patterns, **task.held_out.conditions(data.beam_of[mixed]))
            assert torch.allclose(together[3 * number : 3 * number + 3], alone, atol=2e-4)
        wrong = native.module(torch.from_numpy(data.diffraction[first[1]][:, None]))
        right = native.module(
            torch.from_numpy(data.diffraction[first[1]][:, None]),
            **task.held_out.conditions(data.beam_of[first[1]]),
        )
    assert not torch.allclose(wrong, right, atol=0.05)


def test_a_run_lists_its_scans_keeps_their_held_out_patterns_and_resumes(scans, tmp_path):
    network, training = settings_for(HYBRID, {**SMALL, "epochs": 2, "overlap": 4, "batch": 16})
    record = train(scans, HYBRID, network, training, tmp_path / "run")
    assert record.label == "pinn_hybrid_any"
    assert [scan.name for scan in record.scans] == [scan.name for scan in scans]
    assert [scan.modes for scan in record.scans] == [1, 1, 2]
    assert [scan.probe_sha256 for scan in record.scans] == [scan.probe_sha256() for scan in scans]
    assert len({scan.data_sha256 for scan in record.scans}) == 3
    assert read_run(tmp_path / "run") == record
    assert record.probe_sha256 == held_out_scan(tmp_path / "run").probe_sha256()
    held_out = read_scan(tmp_path / "run" / "held_out" / "0002.npz")
    assert len(held_out) >= 16
    assert held_out.probe_sha256() == scans[2].probe_sha256()

    def stop(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(scans, HYBRID, network, training, tmp_path / "again", on_steps(stop))
    resumed = train(scans, HYBRID, network, training, tmp_path / "again", resume=True)
    assert resumed.trained_tensors == record.trained_tensors
    with pytest.raises(InputError, match="another scan"):
        train(scans[:2], HYBRID, network, training, tmp_path / "again", resume=True)


def test_scans_that_cannot_be_trained_together_are_refused(scans, tmp_path):
    network, training = settings_for(HYBRID, {**SMALL, "epochs": 1})
    with pytest.raises(InputError, match="no scan to train on"):
        train([], HYBRID, network, training, tmp_path / "run")
    blind = replace(scans[1], probe=None, name="blind")
    with pytest.raises(InputError, match="blind: has no probe"):
        train([scans[0], blind], HYBRID, network, training, tmp_path / "run")
    with pytest.raises(InputError, match="baseline: has its beam built in and cannot learn 3 scans"):
        train(scans, get_architecture("baseline"), network, training, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_every_epoch_may_have_new_scans_and_the_same_held_out_patterns(tmp_path, monkeypatch):
    """The second epoch is trained on the scans that continue the family, as a training on them alone would be."""
    config = FamilyConfig(n=32, scans=2, grid=7, max_modes=1, min_photons=1e7, max_photons=1e9, seed=3)
    scans = [simulate_member(config, number) for number in range(2)]
    network, training = settings_for(HYBRID, {**SMALL, "n": 32, "epochs": 2, "fresh_scans": True})
    tables = []
    monkeypatch.setattr(
        torch_training,
        "ScanTables",
        lambda data, made=torch_training.ScanTables: tables.append(made(data)) or tables[-1],
    )

    def fresh(epoch):
        return [simulate_member(config, 2 * epoch + number) for number in range(2)]

    record = train(scans, HYBRID, network, training, tmp_path / "run", fresh=fresh)
    first, second = (scans_of.data for scans_of in tables)
    assert second.beams[1].name == "scan_0003"
    assert np.array_equal(second.diffraction[:49], fresh(1)[0].diffraction)
    assert record.scans[0].name == "scan_0000"
    assert record.data_sha256 == first.sha256
    plain = train(scans, HYBRID, network, replace(training, fresh_scans=False), tmp_path / "plain")
    assert plain.trained_tensors != record.trained_tensors
    with pytest.raises(InputError, match="expected several scans of one simulated family"):
        train(scans, HYBRID, network, training, tmp_path / "none")
