"""What commands on a Dask cluster say about its faults; a section of `benchmarks/scale.py`.

Workers are processes of this machine. Those that see other files than the command run in a mount namespace of their own
(`unshare --mount`, as root), and the full disk is a file system of 3 MB: the faults are real, the machines are not.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import distributed

import ptychonnx
from ptychonnx.runtime.formats import write_scan

__all__ = ["faults"]

_PTYCHONNX = [sys.executable, "-m", "ptychonnx"]


def faults(artifact: Path, folder: Path) -> dict[str, dict[str, object]]:
    """Exit code and message by fault."""
    model = shutil.copy(artifact, folder / "model.onnx")
    other = shutil.copy(artifact.with_name("pinn_cnn.onnx"), folder / "other.onnx")
    scan = folder / "scans" / "faulty.npz"
    scan.parent.mkdir(exist_ok=True)
    write_scan(scan, ptychonnx.simulate_lines(grid=48))  # three segments
    reconstruct = ["reconstruct", model, scan, "--out"]
    out = folder / "faulty" / "object.h5"
    out.parent.mkdir(exist_ok=True)
    outcomes = {"scheduler not there": _run(*reconstruct, out, "--executor", "dask://127.0.0.1:9")}
    metadata = folder / "other_version" / "ptychonnx-0.0.1.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True, exist_ok=True)
    metadata.write_text("Metadata-Version: 2.1\nName: ptychonnx\nVersion: 0.0.1\n")
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir(exist_ok=True)
    for fault, mount, path in (
        ("other version on a worker", None, str(metadata.parents[1])),
        ("model file that differs on a worker", f"mount --bind {other} {model}", ""),
        ("scan that a worker does not see", f"mount --bind {elsewhere} {scan.parent}", ""),
        ("folder of results that a worker does not see", f"mount --bind {elsewhere} {out.parent}", ""),
    ):
        with _worker(folder, mount, path) as address:
            outcomes[fault] = _run(*reconstruct, out, "--executor", address)
    with _worker(folder, f"mount --bind {elsewhere} {out.parent}", "") as address:
        outcomes["folder of objects that a worker does not see"] = _run(
            *reconstruct, out.parent, "--executor", address
        )
    small = folder / "small_disk"
    small.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small], check=True)
    try:
        with _worker(folder, None, "") as address:
            outcomes["disk full on a worker"] = _run(*reconstruct, small / "object.h5", "--executor", address)
    finally:
        subprocess.run(["umount", small], check=True)
    return outcomes | _parts([*reconstruct], folder)


def _parts(reconstruct: list[object], folder: Path) -> dict[str, dict[str, object]]:
    """Parts that do not belong together, and one that is cut short."""
    parts = folder / "faulty_parts"
    parts.mkdir(exist_ok=True)
    for number in (1, 2, 3):
        _run(*reconstruct, parts / f"{number}.h5", "--shard", f"{number}/3")
    _run(*reconstruct, parts / "other.h5", "--shard", "3/3", "--weighting", "uniform")
    first, second, third, other = (parts / f"{name}.h5" for name in (1, 2, 3, "other"))
    merge = ["merge", "--out", folder / "merged.h5"]
    outcomes = {
        "shard of other options": _run(*merge, first, second, other),
        "shard that is missing": _run(*merge, first, third),
        "shard that is doubled": _run(*merge, first, second, second, third),
    }
    os.truncate(second, second.stat().st_size // 2)
    return outcomes | {"part that is cut short": _run(*merge, first, second, third)}


@contextmanager
def _worker(folder: Path, mount: str | None, path: str) -> Iterator[str]:
    """A scheduler in this process and one worker; yields its address for `--executor`."""
    script = f"exec {sys.executable} -m distributed.cli.dask_worker $0 --no-nanny --no-dashboard --nthreads 1"
    shell = ["bash", "-c", script if mount is None else f"{mount} && {script}"]
    namespace = [] if mount is None else ["unshare", "--mount", "--propagation", "private"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, [path, *sys.path]))}
    with distributed.LocalCluster(n_workers=0, dashboard_address=None, silence_logs=50) as cluster:
        worker = subprocess.Popen(
            [*namespace, *shell, cluster.scheduler_address],
            env=environment,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            cluster.wait_for_workers(1, timeout=120)
            yield cluster.scheduler_address.replace("tcp://", "dask://")
        finally:
            worker.terminate()
            worker.wait()


def _run(*arguments: object) -> dict[str, object]:
    """Exit code and the lines of errors of a command, without the names of this machine."""
    run = subprocess.run(
        [*_PTYCHONNX, "--quiet", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    text = run.stderr.strip()
    if run.returncode == 1:  # many scans: the reason is in the table
        text = f"{run.stdout.strip()}\n{text}"
    folders = [Path(argument).parent for argument in map(str, arguments) if os.sep in argument]
    for folder in sorted(map(str, folders), key=len, reverse=True):
        text = text.replace(folder, "FOLDER")
    return {"code": run.returncode, "message": " ".join(text.replace(platform.node(), "HOST").split())}
