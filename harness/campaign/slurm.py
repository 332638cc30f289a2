"""Slurm: scripts of a job array that reconstructs the parts of a scan, and of the job that merges them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.harness.campaign.manifest import VERSION
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError

__all__ = ["SlurmOptions", "write_slurm_scripts"]

_PARTS = """\
#!/bin/bash
# Parts of {scan}, one per task of the array; written by ptychonnx {version}.
#SBATCH --job-name={name}-parts
#SBATCH --array=1-{shards}
{requests}
#SBATCH --output={folder}/%A_%a.log

set -euo pipefail
{setup}{command} \\
  --shard "$SLURM_ARRAY_TASK_ID/{shards}" --out {folder}/parts/"$SLURM_ARRAY_TASK_ID".h5
"""

_MERGE = """\
#!/bin/bash
# Merges the parts of {scan}; written by ptychonnx {version}.
#SBATCH --job-name={name}-merge
{requests}
#SBATCH --output={folder}/merge_%j.log

set -euo pipefail
{setup}{command} {folder}/parts/{{1..{shards}}}.h5 --out {out}
"""

_SUBMIT = """\
#!/bin/bash
# Submits the parts, and the merge for when all of them have succeeded.
set -euo pipefail
parts=$(sbatch --parsable {folder}/parts.sh)
sbatch --dependency=afterok:"${{parts%%;*}}" --kill-on-invalid-dep=yes {folder}/merge.sh
"""


class SlurmOptions(BaseModel):
    """What the jobs request from Slurm."""

    model_config = ConfigDict(frozen=True, extra="forbid", title="Slurm")

    partition: str = Field(pattern=r"^[\w.,-]+$", description="Partition of the jobs")
    time: str = Field(
        pattern=r"^\d+(-\d+)?(:\d+){0,2}$",
        description="Time limit of each job, as sbatch takes it: minutes, H:MM:SS or D-HH",
    )
    cpus: int = Field(default=1, ge=1, description="Processors of each task")
    memory: str | None = Field(
        default=None,
        pattern=r"^\d+[KMGT]?$",
        description="Memory of each task, such as 8G. Default: that of the partition",
    )
    gpus: str | None = Field(
        default=None, pattern=r"^[\w.:-]+$", description="Devices of each part, such as 1 or a100:1"
    )
    account: str | None = Field(default=None, pattern=r"^[\w.-]+$", description="Account of the jobs")
    setup: str | None = Field(
        default=None, description="Line of shell before each command, such as 'module load cuda'"
    )

    def requests(self, *, gpus: bool) -> str:
        """Lines of a script that request resources."""
        values = {
            "partition": self.partition,
            "time": self.time,
            "cpus-per-task": self.cpus,
            "mem": self.memory,
            "gpus": self.gpus if gpus else None,
            "account": self.account,
        }
        return "\n".join(f"#SBATCH --{name}={value}" for name, value in values.items() if value is not None)


def write_slurm_scripts(
    folder: Path,
    artifact: Path | None,
    scan: Path,
    out: Path,
    shards: int,
    options: SlurmOptions,
    arguments: Sequence[str] = (),
    *,
    program: Sequence[str],
) -> list[Path]:
    """Write ``parts.sh``, ``merge.sh`` and ``submit.sh``, which submits both.

    Raises InputError if the path of the folder holds a character that Slurm or the shell would read otherwise.

    * `folder`: folder for the scripts, the logs and the parts; the nodes see it, the artifact and the scan at the same
      paths.
    * `artifact`: the network; None for the general network of the zoo.
    * `arguments`: further options of `ptychonnx reconstruct`.
    * `program`: how ptychonnx is called on a node.

    Returns the three files.
    """
    folder = folder.absolute()
    if not re.fullmatch(r"[\w./+@,=-]+", str(folder)):
        raise InputError(f"{folder}: expected a folder for Slurm of letters, digits and ./+@,=- alone")
    (folder / "parts").mkdir(parents=True, exist_ok=True)
    files = [str(path.absolute()) for path in (artifact, scan) if path is not None]
    values = {
        # A line break in the name would end the comment.
        "scan": "".join(letter if letter.isprintable() else "?" for letter in scan.name),
        "name": re.sub(r"[^\w.-]", "_", scan.stem),
        "version": VERSION,
        "shards": shards,
        "folder": folder,
        "setup": "" if options.setup is None else options.setup + "\n",
    }
    scripts = {
        "parts.sh": _PARTS.format(
            requests=options.requests(gpus=True),
            command=shlex.join([*program, "reconstruct", *files, *arguments]),
            **values,
        ),
        "merge.sh": _MERGE.format(
            requests=options.requests(gpus=False),
            command=shlex.join([*program, "merge"]),
            out=shlex.quote(str(out.absolute())),
            **values,
        ),
        "submit.sh": _SUBMIT.format(folder=folder),
    }
    for name, text in scripts.items():
        write_text(folder / name, text)
        (folder / name).chmod(0o755)
    return [folder / name for name in scripts]
