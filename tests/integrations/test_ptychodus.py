"""The package `ptychodus-ptychonnx` in ptychodus itself, without a screen: see `make test-ptychodus`."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest

import ptychonnx

pytestmark = pytest.mark.ptychodus
io = pytest.importorskip("ptychodus.api.io", reason="ptychodus is not installed")
integration = pytest.importorskip("ptychodus_ptychonnx", reason="ptychodus-ptychonnx is not installed")

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("PTYCHONNX_DATA", ROOT.parent / "shared" / "data"))
STAR, REFERENCE = DATA / "siemens-star-small.npz.bz2", DATA / "siemens_reference.npz"
TRAINING = os.environ.get("PTYCHONNX_TRAINING_PYTHON")
FILE_TYPE = "ptychonnx"


@pytest.fixture
def model():
    from ptychodus.model import ModelCore

    with ModelCore() as core:
        integration.register(core)
        yield core


@pytest.fixture
def scan():
    return ptychonnx.simulate_lines(grid=8)


@pytest.fixture
def file(scan, tmp_path):
    path = tmp_path / "lines.npz"
    ptychonnx.write_scan(path, scan)
    return path


@pytest.fixture
def opened(model, file):
    return opened_by(model, file)


def opened_by(model, path):
    """The product of a file that ptychonnx reads, with its patterns."""
    # The settings of ptychodus crop to 64 x 64 pixels by default.
    diffraction = model.workflow_api.load_diffraction_data(
        path, file_type=FILE_TYPE, process_patterns=False, block=True
    )
    model.run_tasks()
    return model.workflow_api.load_product(path, file_type=FILE_TYPE, diffraction=diffraction)


def reconstructed(model, product):
    output = product.reconstruct_local(algorithm=integration.ALGORITHM, block=True)
    model.run_tasks()
    return output


def assert_same_figures(rows):
    """To the digits that a report prints."""
    first, second = rows["ptychodus"], rows["own"]
    for part in ("amplitude", "phase"):
        for name in ("ssim", "pearson", "mae", "psnr"):
            assert first[part][name] == pytest.approx(second[part][name], abs=1e-4), (part, name)
    assert first["misfit"]["value"] == pytest.approx(second["misfit"]["value"], abs=1e-4)
    assert first["region"] == second["region"]


def figures(scan, path, network=None, **options):
    """Rows of an evaluation of ptychodus' object next to the object that ptychonnx makes by itself."""
    own = path.with_name("own.h5")
    ptychonnx.reconstruct(network, scan, out=own)
    evaluation = ptychonnx.evaluate([], scan, objects={"ptychodus": path, "own": own}, **options)
    return evaluation.as_json()["rows"]


def test_the_library_is_registered_once(model):
    integration.register(model)
    names = list(model.workflow_api.available_reconstructors())
    assert names.count(integration.ALGORITHM) == 1


def test_ptychodus_loads_the_file_plugins(model):
    plugins = model.plugin_registry
    for chooser in (
        plugins.diffraction_file_readers,
        plugins.product_file_readers,
        plugins.product_file_writers,
        plugins.probe_file_readers,
        plugins.object_file_readers,
        plugins.probe_position_file_readers,
    ):
        assert chooser.find_plugin(FILE_TYPE) is not None


def test_a_scan_is_reconstructed_and_its_product_is_judged_as_our_own(model, scan, opened, tmp_path):
    goals = []
    monitor = model.processing_core.processing_api.task_monitor
    report = monitor.update_progress
    monitor.update_progress = lambda done, goal: (goals.append((done, goal)), report(done, goal))
    output = reconstructed(model, opened)
    assert [goal for goal in goals if 0 < goal[0] < 64 == goal[1]]
    assert goals[-2:] == [(64, 64), (1, 1)]
    assert output.get_product().losses[0].value < 0.1
    output.save_product(tmp_path / "product.h5", file_type="HDF5")
    again = model.workflow_api.load_product(tmp_path / "product.h5", file_type="HDF5").get_product()
    known, made = opened.get_product(), again
    np.testing.assert_array_equal(
        made.probe_positions.get_coordinates_x_m(), known.probe_positions.get_coordinates_x_m()
    )
    rows = figures(scan, tmp_path / "product.h5")
    assert rows["own"]["phase"]["ssim"] > 0.7
    assert_same_figures(rows)


