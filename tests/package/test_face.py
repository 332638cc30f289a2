"""`import ptychonnx`: what it offers, and what it costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import ptychonnx
from ptychonnx.export.artifact.export_options import ExportOptions
from ptychonnx.harness.simulate.lines_dataset import LinesConfig, build_lines
from ptychonnx.runtime.contract import TrainingProbe

HEAVY = (
    "torch",
    "tensorflow",
    "keras",
    "numba",
    "matplotlib",
    "skimage",
    "onnx",
    "onnxruntime",
    "scipy",
    "h5py",
    "numpy",
)
PROGRAM = f"import sys, ptychonnx; print([name for name in {HEAVY} if name in sys.modules])"


def run_python(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_import_loads_nothing_heavy() -> None:
    assert run_python(PROGRAM) == "[]"


def test_the_import_takes_less_than_three_tenths_of_a_second_of_the_processor() -> None:
    program = "import time; t = time.process_time(); import ptychonnx; print(time.process_time() - t)"
    assert min(float(run_python(program)) for _ in range(3)) < 0.3


def test_looking_does_not_load() -> None:
    program = (
        f"import sys, ptychonnx; dir(ptychonnx); print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert run_python(program) == "[]"


def test_every_public_name_is_there_and_documented() -> None:
    assert set(ptychonnx.__all__) == set(dir(ptychonnx))
    for name in ptychonnx.__all__:
        assert getattr(ptychonnx, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'reconstrcut'"):
        ptychonnx.reconstrcut  # noqa: B018


def test_type_checkers_see_the_names_that_are_loaded_when_used() -> None:
    tree = ast.parse(Path(ptychonnx.__file__).read_text(encoding="utf-8"))
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    imported = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert imported == ptychonnx._MODULES | {"zoo": "ptychonnx"}
    assert set(imported) | {"__version__"} == set(ptychonnx.__all__)


def test_a_simulated_scan_is_the_test_scan_of_the_command(tmp_path: Path) -> None:
    options = {"n": 32, "probe": "disk", "photons": 1e5, "step": 5, "jitter": 2, "seed": 3}
    contrast = {"absorption": 0.2, "phase_shift": 0.7}
    dataset = build_lines(LinesConfig(train_grid=2, test_grid=4, **options, **contrast), tmp_path)
    theirs = ptychonnx.read_scan(str(dataset.test))
    ours = ptychonnx.simulate_lines(4, **options, **contrast)
    np.testing.assert_array_equal(ours.diffraction, np.asarray(theirs.diffraction))
    np.testing.assert_array_equal(ours.positions, theirs.positions)
    np.testing.assert_array_equal(ours.reference.object, theirs.reference.object)


def test_one_call_reconstructs_from_names_paths_or_open_things(tmp_path: Path) -> None:
    scan = ptychonnx.simulate_lines(4)
    ptychonnx.write_scan(str(tmp_path / "scan.npz"), scan)
    session = ptychonnx.Session("zoo:baseline", "cpu")
    objects = [
        ptychonnx.reconstruct(model, source).object
        for model, source in (
            (session, scan),
            ("zoo:baseline", str(tmp_path / "scan.npz")),
            (ptychonnx.zoo.path("baseline"), tmp_path / "scan.npz"),
        )
    ]
    for other in objects[1:]:
        np.testing.assert_array_equal(other, objects[0])


def test_a_network_missing_from_the_zoo_is_named() -> None:
    with pytest.raises(
        ptychonnx.InputError,
        match=r"no network is named 'pinn_vit', expected one of any_128, any_128_grid2, any_256, any_256_grid2, any_64",
    ):
        ptychonnx.Session("zoo:pinn_vit")


def test_the_keywords_of_export_run_are_the_options_with_their_defaults() -> None:
    defaults = ptychonnx.export_run.__kwdefaults__
    fields = ExportOptions.model_fields
    assert {name: defaults[name] for name in fields} == {
        name: field.default for name, field in fields.items()
    }


def test_the_keywords_of_export_module_are_the_options_with_their_defaults() -> None:
    pytest.importorskip("torch")
    from ptychonnx.export.artifact.export_module import ModuleOptions

    defaults = ptychonnx.export_module.__kwdefaults__
    fields = ModuleOptions.model_fields
    assert {name: defaults[name] for name in fields} == {
        name: field.default for name, field in fields.items()
    }


def test_the_keywords_of_simulate_lines_are_the_parameters_with_their_defaults() -> None:
    defaults = ptychonnx.simulate_lines.__kwdefaults__
    config = LinesConfig()
    shared = set(defaults) - {"name"}
    assert {name: defaults[name] for name in shared} == {name: getattr(config, name) for name in shared}
    assert ptychonnx.simulate_lines.__defaults__ == (config.test_grid,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"scan": np.ones((4, 64, 64), dtype=np.float32)},
            "scan: got ndarray, expected a Scan or the path of a file",
        ),
        ({"scan": None}, "scan: got NoneType"),
        ({"refine": 1.5}, "refine = 1.5: is neither a number from 0 nor 'auto'"),
        ({"batch": 2.5}, "batch = 2.5: is neither a number above 0 nor 'auto'"),
        ({"batch": True}, "batch = True"),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ptychonnx.InputError, match=re.escape(message)):
        ptychonnx.reconstruct("zoo:pinn_fno", **{"scan": ptychonnx.simulate_lines(grid=2), **arguments})


@pytest.mark.parametrize("threads", [0, -1, 1.5, "two"])
def test_threads_that_are_none_are_refused(threads: object) -> None:
    with pytest.raises(ptychonnx.InputError, match=f"{threads} threads, expected a number above 0"):
        ptychonnx.Session("zoo:pinn_fno", "cpu", threads)


@pytest.mark.parametrize("scans", [None, 3, [None], ["scan.npz", 3]])
def test_scans_that_are_no_paths_are_refused_before_anything_is_written(
    scans: object, tmp_path: Path
) -> None:
    with pytest.raises(ptychonnx.InputError, match=r"scans: got \w+, expected paths of files"):
        ptychonnx.reconstruct_scans("zoo:pinn_fno", scans, tmp_path / "objects")
    assert not list(tmp_path.iterdir())


def test_one_path_is_one_scan_and_a_folder_is_no_file(tmp_path: Path) -> None:
    path = tmp_path / "scan.npz"
    ptychonnx.write_scan(path, ptychonnx.simulate_lines(grid=2))
    records = ptychonnx.reconstruct_scans("zoo:pinn_fno", str(path), tmp_path / "objects")
    assert [record.result for record in records] == ["scan.h5"]
    with pytest.raises(ptychonnx.InputError, match="is a file, expected a folder"):
        ptychonnx.reconstruct_scans("zoo:pinn_fno", path, path)
    with pytest.raises(ptychonnx.InputError, match="executor: got int"):
        ptychonnx.reconstruct_scans("zoo:pinn_fno", path, tmp_path / "none", executor=4)
    assert not (tmp_path / "none").exists()


def test_evaluate_and_write_scan_name_what_they_got_instead(tmp_path: Path) -> None:
    scan = ptychonnx.simulate_lines(grid=2)
    for artifacts, scans, message in (
        (None, scan, "artifacts: got NoneType, expected a Predictor"),
        ([3], scan, "artifacts: got int, expected a Predictor"),
        ("zoo:pinn_fno", {"a": scan}, "scans: got dict, expected a Scan"),
    ):
        with pytest.raises(ptychonnx.InputError, match=message):
            ptychonnx.evaluate(artifacts, scans)
    with pytest.raises(ptychonnx.InputError, match="got ndarray to write, expected a Scan"):
        ptychonnx.write_scan(tmp_path / "scan.npz", scan.diffraction)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ptychonnx.Contract(label="x"), "Contract: setting architecture: "),
        (
            lambda: TrainingProbe(sha256=None, modes=-1, flux=1),
            "TrainingProbe: setting modes = -1: expected a value gr",
        ),
        (
            lambda: ptychonnx.ReadOptions(crop=-1),
            "ReadOptions: setting crop = -1: expected a value greater than",
        ),
        (lambda: ptychonnx.ReadOptions(nonsense=1), "ReadOptions: setting nonsense = 1: unknown setting"),
    ],
)
def test_models_that_are_built_in_python_refuse_wrong_values_in_one_line(build, message) -> None:
    with pytest.raises(ptychonnx.InputError, match=re.escape(message)) as refusal:
        build()
    assert "\n" not in str(refusal.value)
