"""Arguments and options that several commands declare alike."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import ReadOptions, read_scan
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.inference.inference_options import InferenceOptions
from ptychonnx.runtime.scan import Scan

__all__ = [
    "READING",
    "Artifacts",
    "DivisionOptions",
    "EstimateProbe",
    "OptionalArtifacts",
    "Probe",
    "ServerUrl",
    "ServerUrls",
    "check_inference",
    "read_if_set",
]


_ARTIFACTS = typer.Argument(
    metavar="ARTIFACTS", parser=artifact_path, help="ONNX artifacts, by path or as zoo:NAME."
)
Artifacts = Annotated[list[Path], _ARTIFACTS]
OptionalArtifacts = Annotated[list[Path] | None, _ARTIFACTS]
Probe = Annotated[
    Path | None,
    typer.Option(
        help="File with a probe (NPZ, NPY, ptychodus, CXI, ptypy, MATLAB 7.3) that replaces that of the scan; "
        "its power is scaled to the mean photons per pattern."
    ),
]
# On the page of help for reading scans.
READING = str(ReadOptions.model_config["title"])
EstimateProbe = Annotated[
    bool,
    typer.Option(
        "--estimate-probe",
        rich_help_panel=READING,
        help="For a scan without a probe: estimate one from the mean pattern, refined by iterations.",
    ),
]
_SERVER = "Network on a server, grpc://host:port/model[/version]; also grpcs, http and https."
ServerUrl = Annotated[str | None, typer.Option(metavar="URL", help=_SERVER)]
ServerUrls = Annotated[
    list[str] | None, typer.Option(metavar="URL", help=f"{_SERVER} May be given several times.")
]


class DivisionOptions(BaseModel):
    """How the work of a reconstruction is divided."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        title="Many scans, and large ones in parts",
        json_schema_extra={
            "help_option": "--help-many",
            "help_subject": "for many scans, and large ones",
        },
    )

    watch: bool = Field(
        default=False,
        description="Take each scan that appears in the one folder named instead of scans, when it is complete, until "
        "Ctrl-C",
    )
    executor: str | None = Field(
        default=None,
        description="Workers for many scans, or for the parts of one: local[:WORKERS], dask[:WORKERS], "
        "dask://HOST:PORT, or a YAML file for workers that Slurm starts",
        json_schema_extra={"metavar": "ENGINE"},
    )
    shards: int | None = Field(
        default=None,
        ge=1,
        description="Parts of one scan with --executor. Default: one per worker",
        json_schema_extra={"metavar": "N"},
    )
    shard: str | None = Field(
        default=None,
        description="Reconstruct the I-th of N parts of the scan, and write its sums for `ptychonnx merge`",
        json_schema_extra={"metavar": "I/N"},
    )


def read_if_set(path: Path | None, reading: ReadOptions, option: str = "--scan") -> Scan | None:
    """Read the scan of an option that may be left out.

    Raises InputError if it is left out although options describe how to read it, or if it cannot be read.
    """
    if path is not None:
        return read_scan(path, options=reading)
    if reading != ReadOptions():
        raise InputError(f"options about reading a scan were given, expected {option} FILE with them")
    return None


def check_inference(
    options: InferenceOptions, servers: list[str] | None, artifacts: list[Path] | None = None
) -> None:
    """Refuse `--batch auto` and `--provider` for networks on servers, where threads and devices are not ours to choose.

    Raises InputError. A provider may be named if there are artifacts too.
    """
    if servers and options.batch is None:
        raise InputError("--batch auto: is for artifacts, expected a number with --server")
    if servers and not artifacts and options.provider != InferenceOptions().provider:
        raise InputError(f"--provider {options.provider}: is for artifacts, expected none with --server")