def test_the_object_lies_where_the_known_object_lay(model, scan, opened):
    geometry = reconstructed(model, opened).get_product().object_.get_geometry()
    pixel = scan.pixel_size
    first = np.array([geometry.center_y_m, geometry.center_x_m]) / pixel
    first -= (np.array([geometry.height_px, geometry.width_px]) - 1) / 2
    own = ptychonnx.reconstruct(None, scan).stitched
    np.testing.assert_allclose(first, own.origin, atol=1e-6)
    assert (geometry.height_px, geometry.width_px) == own.shape


def test_patterns_of_the_plugin_are_counts(model, scan, opened):
    counts = opened.get_reconstruct_input().diffraction_patterns
    np.testing.assert_allclose(np.sqrt(counts), scan.diffraction, atol=1e-4 * scan.diffraction.max())


def test_a_run_is_cancelled_between_batches(model, opened):
    monitor = model.processing_core.processing_api.task_monitor
    report, seen = monitor.update_progress, []

    def stop_at_the_first_batch(done, goal):
        report(done, goal)
        if done:
            seen.append((done, goal))
            monitor.stop_processing()

    monitor.update_progress = stop_at_the_first_batch
    output = reconstructed(model, opened)
    ((done, goal),) = seen
    assert 0 < done < goal == 64
    assert monitor.get_last_error() is None
    before, after = opened.get_product(), output.get_product()
    np.testing.assert_array_equal(after.object_.get_array(), before.object_.get_array())


def test_cancelling_the_epochs_after_the_network_keeps_the_object(model, opened, scan, caplog):
    model.settings_registry["ptychonnx"].parameters()["RefinementEpochs"].set_value(30)
    monitor = model.processing_core.processing_api.task_monitor
    report = monitor.update_progress

    def stop_at_the_second_epoch(done, goal):
        report(done, goal)
        if (done, goal) == (2, 30):
            monitor.stop_processing()

    monitor.update_progress = stop_at_the_second_epoch
    output = reconstructed(model, opened)
    assert monitor.get_last_error() is None
    two = ptychonnx.reconstruct(None, scan, refine=2)
    np.testing.assert_allclose(output.get_product().object_.get_layer(0), two.object, atol=1e-3)
    assert "Cancelled, and the object so far is kept: 2 epochs of mPIE" in caplog.text


def test_a_model_is_loaded_run_and_saved(model, opened, tmp_path):
    processing = model.processing_core.processing_api
    path = tmp_path / "network.onnx"
    shutil.copyfile(ptychonnx.zoo.path("pinn_fno"), path)
    processing.load_model_from_file(path, integration.ALGORITHM)
    fno = reconstructed(model, opened).get_product().object_.get_array()
    expected = ptychonnx.reconstruct("zoo:pinn_fno", ptychonnx.read_scan(tmp_path / "lines.npz")).object
    np.testing.assert_allclose(np.squeeze(fno), expected, atol=1e-4)
    processing.save_model_to_file(tmp_path / "saved.onnx")
    assert (tmp_path / "saved.onnx").read_bytes() == path.read_bytes()
    path.write_bytes(b"no network")
    with pytest.raises(ptychonnx.InputError, match=r"network\.onnx"):
        processing.load_model_from_file(path)


def test_a_failure_reaches_ptychodus(model, opened):
    # Patterns of 60 x 60 pixels, for which the zoo has no network.
    given = opened.get_product()
    parameters = opened.get_reconstruct_input()
    small = replace(parameters, diffraction_patterns=parameters.diffraction_patterns[:, 2:-2, 2:-2])
    model.processing_core.algorithm_parameter.set_value(integration.ALGORITHM)
    reconstructor = model.processing_core.algorithm_parameter.get_current_reconstructor()
    with pytest.raises(ptychonnx.InputError):
        list(
            reconstructor.reconstruct(replace(small, product=given, bad_pixels=small.bad_pixels[2:-2, 2:-2]))
        )


def test_our_file_is_a_product_with_the_misfit_as_loss(model, opened, scan, tmp_path):
    result = ptychonnx.reconstruct("zoo:pinn_fno", scan, out=tmp_path / "own.h5")
    diffraction = model.workflow_api.load_diffraction_data(
        tmp_path / "lines.npz", file_type=FILE_TYPE, process_patterns=False, block=True
    )
    product = model.workflow_api.load_product(
        tmp_path / "own.h5", file_type=FILE_TYPE, diffraction=diffraction
    ).get_product()
    assert [loss.value for loss in product.losses] == [pytest.approx(result.misfit.value)]
    np.testing.assert_array_equal(product.object_.get_layer(0), result.object)
    assert product.object_.get_pixel_geometry().width_m == pytest.approx(scan.pixel_size)


