"""`ptychonnx gpu-check`: what a GPU does with the networks, in a few minutes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.harness.cli.console import print_lines, print_result, report_progress
from ptychonnx.harness.cli.model_options import derive_options
from ptychonnx.harness.cli.shared_options import OptionalArtifacts
from ptychonnx.harness.gpu.gpu_check import BATCHES, check_device
from ptychonnx.harness.gpu.gpu_report import as_text
from ptychonnx.runtime.errors import VerificationError
from ptychonnx.runtime.inference.artifact_path import zoo_names, zoo_path
from ptychonnx.runtime.inference.providers import PROVIDER_FORMS

__all__ = ["gpu_check"]


@derive_options
def gpu_check(
    artifacts: OptionalArtifacts = None,
    out: Annotated[
        Path, typer.Option(help="Folder for JSON, text and picture; a second call goes on.")
    ] = Path("gpu_check"),
    provider: Annotated[
        str, typer.Option(metavar="PROVIDER", help=f"Where networks run: {PROVIDER_FORMS}.")
    ] = "auto",
    minutes: Annotated[float, typer.Option(min=0.0, help="Time after which no step begins.")] = 5.0,
    batch: Annotated[
        list[int] | None,
        typer.Option(min=1, help="Batch to measure; may be given several times. Default: 1 to 4096."),
    ] = None,
    grid: Annotated[int, typer.Option(min=2, help="Side of the simulated scan, in positions.")] = 40,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            "--run", help="Run folder of an artifact, to measure its own framework too; repeatable."
        ),
    ] = None,
) -> None:
    """Check a **GPU** within minutes: nodes by provider, parity, patterns per second, kernels, next to the frameworks.

    Measures the networks of the zoo, or the artifacts that are named. Results are kept after each step; the same
    command goes on where it was interrupted. `--provider cpu` rehearses it without a GPU.

    Example: `ptychonnx gpu-check --provider cuda --out check/`
    """
    paths = artifacts or [zoo_path(name) for name in zoo_names()]
    with report_progress() as progress:
        record = check_device(
            paths,
            out,
            provider,
            minutes=minutes,
            batches=batch or BATCHES,
            grid=grid,
            runs=run or (),
            progress=progress,
        )
    print_lines(*as_text(record))
    print_result(out, [])
    if failed := record.get("failed"):
        raise VerificationError(f"{out}: {len(failed)} steps failed, the first is {next(iter(failed))}")
