"""Every failure of the command line is one line and an exit code, whatever raised it."""

from __future__ import annotations

import errno
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.table import Table
from rich.text import Text

import ptychonnx
from ptychonnx.harness.cli import console
from ptychonnx.runtime.errors import DeviceError, EnvironmentFailure, InputError, InternalError, ServerError
from ptychonnx.runtime.formats import write_scan


@pytest.fixture
def failing(run, monkeypatch, tmp_path):
    """`failing(error)` runs a command whose work raises this error."""
    monkeypatch.setenv("PTYCHONNX_CACHE", str(tmp_path / "cache"))

    def call(error: BaseException, *before: str) -> tuple[int, list[str]]:
        def raise_it(*arguments: object) -> None:
            raise error

        monkeypatch.setattr("ptychonnx.harness.cli.simulate.build_lines", raise_it)
        code, out, err = run(*before, "simulate", "lines", "--out", tmp_path / "out")
        assert out == ""
        assert "Traceback" not in err
        return code, err.splitlines()

    return call


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ServerError("grpc://h:1/m: refused"), 3, "Error: grpc://h:1/m: refused"),
        (DeviceError("GPU 0: out of memory"), 3, "Error: GPU 0: out of memory"),
        (EnvironmentFailure("killed"), 3, "Error: killed"),
        (OSError(errno.ENOSPC, "No space left on device", "o.h5"), 3, "Error: o.h5: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 3, "Error: /x: Permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a[b]"), 2, "Error: a[b]: No such"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "d"), 2, "Error: d: Is a directory"),
        (MemoryError(), 3, "Error: out of memory"),
        (KeyboardInterrupt(), 130, "Interrupted; nothing half-written was left behind."),
        (BrokenPipeError(), 141, "Simulating lines"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(failing, error, code, line, monkeypatch):
    monkeypatch.setattr(os, "dup2", lambda *descriptors: None)
    found, lines = failing(error)
    assert found == code
    assert lines[-1].startswith(line)
    assert len(lines) == (1 if code == 141 else 2)


def test_a_value_of_any_length_is_not_printed_whole(failing):
    _, lines = failing(InputError(f"provider = {'x' * 10**6}, expected one of auto, cpu"))
    assert lines[-1].startswith("Error: provider = xxx")
    assert lines[-1].endswith("xxx, expected one of auto, cpu")
    assert len(lines[-1]) < 1600


def test_a_terminal_obeys_nothing_in_a_name(capsys):
    name = "night\x1b[2J\u202e \udc80.cxi"
    shown = "night?[2J? ?.cxi"
    table = Table(name, box=None)
    table.add_row(name)
    console.output.print(table)
    console.output.print(Text(name, style="bold"))
    console.print_lines(f"{name}: 2 patterns")
    console.set_verbosity(0)
    with console.report_progress() as progress:
        progress.stage(name)
    written = capsys.readouterr()
    text = written.out + written.err
    assert text.count(shown) == 5
    assert {letter for letter in text if not letter.isprintable()} == {"\n"}


def test_a_name_of_two_lines_is_printed_in_one(capsys):
    name = "night\nError: none.cxi"
    console.set_verbosity(0)
    with console.report_progress() as progress:
        progress.stage(f"Reconstructing {name}")
    console.print_result(Path(name), [])
    written = capsys.readouterr()
    assert written.err.splitlines() == ["Reconstructing night Error: none.cxi"]
    assert written.out.splitlines() == ["night Error: none.cxi"]


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a [red] surprise\nin two lines"),
        InternalError("impossible"),
        ValueError("\udc80.npz, no UTF-8"),
    ],
)
def test_a_fault_leaves_its_traceback_in_a_file(failing, error, tmp_path):
    code, lines = failing(error)
    assert code == 4
    (log,) = (tmp_path / "cache" / "logs").iterdir()
    shown = " ".join(str(error).replace("\udc80", "?").split())
    assert lines[-1].startswith(f"Internal error: {type(error).__name__}: {shown}")
    assert lines[-1].endswith(str(log))
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert text.startswith("ptychonnx simulate lines --out")


def test_wrong_options_are_one_line_that_says_where_to_read_on(run):
    code, out, err = run("simulate", "lines", "--colour", "red")
    assert (code, out) == (2, "")
    assert (
        err
        == "Error: No such option: --colour (Possible options: --out). See ptychonnx simulate lines --help.\n"
    )
    code, _, err = run("simulate", "lines")
    assert (code, err) == (2, "Error: Missing option '--out'. See ptychonnx simulate lines --help.\n")
    code, _, err = run("simulate", "lines", "--out", "x", "--n", "many")
    assert code == 2
    assert err.startswith("Error: Invalid value for '--n': expected a valid integer, unable to parse ")
    assert len(err.splitlines()) == 1
    code, _, err = run("reconstruct", "scan.npz", "--weighting", "heavy", "--out", "x.h5")
    assert code == 2
    assert err.startswith("Error: Invalid value for '--weighting': 'heavy' is not one of 'probe', 'window', ")


