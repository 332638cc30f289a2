"""A folder that ptychodus wrote is reconstructed by a child process, whose product opens in ptychodus again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

import ptychonnx

io = pytest.importorskip("ptychodus.api.io", reason="ptychodus is not installed")

FIRST_INDEX = 7
# ptychodus itself needs no package that iterates.
TRAINING = os.environ.get("PTYCHONNX_TRAINING_PYTHON")


@pytest.fixture
def folder(tmp_path):
    """`diffraction.h5` and `product.h5` of lines, by the functions of ptychodus."""
    from ptychodus.api.geometry import PixelGeometry
    from ptychodus.api.object import Object, ObjectCenter
    from ptychodus.api.probe import ProbeSequence
    from ptychodus.api.probe_positions import ProbePosition, ProbePositionSequence
    from ptychodus.api.product import Product, ProductMetadata
    from ptychodus.api.simulate.diffraction import generate_diffraction_data

    scan = ptychonnx.simulate_lines(grid=5)
    truth, pixel = scan.reference, scan.pixel_size
    centre = (np.array(truth.object.shape) - 1) / 2
    middles = scan.positions - truth.origin - 0.5
    # Half a nanopixel keeps ptychodus from rounding a window's corner down.
    y, x = (pixel * (middles - centre + 1e-9)).T
    numbers = {"exposure_time_s": 1.0, "mass_attenuation_m2_per_kg": 0.0, "tomography_angle_deg": 0.0}
    square = PixelGeometry(pixel, pixel)
    product = Product(
        ProductMetadata("lines", "", 200.0, 8000.0, 1e9, **numbers),
        ProbePositionSequence([ProbePosition(FIRST_INDEX + i, x[i], y[i]) for i in range(len(scan))]),
        ProbeSequence(scan.probe[None], None, square),
        Object(truth.object, square, ObjectCenter(0.0, 0.0)),
        [],
    )
    source = tmp_path / "in"
    source.mkdir()
    io.save_product(source / "product.h5", product)
    io.save_diffraction_data(source / "diffraction.h5", generate_diffraction_data(product))
    return source


def test_a_child_reconstructs_a_folder_of_ptychodus(folder, tmp_path):
    target = tmp_path / "out"
    command = [sys.executable, "-m", "ptychonnx.harness.cli", "ptychodus-child", "--model", "zoo:any_64"]
    command += ["-i", str(folder), "-o", str(target)]
    run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stdout + (target / "ptychodus.log").read_text()
    events = [json.loads(line) for line in run.stdout.splitlines()]
    assert [event["event"] for event in events] == ["started", "epoch", "finished"]
    assert events[1]["loss"] < 0.1
    before, after = (io.load_product(path / "product.h5") for path in (folder, target))
    known, made = ([*product.probe_positions] for product in (before, after))
    assert [position.index for position in made] == [position.index for position in known]
    shift = [(a.x_m - b.x_m, a.y_m - b.y_m) for a, b in zip(made, known, strict=True)]
    # The origin of positions is free.
    assert np.ptp(shift, axis=0).max() < 1e-3 * ptychonnx.simulate_lines(grid=2).pixel_size
    layer = after.object_.get_layer(0)
    assert np.std(np.angle(layer[layer != 0])) > 0.1


@pytest.mark.skipif(TRAINING is None, reason="PTYCHONNX_TRAINING_PYTHON names no interpreter")
def test_sigterm_ends_the_iterations_with_a_product_of_ptychodus(folder, tmp_path):
    command = [TRAINING, "-m", "ptychonnx.harness.cli", "ptychodus-child", "--model", "zoo:any_64"]
    command += ["-i", str(folder), "-o", str(tmp_path / "out"), "--refine", "100000"]
    events = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            events.append(json.loads(line))
            if events[-1]["event"] == "epoch" and events[-1]["epoch"] == 2:
                process.send_signal(signal.SIGTERM)
    assert process.returncode == 130
    assert {"event": "cancelling", "signal": "SIGTERM"} in events
    assert (events[-1]["event"], events[-1]["cancelled"]) == ("finished", True)
    known, product = (io.load_product(path / "product.h5") for path in (folder, tmp_path / "out"))
    assert np.isfinite(product.object_.get_array()).all()
    np.testing.assert_array_equal(product.probe_positions.get_indexes(), known.probe_positions.get_indexes())