def test_a_file_without_pixel_size_or_wavelength_is_refused(model, scan, tmp_path):
    bare = replace(scan, pixel_size=None)
    ptychonnx.write_scan(tmp_path / "bare.npz", bare)
    ptychonnx.write_scan(tmp_path / "dark.npz", replace(scan, wavelength=None))
    ptychonnx.reconstruct(None, bare, out=tmp_path / "bare.h5")
    reader = model.plugin_registry.product_file_readers.get_strategy_by_name(FILE_TYPE)
    for name, what in (("bare.npz", "pixel size"), ("bare.h5", "pixel size"), ("dark.npz", "wavelength")):
        with pytest.raises(ptychonnx.InputError, match=f"{name}: the {what} is unknown"):
            reader.read(tmp_path / name)


def test_a_written_product_has_plots_and_opens_again(model, opened, scan, tmp_path):
    path = tmp_path / "plots.h5"
    opened.save_product(path, file_type=FILE_TYPE)
    np.testing.assert_array_equal(io.load_product(path).object_.get_layer(0), scan.reference.object)
    with h5py.File(path) as file:
        assert file.attrs["default"] == "entry"
        plot = file["entry/phase"]
        assert plot.attrs["NX_class"] == "NXdata"
        np.testing.assert_allclose(plot["phase"], np.angle(scan.reference.object), atol=1e-6)
        np.testing.assert_allclose(plot["x"][0], scan.reference.origin[1] * scan.pixel_size * 1e6, atol=1e-9)


@pytest.fixture
def folder(opened, tmp_path):
    """The folder of a batch run."""
    source = tmp_path / "in"
    source.mkdir()
    parameters = opened.get_reconstruct_input()
    from ptychodus_ptychonnx.products import write_input

    write_input(source, parameters)
    settings = f"[Processing]\nAlgorithm = {integration.ALGORITHM}\n"
    (source / "settings.ini").write_text(settings)
    return source


def launched(*arguments, path=()):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))} if path else None
    command = [sys.executable, "-m", "ptychodus_ptychonnx", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, env=environment)


def test_a_batch_run_writes_the_product(folder, scan, tmp_path):
    run = launched("-b", "reconstruct", "-i", folder, "-o", tmp_path / "out")
    assert run.returncode == 0, run.stdout + run.stderr
    rows = figures(scan, tmp_path / "out" / "product.000001.h5")
    assert_same_figures(rows)


@pytest.mark.skipif(TRAINING is None, reason="PTYCHONNX_TRAINING_PYTHON names no interpreter with torch")
def test_sigterm_ends_a_batch_run_and_the_training_in_it(folder, tmp_path):
    with (folder / "settings.ini").open("a") as settings:
        settings.write(f"[ptychonnx]\nTrainingEpochs = 1000\nTrainingPython = {TRAINING}\n")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "ptychodus_ptychonnx", "-b", "train", "-i", folder, "-o", out]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as run:
        training = wait_for(lambda: trainings(out))
        run.terminate()
        assert run.wait(60) == 130, run.stdout.read()
    assert training
    assert not trainings(out)
    assert not (out / "model.onnx").exists()


def trainings(out):
    """Processes that train into a folder."""
    commands = [path.read_bytes().split(b"\0") for path in Path("/proc").glob("[0-9]*/cmdline")]
    return [
        command
        for command in commands
        if b"train" in command and os.fsencode(out / "ptychonnx_run") in command
    ]


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.1)
    return value


def test_the_patch_applies_and_makes_registration_an_entry_point(tmp_path):
    import ptychodus

    package = tmp_path / "patched" / "ptychodus"
    shutil.copytree(Path(ptychodus.__file__).parent, package)
    patch = ROOT / "integrations" / "ptychodus" / "entry-point.patch"
    subprocess.run(["patch", "-s", "-p2", "-d", package.parent, "-i", patch], check=True)
    program = (
        "from ptychodus.model import ModelCore\n"
        "import ptychodus, ptychodus_ptychonnx\n"
        "print(ptychodus.__file__)\n"
        "core = ModelCore()\n"
        "ptychodus_ptychonnx.register(core)\n"
        "print(*core.workflow_api.available_reconstructors())\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(package.parent)},
    )
    where, *_, names = run.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path)
    assert names.split().count(integration.ALGORITHM) == 1