@pytest.mark.parametrize("option", ["--canvas-memory", "--timeout", "--patience"])
def test_numbers_beyond_those_of_the_machine_are_refused(run, option):
    # Larger ones overflow where they become bytes or ticks of a clock.
    code, _, err = run("reconstruct", "zoo:baseline", "s.npz", "--out", "o.npz", option, "1e300")
    assert code == 2
    assert re.fullmatch(rf"Error: {option} 1e\+300: expected a value less than or equal to \d+\n", err)


def test_quiet_leaves_errors_and_warnings(failing):
    code, lines = failing(ServerError("refused"), "--quiet")
    assert (code, lines) == (3, ["Error: refused"])


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        (["--quiet"], ["Warning: w"]),
        ([], ["Warning: w", "i"]),
        (["-v"], ["Warning: w", "i", "ptychonnx.test: d"]),
        (["-vv"], ["Warning: w", "i", "ptychonnx.test: d", "other"]),
    ],
)
def test_verbosity_chooses_what_is_logged(run, monkeypatch, flags, shown, tmp_path):
    def work(*arguments: object) -> None:
        ours = logging.getLogger("ptychonnx.test")
        ours.warning("w")
        ours.info("i")
        ours.debug("d")
        logging.getLogger("other.package").info("other")
        raise ServerError("done")

    monkeypatch.setattr("ptychonnx.harness.cli.simulate.build_lines", work)
    _, _, err = run(*flags, "simulate", "lines", "--out", tmp_path)
    assert [line for line in err.splitlines() if line not in ("Simulating lines", "Error: done")] == shown


def test_letters_that_a_terminal_lacks_are_no_fault(tmp_path):
    out = tmp_path / "näme"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ptychonnx",
            "simulate",
            "lines",
            "--n",
            "16",
            "--train-grid",
            "2",
            "--test-grid",
            "2",
        ]
        + ["--out", str(out)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert done.returncode == 0, done.stderr
    assert "n\\xe4me" in done.stdout
    assert (out / "train.npz").is_file()


def test_standard_streams_may_be_closed(tmp_path):
    line = "simulate lines --n 16 --train-grid 2 --test-grid 2 --out out"
    command = f"{sys.executable} -m ptychonnx {line} <&- >&- 2>&-"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, env=environment)
    assert done.returncode == 0
    assert (tmp_path / "out" / "manifest.json").is_file()
    assert ptychonnx.read_scan(tmp_path / "out" / "train.npz").size == 16


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        ("inspect --schema | head -1", {0, 141}),
        ("train --help | true", {141}),
        ("inspect nowhere.onnx 2>&1 > /dev/null | true", {2}),
    ],
)
def test_a_reader_that_goes_away_is_no_fault(tmp_path, line, codes):
    command = f"{sys.executable} -m ptychonnx {line}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.returncode in codes
    assert done.stderr == ""


