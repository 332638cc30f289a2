"""Report of a speed measurement, as a data model and as a file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.paths import read_text

__all__ = ["ArtifactSpeed", "SpeedReport", "VariantSpeed", "check_earlier", "write_report"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class VariantSpeed(_Frozen):
    """Speed of one variant of a network."""

    milliseconds: float = Field(description="milliseconds per pattern, median over the rounds")
    spread: tuple[float, float] = Field(description="lower and upper quartile of the milliseconds")
    over_artifact: float = Field(
        description="time over that of the artifact, median of the ratios within a round"
    )
    over_artifact_spread: tuple[float, float] = Field(description="lower and upper quartile of the ratios")
    speedup_compiled: float | None = Field(
        description="time of the fastest correct compiled variant in the framework over that of this variant, "
        "median of the ratios within a round; null without the run"
    )
    relative_error: float = Field(
        description="largest difference from the eager network, or from the artifact without the run, over the largest "
        "output"
    )
    right: bool | None = Field(
        description="whether the error is within the tolerance; null for lower precisions, which are judged by a "
        "reconstruction"
    )


class ArtifactSpeed(_Frozen):
    """Speed of one artifact and of all other variants of its network."""

    speedup_eager: float | None = Field(
        description="speed over that of the eager network in the framework; null without the run"
    )
    speedup_compiled: float | None = Field(
        description="speed over that of the fastest correct compiled variant in the framework; null without the run"
    )
    compiled_form: str | None = Field(description="name of that compiled variant")
    gemm_fraction: float | None = Field(
        description="operations of the network as trained per time of the artifact, over the rate of a large float32 "
        "matrix product in the same round; null without the run"
    )
    gemm_fraction_executed: float = Field(description="the same with the operations of the published graph")
    int8_speedup: float | None = Field(
        description="speed of the 8-bit artifact over that of the float32 artifact; null if there is none"
    )
    judged: dict[str, str] = Field(
        description="verdict of the precision gate on each variant of lower precision; refused variants have no times"
    )
    gflop_trained: float | None = Field(
        description="operations per pattern in the graph as exported: convolutions, initial phase retrieval and "
        "Fourier layers as matrix products"
    )
    gflop_executed: float = Field(description="operations per pattern in the published graph")
    gemm_gflop_per_second: float
    denormal_constants: float | None = Field(
        default=None, description="fraction of the constants of the artifact that are denormal numbers"
    )
    denormal_intermediates: float | None = Field(
        default=None,
        description="fraction of denormal numbers among the values that the artifact computes from a pattern, if the "
        "session does not flush them to zero",
    )
    sha256: str = Field(description="hash of the file")
    forms: dict[str, VariantSpeed]


class SpeedReport(_Frozen):
    """Speed of all artifacts of one run of the command."""

    version: int = 1
    batch: int
    rounds: int
    threads: int
    judged_on: str | None = Field(
        default=None,
        description="scan that lower precisions were judged on; null for the held-out patterns of each run",
    )
    processor: str
    vector_instructions: list[str] = Field(
        description="instruction sets that 8-bit and wide kernels depend on"
    )
    versions: dict[str, str]
    artifacts: dict[str, ArtifactSpeed]


def check_earlier(path: Path, pipeline: Path | None = None) -> None:
    """Refuse, before anything is measured, the files that `write_report` would refuse."""
    for earlier in (path if path.exists() else None, pipeline):
        if earlier is not None:
            _read(earlier)


def write_report(report: SpeedReport, path: Path, pipeline: Path | None = None) -> None:
    """Write a report as JSON.

    Raises InputError if an existing file is not a JSON object.

    * `path`: an existing file keeps its end-to-end results: ``memory_ratio``, and ``end_to_end_ratio`` of each artifact
      that was measured again.
    * `pipeline`: result of ``benchmarks/end_to_end.py``, from which these two are taken instead.
    """
    document = report.model_dump(mode="json")
    old = _read(path) if path.exists() else {}
    ratios = {name: entry.get("end_to_end_ratio") for name, entry in old.get("artifacts", {}).items()}
    memory = old.get("memory_ratio")
    if pipeline is not None:
        end_to_end = _read(pipeline)
        ratios, memory = end_to_end.get("end_to_end_ratio", {}), end_to_end.get("memory_ratio")
    document["memory_ratio"] = memory
    for name, entry in document["artifacts"].items():
        entry["end_to_end_ratio"] = ratios.get(name)
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(read_text(path))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, expected the result of benchmarks/end_to_end.py") from error
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: is not valid JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    return content