@pytest.mark.skipif(TRAINING is None, reason="PTYCHONNX_TRAINING_PYTHON names no interpreter with torch")
def test_training_reports_epochs_and_loads_the_network(model, opened, tmp_path):
    from ptychodus.api.reconstruct import TrainOutput

    library = model.settings_registry["ptychonnx"]
    library.parameters()["TrainingPython"].set_value(TRAINING)
    library.parameters()["TrainingEpochs"].set_value(2)
    data = tmp_path / "data"
    data.mkdir()
    opened.export_training_data(data / "lines.h5", algorithm=integration.ALGORITHM)
    trainer = model.processing_core.algorithm_parameter.get_current_reconstructor()
    outputs = list(trainer.train(data, tmp_path))
    assert all(isinstance(output, TrainOutput) for output in outputs)
    assert outputs[-1].progress == 2
    assert [loss.epoch for loss in outputs[-1].training_loss] == [1, 2]
    with (tmp_path / "ptychonnx_run" / "history.csv").open() as history:
        losses = [float(row["loss"]) for row in csv.DictReader(history)]
    assert [loss.value for loss in outputs[-1].training_loss] == losses
    trainer.save_model(tmp_path / "saved.onnx")
    assert ptychonnx.Session(tmp_path / "saved.onnx").contract.n == 64


@pytest.mark.skipif(TRAINING is None, reason="PTYCHONNX_TRAINING_PYTHON names no interpreter with torch")
def test_a_training_is_cancelled_in_ptychodus_and_goes_on(model, opened, tmp_path):
    parameters = model.settings_registry["ptychonnx"].parameters()
    parameters["TrainingPython"].set_value(TRAINING)
    parameters["TrainingEpochs"].set_value(1000)
    data = tmp_path / "data"
    data.mkdir()
    opened.export_training_data(data / "lines.h5", algorithm=integration.ALGORITHM)
    monitor = model.processing_core.processing_api.task_monitor
    report, epochs = monitor.update_progress, []

    def stop_after_two_epochs(done, goal):
        report(done, goal)
        if goal == 1000:
            epochs.append(done)
            if done >= 2:
                monitor.stop_processing()

    monitor.update_progress = stop_after_two_epochs
    # Returns when the training has ended.
    opened.train_reconstructor_local(data, tmp_path, algorithm=integration.ALGORITHM, block=True)
    assert 2 <= epochs[-1] < 1000
    assert monitor.get_last_error() is None
    assert not trainings(tmp_path)
    assert not (tmp_path / "model.onnx").exists()
    # The next training in these folders goes on where this one was.
    monitor.update_progress = report
    with monitor:
        trainer = model.processing_core.algorithm_parameter.get_current_reconstructor().train(data, tmp_path)
        again = next(output for output in trainer if output.progress > epochs[-1])
        trainer.close()
    assert [loss.epoch for loss in again.training_loss] == list(range(1, again.progress + 1))
    assert not trainings(tmp_path)


def test_a_failed_training_says_why(model, opened, tmp_path):
    model.processing_core.algorithm_parameter.set_value(integration.ALGORITHM)
    model.settings_registry["ptychonnx"].parameters()["Architecture"].set_value("no_such_network")
    trainer = model.processing_core.algorithm_parameter.get_current_reconstructor()
    opened.export_training_data(tmp_path / "lines.h5")
    with pytest.raises(RuntimeError, match="no_such_network"):
        list(trainer.train(tmp_path, tmp_path))


@pytest.mark.skipif(not STAR.is_file(), reason=f"no measured scan at {STAR}: set PTYCHONNX_DATA")
def test_the_measured_star_is_judged_as_our_own(model, tmp_path):
    # The file is in pixels; ptychodus needs metres and an energy, which no figure depends on.
    options = ptychonnx.ReadOptions(pixel_size=1e-8)
    star = replace(ptychonnx.read_scan(STAR, options=options, estimate_probe=True), wavelength=1.4e-10)
    ptychonnx.write_scan(tmp_path / "star.npz", star)
    processing = model.processing_core.processing_api
    processing.load_model_from_file(ptychonnx.zoo.path("any_128"), integration.ALGORITHM)
    output = reconstructed(model, opened_by(model, tmp_path / "star.npz"))
    output.save_product(tmp_path / "product.h5", file_type="HDF5")
    again = model.workflow_api.load_product(tmp_path / "product.h5", file_type="HDF5")
    assert again.get_product().metadata.name.startswith("star")
    rows = figures(tmp_path / "star.npz", tmp_path / "product.h5", "zoo:any_128", references=[REFERENCE])
    assert rows["own"]["phase"]["pearson"] > 0.5
    assert_same_figures(rows)