@pytest.mark.parametrize(
    "line",
    [
        "reconstruct {network} scan.npz --out scan.npz",
        "reconstruct {network} scan.npz --out o.h5 --picture scan.npz",
        "reconstruct {network} scan.npz --out o.npz --probe p.npz --patches p.npz",
        "evaluate {network} --scan scan.npz --csv scan.npz",
        "evaluate {network} --scan scan.npz --json linked.npz",
        "merge scan.npz --out scan.npz",
        "specialise {network} --scan scan.npz --out linked.npz",
        "reconstruct {network} scan.npz --out o.h5 --correct-positions free --positions-out scan.npz",
        "evaluate --object a=scan.npz --scan p.npz --json scan.npz",
        "live {network} --frames swmr+file://scan.npz?idle=1 --positions raster://2x2 --out scan.npz",
    ],
)
def test_a_file_that_is_read_is_not_overwritten(run, four_artifacts, lines_scan, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    write_scan(Path("scan.npz"), lines_scan)
    Path("linked.npz").symlink_to("scan.npz")
    Path("p.npz").write_bytes(Path("scan.npz").read_bytes())
    before = Path("scan.npz").read_bytes()
    code, _, err = run(*line.format(network=four_artifacts[0]).split())
    assert code == 2
    assert err.splitlines()[-1].endswith("is a file that the command reads, expected another name")
    assert Path("scan.npz").read_bytes() == before


@pytest.mark.parametrize("line", [("reconstruct", "scan.npz", "--out", ""), ("inspect", "")])
def test_an_empty_argument_is_not_the_working_folder(run, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    code, _, err = run(*line)
    assert (code, err) == (
        2,
        "Error: an argument is empty, expected a value: is a variable of the shell not set?\n",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("line", ["inspect --schema", "info", "--help"])
def test_output_to_a_full_disk_is_one_line(line):
    command = f"{sys.executable} -m ptychonnx {line} > /dev/full"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert (done.returncode, done.stderr) == (3, "Error: No space left on device\n")


def test_an_earlier_file_that_bench_cannot_continue_is_refused_before_it_measures(
    run, four_artifacts, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "ptychonnx.harness.cli.bench.measure_speed", lambda *values, **options: pytest.fail("measured")
    )
    (tmp_path / "out.json").write_text("no JSON")
    code, _, err = run("bench", four_artifacts[0], "--json", tmp_path / "out.json")
    assert code == 2
    assert "out.json: is not valid JSON" in err


@pytest.mark.timeout(60)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
@pytest.mark.parametrize(
    "line",
    [
        "check fifo",
        "merge fifo --out o.h5",
        "sign fifo --key fifo",
        "reconstruct a.onnx b.npz --out o.h5 --config fifo",
    ],
)
def test_an_input_that_is_no_regular_file_is_not_waited_for(run, tmp_path, monkeypatch, line):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo")
    code, _, err = run(*line.split())
    assert code == 2
    assert len(err.splitlines()) == 1


@pytest.fixture
def refused(run, four_artifacts, lines_scan, tmp_path, monkeypatch):
    """Check that a line, with N for a network and S for a scan, is refused with a message and writes nothing."""

    def check(line: str, message: str) -> None:
        monkeypatch.chdir(tmp_path)
        write_scan(Path("scan.npz"), lines_scan)
        names = {"N": str(four_artifacts[0]), "S": "scan.npz"}
        code, _, err = run(*(names.get(word, word) for word in line.split()))
        assert code == 2
        assert message in err
        assert [path.name for path in tmp_path.iterdir()] == ["scan.npz"]

    return check


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "reconstruct N S --out o.h5 --correct-positions free --positions-out o.h5",
            "is what --out writes too",
        ),
        ("reconstruct N S --out o.h5 --picture ./o.h5", "is what --out writes too"),
        ("evaluate N --scan S --csv ./t --json t", "is what --json writes too"),
        ("evaluate N --scan S --csv r/metrics.json --out r", "is a file of the report in r"),
    ],
)
def test_two_outputs_never_share_a_file(refused, line, message):
    refused(line, message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("reconstruct N S --out o.h5 --alpha 0.3", "--alpha: there are no iterations"),
        ("reconstruct N S --out o.h5 --refine 0 --momentum 0", "--momentum: there are no iterations"),
        ("reconstruct S --out o.h5 --executor local --alpha 0.3", "--alpha: there are no iterations"),
        ("evaluate N --scan S --json - --momentum 0", "--momentum: there are no iterations"),
        ("reconstruct N S --out o.h5 --position-bound 3", "--position-bound: positions stay as they are"),
        ("reconstruct S --out o.h5 --iterations 3 --provider cpu", "--provider: belongs to a network"),
        ("reconstruct S --out o.h5 --iterations 3 --batch 3", "--batch: belongs to a network"),
        (
            "reconstruct --server grpc://h:1/m S --out o.h5 --provider cuda",
            "--provider cuda: is for artifacts",
        ),
        (
            "evaluate --server grpc://h:1/m --scan S --json - --provider cpu",
            "--provider cpu: is for artifacts",
        ),
        ("reconstruct N S --out o.h5 --timeout 3", "--timeout: is for networks on servers"),
        ("evaluate N --scan S --json - --tls-ca S", "--tls-ca: is for networks on servers"),
        ("loadtest N --scan S --tls-ca S", "--tls-ca: is for networks on servers"),
        ("inspect N --verify --json", "--json: belongs to the contract"),
        ("inspect N --verify --provider nothing", "--provider nothing: belongs to the contract"),
        ("bench N --no-reduced --judge-on S", "--judge-on: lower precisions are not measured"),
        ("bench N --pipeline S", "--pipeline: is added to a JSON file"),
        ("bench N --provider cpu", "No such option: --provider"),
        ("export-module net.py:build --out o.onnx --weights-key ema", "--weights-key: names a part"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(refused, line, message):
    refused(line, message)


@pytest.mark.parametrize("photons", ["0", "inf", "1e30"])
def test_photons_beyond_any_source_are_refused(run, tmp_path, photons):
    np.save(tmp_path / "probe.npy", np.ones((1, 64, 64), dtype=np.complex64))
    out = tmp_path / "out.onnx"
    options = ("--probe", tmp_path / "probe.npy", "--photons", photons, "--out", out)
    code, _, err = run("specialise", "zoo:any_64", *options)
    assert code == 2
    assert f"--photons {float(photons):g}: expected the mean photons in a pattern" in err
    assert not out.exists()


def test_functions_overwrite_no_file_that_they_read(lines_scan, tmp_path):
    scan = tmp_path / "scan.npz"
    write_scan(scan, lines_scan)
    before = scan.read_bytes()
    for call in (
        lambda: ptychonnx.reconstruct("zoo:pinn_cnn", str(scan), out=scan),
        lambda: ptychonnx.adopt(scan, tmp_path / "theirs.yaml", scan),
    ):
        with pytest.raises(InputError, match="is a file that is read"):
            call()
    assert scan.read_bytes() == before
