"""Tables of the comparison of exporters, from `benchmarks/results/exporters.json`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from markdown_tables import ROOT
from markdown_tables import results as results_of
from markdown_tables import table as markdown_table

NAMES = {
    "ptychonnx": "ptychonnx",
    "ptychonnx_openvino": "ptychonnx, in OpenVINO",
    "torch": "torch",
    "torch_onnxslim": "torch + onnxslim",
    "tf2onnx": "tf2onnx",
    "tf2onnx_onnxslim": "tf2onnx + onnxslim",
    "openvino": "OpenVINO's converter",
    "ptychonnx_iree": "ptychonnx, in IREE",
    "iree": "IREE, of torch's file",
}
# The same engine for our file as for that of another exporter.
OURS = {"openvino": "ptychonnx_openvino", "iree": "ptychonnx_iree"}
RIGHT = ("right", "fixed batch")
# Times that differ by less count as equal.
MARGIN = 1.1


def read_results() -> dict[str, Any]:
    """The results; see `benchmarks.exporters`."""
    return results_of("exporters", "benchmarks/results")


def time_ratio(module: Mapping[str, Any], exporter: str) -> float | None:
    """Time of a file that is right over that of ours in the same engine."""
    times = module.get("milliseconds", {})
    ours = OURS.get(exporter, "ptychonnx")
    is_right = all(module["exporters"].get(name, {}).get("status") in RIGHT for name in (exporter, ours))
    return times[exporter] / times[ours] if is_right and {exporter, ours} <= set(times) else None


def summary(results: Mapping[str, Any]) -> list[list[str]]:
    """For each exporter: how many modules it exports, and how its files fare."""
    rows = [
        [
            "exporter",
            "modules",
            "exported",
            "right",
            "of these for any batch",
            "faster than ours",
            "as fast",
            "slower",
        ]
    ]
    for exporter, name in NAMES.items():
        modules = [one for one in results["modules"].values() if exporter in one["exporters"]]
        if not modules:
            continue
        states = [one["exporters"][exporter]["status"] for one in modules]
        ratios = [ratio for one in modules if (ratio := time_ratio(one, exporter)) is not None]
        faster = sum(ratio < 1 / MARGIN for ratio in ratios)
        slower = sum(ratio > MARGIN for ratio in ratios)
        compared = [str(faster), str(len(ratios) - faster - slower), str(slower)]
        rows.append(
            [
                name,
                str(len(states)),
                str(sum(state not in ("no export", "time limit", "crash") for state in states)),
                str(sum(state in RIGHT for state in states)),
                str(states.count("right")),
                *(["–"] * 3 if exporter.startswith("ptychonnx") else compared),
            ]
        )
    return rows


def modules(results: Mapping[str, Any], framework: str) -> list[list[str]]:
    """One row for each module of a framework."""
    names = {
        "torch": ("torch", "torch_onnxslim", "openvino", "iree"),
        "tensorflow": ("tf2onnx", "tf2onnx_onnxslim", "openvino"),
    }
    others = names[framework]
    rows = [["module", "error", "nodes", "ms", *(NAMES[name] for name in others), framework]]
    for name, module in results["modules"].items():
        if module["framework"] != framework or "ptychonnx" not in module["exporters"]:
            continue
        ours, times = module["exporters"]["ptychonnx"], module.get("milliseconds", {})
        native = f"{times['native'] / times['ptychonnx']:.1f}×" if "ptychonnx" in times else "–"
        rows.append(
            [
                f"`{name}`: {module['about']}",
                _state(ours),
                str(ours.get("nodes", "–")),
                f"{times['ptychonnx']:.2f}" if "ptychonnx" in times else "–",
                *(_compared(module, other) for other in others),
                native,
            ]
        )
    return rows


def _state(record: Mapping[str, Any]) -> str:
    """The error of a file that is right, or what went wrong."""
    if record["status"] in RIGHT:
        suffix = "" if record["status"] == "right" else ", fixed batch"
        return f"{record['error']:.0e}".replace("-", "\u2011") + suffix
    error = record.get("error")
    return record["status"] + (f" ({error:.0e})".replace("-", "\u2011") if error else "")


def _compared(module: Mapping[str, Any], exporter: str) -> str:
    """Time next to ours, or what went wrong."""
    record = module["exporters"].get(exporter)
    if record is None:
        return "–"
    ratio = time_ratio(module, exporter)
    if record["status"] not in RIGHT or ratio is None:
        return _state(record)
    text = f"{ratio:.2f}×" if ratio < 9.95 else f"{ratio:.0f}×"
    text = f"**{text}, faster**" if ratio < 1 / MARGIN else text
    return text if record["status"] == "right" else f"{text}, fixed batch"


def refusals(results: Mapping[str, Any]) -> Iterator[str]:
    """What our exporter says about the modules that it does not export, or not right."""
    for name, module in results["modules"].items():
        record = module["exporters"].get("ptychonnx")
        if record and record["status"] not in RIGHT:
            yield f"`{name}`: {record['status']}. {record.get('message', '')}"


def conditions(results: Mapping[str, Any]) -> str:
    """How much is measured, versions and processor, in words."""
    sources = (ROOT / "benchmarks/exporter_cases").glob("*.py")
    total = sum(
        len(re.findall(r"^@CASES\.add", path.read_text(encoding="utf-8"), re.MULTILINE)) for path in sources
    )
    measured = sum("ptychonnx" in module["exporters"] for module in results["modules"].values())
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items() if version)
    machine = results["machine"]
    note = f"; {machine['note']}" if machine.get("note") else ""
    return f"{measured} of {total} modules measured. {versions}. {machine['processor']}, one thread{note}."


def table(part: str) -> str:
    """A part of the page."""
    measured = read_results()
    if part == "conditions":
        return conditions(measured)
    if part == "refusals":
        return "\n".join(f"* {line}" for line in refusals(measured)) or "None."
    heads, *rows = summary(measured) if part == "summary" else modules(measured, part)
    return markdown_table(heads, rows)
