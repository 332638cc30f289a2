"""Scripts for Slurm: what they say, that bash accepts them, and that their commands give the object of one process.

No Slurm runs here: the tasks of the array are run by hand, and `sbatch` is a script that writes its arguments down.
`test_slurm_daemons` submits the scripts to Slurm itself.
"""

from __future__ import annotations

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ptychonnx.harness.campaign.manifest import VERSION
from ptychonnx.runtime.formats.readers.native import write_scan

PARTS = """\
#!/bin/bash
# Parts of scan.npz, one per task of the array; written by ptychonnx VERSION.
#SBATCH --job-name=scan-parts
#SBATCH --array=1-2
#SBATCH --partition=short
#SBATCH --time=0:30:00
#SBATCH --cpus-per-task=1
#SBATCH --mem=8G
#SBATCH --gpus=1
#SBATCH --output=FOLDER/object.slurm/%A_%a.log

set -euo pipefail
export OMP_NUM_THREADS=1
PYTHON -m ptychonnx reconstruct FOLDER/m.onnx FOLDER/scan.npz --provider cpu --weighting uniform --skip-invalid \\
  --shard "$SLURM_ARRAY_TASK_ID/2" --out FOLDER/object.slurm/parts/"$SLURM_ARRAY_TASK_ID".h5
"""
MERGE = """\
#!/bin/bash
# Merges the parts of scan.npz; written by ptychonnx VERSION.
#SBATCH --job-name=scan-merge
#SBATCH --partition=short
#SBATCH --time=0:30:00
#SBATCH --cpus-per-task=1
#SBATCH --mem=8G
#SBATCH --output=FOLDER/object.slurm/merge_%j.log

set -euo pipefail
export OMP_NUM_THREADS=1
PYTHON -m ptychonnx merge FOLDER/object.slurm/parts/{1..2}.h5 --out FOLDER/object.h5
"""
SBATCH = """\
#!/bin/bash
printf '%s ' "$@" >> FOLDER/submitted
echo >> FOLDER/submitted
case "$*" in *parsable*) echo "41;cluster";; *) echo "Submitted batch job 42";; esac
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A scan of two segments, and a network that knows it."""
    from .conftest import make_contract, small_scan, write_oracle

    folder = tmp_path_factory.mktemp("large")
    scan = small_scan(grid=34, step=1)
    write_scan(folder / "scan.npz", scan)
    write_oracle(folder / "m.onnx", scan, make_contract("pinn_cnn", scan))
    return folder


@pytest.fixture
def write(run, large):
    """Write the scripts, with further options."""

    def command(*options):
        return run(
            "slurm",
            "reconstruct",
            large / "m.onnx",
            large / "scan.npz",
            "--out",
            large / "object.h5",
            *options,
        )

    return command


def test_the_scripts_run_by_hand_give_the_object_of_one_process(run, write, large):
    requests = ["--shards", "2", "--partition", "short", "--time", "0:30:00", "--memory", "8G", "--gpus", "1"]
    stitching = ["--provider", "cpu", "--weighting", "uniform", "--skip-invalid"]
    code, out, error = write(*requests, *stitching, "--setup", "export OMP_NUM_THREADS=1")
    assert code == 0, error
    folder = large / "object.slurm"
    assert f"{folder / 'submit.sh'}\nsubmits 2 parts and their merge" in out
    for name, golden in (("parts.sh", PARTS), ("merge.sh", MERGE)):
        text = (folder / name).read_text().replace(str(large), "FOLDER").replace(sys.executable, "PYTHON")
        assert text.replace(VERSION, "VERSION") == golden
    for script in folder.glob("*.sh"):
        subprocess.run(["bash", "-n", script], check=True)
        assert os.access(script, os.X_OK)

    for number in ("1", "2"):
        environment = os.environ | {"SLURM_ARRAY_TASK_ID": number}
        subprocess.run([folder / "parts.sh"], check=True, env=environment, capture_output=True)
    subprocess.run([folder / "merge.sh"], check=True, capture_output=True)
    scan = [large / "m.onnx", large / "scan.npz"]
    assert run("reconstruct", *scan, *stitching, "--out", large / "one.h5")[0] == 0
    with h5py.File(large / "object.h5") as merged, h5py.File(large / "one.h5") as one:
        np.testing.assert_array_equal(merged["object"][()], one["object"][()])


def test_the_merge_waits_for_all_parts(write, large, tmp_path, monkeypatch):
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(SBATCH.replace("FOLDER", str(tmp_path)))
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    code, out, error = write("--shards", "2", "--partition", "short", "--time", "30", "--submit")
    assert code == 0, error
    assert "Submitted batch job 42" in out
    folder = large / "object.slurm"
    assert (tmp_path / "submitted").read_text().splitlines() == [
        f"--parsable {folder}/parts.sh ",
        f"--dependency=afterok:41 --kill-on-invalid-dep=yes {folder}/merge.sh ",
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--shards", "3"], "has 2 segments, expected at most 2 shards"),
        (["--shards", "2", "--partition", "a\nb"], "--partition a b: expected text of the form"),
        (["--shards", "2", "--time", "soon"], "--time soon: expected text of the form"),
        (["--shards", "2", "--batch", "auto"], "--batch auto: may differ between the parts"),
        (["--shards", "2", "--folder", "a b"], "expected a folder for Slurm of letters"),
        (["--shards", "2", "--submit"], "--submit: this machine has no sbatch"),
    ],
)
def test_what_slurm_would_refuse_is_refused_before(write, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    code, _, error = write("--partition", "short", "--time", "30", *options)
    assert code == 2
    assert message in " ".join(error.split())
    assert not list(tmp_path.iterdir())
