"""What a speed measurement found, and the file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError

__all__ = ["ArtifactSpeed", "FormSpeed", "SpeedReport", "write_report"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class FormSpeed(_Part):
    """One form of a network."""

    milliseconds: float = Field(description="a pattern, median over the rounds")
    spread: tuple[float, float] = Field(description="lower and upper quartile of the milliseconds")
    over_artifact: float = Field(
        description="its time over that of the artifact, median of the ratios within a round"
    )
    over_artifact_spread: tuple[float, float] = Field(description="lower and upper quartile of the ratios")
    speedup_compiled: float | None = Field(
        description="time of the fastest right compiled form of the framework over its own, median of the ratios "
        "within a round; null without the run"
    )
    relative_error: float = Field(
        description="largest difference from the eager network, or from the artifact if there is none, over the "
        "largest output"
    )
    right: bool | None = Field(
        description="whether the error is within what is allowed, so that its time counts; null for lower precision, "
        "which a reconstruction decides on"
    )


class ArtifactSpeed(_Part):
    """One artifact, and every other form of its network."""

    speedup_eager: float | None = Field(description="over the framework's eager form; null without the run")
    speedup_compiled: float | None = Field(
        description="over the fastest right compiled form of the framework; null without the run"
    )
    compiled_form: str | None = Field(description="which form that is")
    gemm_fraction: float | None = Field(
        description="operations of the network as trained in the time of the artifact, over the rate of a large "
        "float32 matrix product in the same round; null without the run"
    )
    gemm_fraction_executed: float = Field(description="the same with the operations of the published graph")
    int8_speedup: float | None = Field(
        description="of the 8-bit artifact over the float32 one; null if there is none"
    )
    judged: dict[str, str] = Field(
        description="what the gate for lower precision said of each form of lower precision; forms that it refused, or "
        "that were not made, have no times"
    )
    gflop_trained: float | None = Field(
        description="a pattern: convolutions, first guess and Fourier layers as matrix products, in the graph "
        "as exported"
    )
    gflop_executed: float = Field(description="a pattern: the same in the published graph")
    gemm_gflop_per_second: float
    sha256: str = Field(description="of the file")
    forms: dict[str, FormSpeed]


class SpeedReport(_Part):
    """All artifacts of one run of the command."""

    version: int = 1
    batch: int
    rounds: int
    threads: int
    judged_on: str | None = Field(
        default=None,
        description="scan that lower precisions were judged on; null: the held-out patterns of each run",
    )
    processor: str
    vector_instructions: list[str] = Field(description="those that 8-bit and wide kernels depend on")
    versions: dict[str, str]
    artifacts: dict[str, ArtifactSpeed]


def write_report(report: SpeedReport, path: Path, pipeline: Path | None = None) -> None:
    """Write a report as JSON.

    Parameters
    ----------
    path
        If it is there, figures of the whole pipeline in it are kept: ``memory_ratio``, and ``end_to_end_ratio`` of each
        artifact that was measured again.
    pipeline
        Result of ``benchmarks/end_to_end.py``, from which these two are taken instead.

    Raises
    ------
    InputError
        If a file that is there is no JSON object.
    """
    document = report.model_dump(mode="json")
    old = _read(path) if path.exists() else {}
    ratios = {name: each.get("end_to_end_ratio") for name, each in old.get("artifacts", {}).items()}
    memory = old.get("memory_ratio")
    if pipeline is not None:
        made = _read(pipeline)
        ratios, memory = made.get("end_to_end_ratio", {}), made.get("memory_ratio")
    document["memory_ratio"] = memory
    for name, each in document["artifacts"].items():
        each["end_to_end_ratio"] = ratios.get(name)
    write_text(path, json.dumps(document, indent=2, allow_nan=False) + "\n")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, expected the result of benchmarks/end_to_end.py") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, expected a JSON object")
    return content
