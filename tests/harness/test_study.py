"""The lines study from simulation to report, in each framework."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from ptychonnx.harness.study import lines_study
from ptychonnx.harness.study.lines_study import plan_lines, run_plan
from ptychonnx.runtime.errors import EnvironmentFailure, InputError
from ptychonnx.runtime.inference import Session
from ptychonnx.train.registry import get_architecture

FRAMEWORK = {"torch": ("lightning", "fno"), "tensorflow": ("tensorflow", "baseline")}


def test_the_plan_names_runs_and_artifacts_by_their_labels(tmp_path):
    plan = plan_lines(["cnn", "baseline"], tmp_path, seed=3)
    words = [command[0] for command in plan.commands]
    assert words == ["simulate", "train", "export", "train", "export", "evaluate"]
    assert plan.models == (tmp_path / "models" / "pinn_cnn.onnx", tmp_path / "models" / "baseline.onnx")
    assert all("3" in command for command in plan.commands if command[0] in {"simulate", "train"})


@pytest.mark.parametrize(
    ("names", "message"),
    [(["resnet"], "'resnet' is unknown"), (["cnn", "cnn"], "given twice"), ([], "no architecture")],
)
def test_a_study_of_nothing_known_is_refused(tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        plan_lines(names, tmp_path)


def test_networks_of_several_patterns_have_it_in_the_names_of_their_files(tmp_path):
    plan = plan_lines(["hybrid"], tmp_path, settings={"gridsize": 2})
    assert plan.models == (tmp_path / "models" / "pinn_hybrid_grid2.onnx",)
    (training,) = (command for command in plan.commands if command[0] == "train")
    assert str(tmp_path / "runs" / "pinn_hybrid_grid2") in training
    assert " --gridsize 2" in " ".join(training)


def test_a_setting_is_that_of_the_networks_that_have_it(tmp_path):
    plan = plan_lines(["cnn", "fno"], tmp_path, settings={"modes": 5, "width": 8})
    cnn, fno = (" ".join(command) for command in plan.commands if command[0] == "train")
    assert " --width 8" in cnn
    assert " --width 8 " in f"{fno} "
    assert "--modes" not in cnn
    assert " --modes 5" in fno
    with pytest.raises(InputError, match="--modes: cnn does not have it"):
        plan_lines(["cnn", "unet"], tmp_path, settings={"modes": 5})


def test_a_setting_out_of_range_is_refused_before_anything_is_simulated(tmp_path):
    with pytest.raises(InputError, match="gridsize"):
        plan_lines(["hybrid"], tmp_path, settings={"gridsize": 9})


@pytest.mark.integration
@pytest.mark.parametrize(("framework", "gridsize"), [("torch", 2), ("tensorflow", 2), ("tensorflow", 1)])
def test_a_tiny_study_runs_from_simulation_to_report(tmp_path, framework, gridsize):
    package, name = FRAMEWORK[framework]
    pytest.importorskip(package)
    settings = {
        **{"epochs": 1, "width": 8, "blocks": 1, "modes": 8, "first_steps": 2, "final_steps": 1},
        **{"gridsize": gridsize, "overlap": 1, "learning_rate": 1e-2},
    }
    plan = plan_lines(
        [name],
        tmp_path,
        simulate_options=["--n", "32", "--train-grid", "9", "--test-grid", "6", "--step", "4"],
        settings={key: value for key, value in settings.items() if key not in get_architecture(name).unused},
    )
    announced = []
    run_plan(plan, announced.append, print)
    assert len(announced) == 4
    (model,) = plan.models
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    contract = Session(model).contract
    assert contract.gridsize == gridsize
    assert contract.label == model.stem
    row = metrics["rows"][contract.label]
    assert row["parity"]["max_relative_error"] < 1e-4
    assert -1 <= row["amplitude"]["pearson"] <= 1
    page = plan.report.read_text()
    assert model.stem in page
    assert plan.recipe.read_text().splitlines()[1:] == announced
    assert f"train {name}" in page


def test_options_of_a_study_reach_every_training_and_a_file_can_hold_them(run, tmp_path, monkeypatch):
    plans = []
    monkeypatch.setattr("ptychonnx.harness.cli.study.run_plan", lambda plan, **_: plans.append(plan))
    settings = tmp_path / "settings.yaml"
    settings.write_text("architectures: [fno, cnn]\ngridsize: 2\nstep: 4\nlearning_rate: 1e-3\nseed: 5\n")
    code, _, err = run(
        "study", "lines", "--out", tmp_path, "--config", settings, "--seed", 7, "--resume", "--ptychopinn"
    )
    assert code == 0, err
    code, _, err = run("study", "lines", "--out", tmp_path, "--config", tmp_path / "study.yaml", "--resume")
    assert code == 0, err
    simulated, *trained = [command for command in plans[0].commands if command[0] in {"simulate", "train"}]
    assert simulated[simulated.index("--step") :][:2] == ("--step", "4")
    assert [command[1] for command in trained] == ["fno", "cnn"]
    for command in trained:
        line = " ".join(command)
        assert "--seed 7 --gridsize 2 --learning-rate 0.001 --resume" in line
    assert "--ptychopinn" in plans[0].evaluation
    # The resolved copy gives the same trainings.
    assert plans[1].commands[1:] == plans[0].commands[1:]


@pytest.mark.integration
def test_a_study_stops_at_the_first_command_that_fails(tmp_path):
    plan = plan_lines(["fno"], tmp_path, simulate_options=["--n", "3"])
    with pytest.raises(InputError, match="the study stopped with exit code 2 at: ptychonnx simulate lines"):
        run_plan(plan, print, print)
    assert not (tmp_path / "runs").exists()


@pytest.mark.integration
def test_networks_run_side_by_side_each_on_its_share_of_the_cores(tmp_path, capfd, monkeypatch):
    # The first two trainings wait for each other, so the study only ends if they run at the same time.
    program = (
        "import os, sys, time; from pathlib import Path; end = time.monotonic() + 120\n"
        f"here = Path({str(tmp_path)!r}); pair = ('cnn', 'fno')\n"
        "if sys.argv[1] == 'train' and sys.argv[2] in pair:\n"
        "    (here / sys.argv[2]).touch()\n"
        "    while not all((here / name).exists() for name in pair): time.monotonic() > end and sys.exit(9)\n"
        "print(sys.argv[2], len(os.sched_getaffinity(0)), os.environ.get('OMP_NUM_THREADS'))"
    )
    start = subprocess.Popen
    monkeypatch.setattr(
        subprocess, "Popen", lambda words, **rest: start([words[0], "-c", program, *words[3:]], **rest)
    )
    plan = plan_lines(["cnn", "fno", "hybrid"], tmp_path)
    announced, shown = [], []
    run_plan(plan, announced.append, shown.append, at_once=2)
    assert sorted(announced) == sorted(plan.recipe.read_text().splitlines()[1:])
    assert (announced[0].split()[1], announced[-1].split()[1]) == ("simulate", "evaluate")
    alone = capfd.readouterr().out.splitlines()
    assert [line.split()[0] for line in alone] == ["lines", plan.models[0].as_posix()]
    lines = alone + "".join(shown).splitlines()
    cores = len(os.sched_getaffinity(0))
    if cores > 1:
        assert [line.split()[1:] for line in lines if line.startswith("fno")] == [[str(cores // 2)] * 2]
    assert len(lines) == 8


@pytest.mark.integration
def test_a_failure_of_one_network_stops_the_others(tmp_path, monkeypatch):
    start = subprocess.Popen
    # The other training outlasts the one that fails.
    program = (
        "import sys, time; from pathlib import Path\n"
        f"failing, end = Path({str(tmp_path)!r}, 'failing'), time.monotonic() + 120\n"
        "if sys.argv[2] == 'cnn': failing.touch(); sys.exit(3)\n"
        "while sys.argv[2] == 'fno' and not failing.exists() and time.monotonic() < end: time.sleep(0.01)\n"
        "time.sleep(sys.argv[2] == 'fno')"
    )
    monkeypatch.setattr(
        subprocess, "Popen", lambda words, **rest: start([words[0], "-c", program, *words[3:]], **rest)
    )
    announced = []
    with pytest.raises(EnvironmentFailure, match="exit code 3 at: ptychonnx train cnn"):
        run_plan(plan_lines(["cnn", "fno", "hybrid"], tmp_path), announced.append, print, at_once=2)
    # The training that ran beside it ends; nothing begins after the failure.
    assert sorted(line.split()[2] for line in announced) == ["cnn", "fno", "lines"]


def test_an_interrupted_study_lets_its_command_clear_up(tmp_path, monkeypatch):
    command = tmp_path / "command"
    command.write_text(
        f"#!{sys.executable}\n"
        "import os, pathlib, time\n"
        "here = pathlib.Path(__file__).parent\n"
        "try:\n"
        "    (here / 'pid').write_text(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    time.sleep(1)\n"
        "    (here / 'cleared').touch()\n"
    )
    command.chmod(0o755)
    monkeypatch.setattr(lines_study.sys, "executable", str(command))

    # A process in the background of a shell ignores SIGINT, and so do its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupt():
        while not (started := tmp_path / "pid").is_file() or not started.read_text():
            time.sleep(0.01)
        os.kill(int(started.read_text()), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            lines_study._process(["train"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert (tmp_path / "cleared").is_file()
