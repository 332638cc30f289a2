"""`ptychonnx slurm`: scripts for a cluster that Slurm schedules."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.campaign.large_scan import check_shards
from ptychonnx.harness.campaign.scan_run import Networks, RunOptions
from ptychonnx.harness.campaign.slurm import SlurmOptions, write_slurm_scripts
from ptychonnx.harness.cli.console import print_lines, print_result
from ptychonnx.harness.cli.model_options import Command, as_arguments, derive_options
from ptychonnx.harness.cli.reconstruct_request import divided_files
from ptychonnx.harness.cli.shared_options import Probe
from ptychonnx.runtime.errors import InputError, ServerError
from ptychonnx.runtime.formats import ReadOptions
from ptychonnx.runtime.formats.writers.reconstruction_file import check_product
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions

__all__ = ["app"]

app = typer.Typer(help="Write the jobs of a cluster that Slurm schedules.", no_args_is_help=True)


@app.command("reconstruct", cls=Command)
@derive_options
def reconstruct(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[ARTIFACT] SCAN",
            parser=artifact_path,
            help="ONNX artifact or zoo:NAME, left out for the general network of the zoo; and scan file.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="File for the object, as of `ptychonnx reconstruct`.")],
    shards: Annotated[int, typer.Option(min=1, help="Parts of the scan, each a task of the job array.")],
    folder: Annotated[
        Path | None,
        typer.Option(
            help="Folder for scripts, logs and parts, which all nodes see. Default: that of --out, with the ending "
            ".slurm.",
            show_default=False,
        ),
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Submit the jobs with sbatch.")] = False,
    probe: Probe = None,
    *,
    slurm: SlurmOptions,
    inference: InferenceOptions,
    stitching: ReconstructOptions,
    reading: ReadOptions,
) -> None:
    """Write a job array that reconstructs the parts of **a large scan**, and a job that merges them.

    Example: `ptychonnx slurm reconstruct models/pinn_fno.onnx scan.cxi --out object.h5 --shards 64 --partition short
    --time 30`
    """
    artifact, scans = divided_files(files, out)
    if len(scans) != 1:
        raise InputError(f"slurm reconstruct: got {len(files)} files, expected an artifact and one scan")
    check_product(out)
    options = RunOptions(inference=inference, stitching=stitching, reading=reading, probe=probe).absolute()
    with Networks(artifact, inference) as networks:
        scan = options.read(scans[0])
        check_shards(networks.for_scan(scan), scan, shards, options)
    arguments = [
        *as_arguments(inference),
        *as_arguments(stitching),
        *as_arguments(options.reading),
        *([] if options.probe is None else ["--probe", str(options.probe)]),
    ]
    scripts = write_slurm_scripts(
        folder or out.with_suffix(".slurm"),
        artifact,
        scans[0],
        out,
        shards,
        slurm,
        arguments,
        program=[sys.executable, "-m", "ptychonnx"],
    )
    *_, submission = scripts
    print_result(submission, [f"submits {shards} parts and their merge; run it, or add --submit"][submit:])
    if submit:
        _submit(submission)


def _submit(script: Path) -> None:
    if shutil.which("sbatch") is None:
        raise InputError(f"--submit: this machine has no sbatch, run {script} where Slurm is")
    run = subprocess.run([str(script)], capture_output=True, text=True, check=False)
    if run.returncode:
        raise ServerError(f"{script}: {' '.join(run.stderr.split()) or f'exit code {run.returncode}'}")
    print_lines(run.stdout.strip())
