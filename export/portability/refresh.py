"""Generate the data files of this package again.

    python -m ptychonnx.export.portability.refresh onnxruntime  # CPU and CUDA kernels of the installed onnxruntime
    python -m ptychonnx.export.portability.refresh openvino  # asks the installed OpenVINO, operator by operator
    python -m ptychonnx.export.portability.refresh tensorrt operators.md   # the table published by onnx-tensorrt

The registry of onnxruntime-gpu can only be read where the libraries of CUDA, cuDNN and TensorRT can be loaded; no
device is needed. The package onnxruntime needs none of them, and lists kernels for the CPU.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

from ptychonnx.export.verification.engines import open_onnxruntime
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import VerificationError
from ptychonnx.runtime.inference.openvino_import import import_openvino
from ptychonnx.runtime.machine import installed_versions

__all__ = ["highest_opset", "kernels_of", "probe_openvino", "read_operators_table"]

_HERE = Path(__file__).parent
_OPEN = 2**31 - 1
_HIGHEST = 23
# Names of types in the table of onnx-tensorrt.
_TENSORRT_TYPES = {
    "FP32": "float",
    "FP16": "float16",
    "BF16": "bfloat16",
    "FP8": "float8e4m3fn",
    "FP4": "float4e2m1",
    "INT4": "int4",
    "INT8": "int8",
    "INT32": "int32",
    "INT64": "int64",
    "UINT8": "uint8",
    "BOOL": "bool",
}

Entry = list[Any]


def kernels_of(
    provider: str, kernels: Iterable[tuple[str, str, str, tuple[int, int], dict[str, list[str]]]]
) -> dict[str, list[Entry]]:
    """Kernels of one provider of onnxruntime; those for the same versions are merged.

    `kernels`: (provider, domain, operator, (since, until), types by variable).
    """
    kernels_by_operator: dict[str, dict[tuple[int, int | None], dict[str, set[str]]]] = {}
    for owner, domain, operator, (since, until), types in kernels:
        if owner != provider or domain not in ("", "ai.onnx"):
            continue
        last = None if until >= _OPEN else until
        merged = kernels_by_operator.setdefault(operator, {}).setdefault((since, last), {})
        for variable, names in types.items():
            plain = [match[1] for name in names if (match := re.fullmatch(r"tensor\((\w+)\)", name))]
            merged.setdefault(variable, set()).update(plain)
    return {
        operator: [
            [since, last, {variable: sorted(types) for variable, types in sorted(allowed.items())}]
            for (since, last), allowed in sorted(entries.items(), key=lambda item: item[0][0])
        ]
        for operator, entries in sorted(kernels_by_operator.items())
    }


def probe_openvino() -> dict[str, list[Entry]]:
    """Operators that the ONNX reader of OpenVINO supports: it reads a model with one node for each version.

    The reader may refuse the node because it has no attributes; only the refusal of an unknown operator counts.
    """
    openvino = import_openvino()
    core = openvino.Core()
    operators: dict[str, list[Entry]] = {}
    for schema in sorted(
        onnx.defs.get_all_schemas_with_history(), key=lambda schema: (schema.name, schema.since_version)
    ):
        if schema.domain or schema.deprecated or schema.since_version > _HIGHEST:
            continue
        names = [f"input_{index}" for index in range(schema.min_input)]
        outputs = [f"output_{index}" for index in range(max(schema.min_output, 1))]
        graph = helper.make_graph(
            [helper.make_node(schema.name, names, outputs)],
            "probe",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 1, 4, 4]) for name in names],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        )
        opset = helper.make_opsetid("", schema.since_version)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=10)
        try:
            core.read_model(model.SerializeToString())
        except Exception as error:
            if "Conversion is failed" not in str(error):
                continue
        operators.setdefault(schema.name, []).append([schema.since_version, schema.since_version, {}])
    return operators


def read_operators_table(text: str) -> tuple[str, tuple[int, int], dict[str, list[Entry]]]:
    """Version, range of operator sets and operators in the table of onnx-tensorrt (``docs/operators.md``)."""
    head = re.search(
        r"TensorRT ([\d.]+) supports operators in the inclusive range of opset (\d+) to opset (\d+)", text
    )
    if head is None:
        raise SystemExit("no line 'TensorRT ... supports operators in the inclusive range of ...'")
    version, low, high = head[1], int(head[2]), int(head[3])
    operators: dict[str, list[Entry]] = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and cells[2] == "Y":
            types = [_TENSORRT_TYPES[word] for word in re.split(r"[,\s]+", cells[3]) if word]
            operators[cells[1]] = [[1, high, {"*": sorted(types)}]]
    return version, (low, high), dict(sorted(operators.items()))


def _write(name: str, **content: Any) -> None:
    operators = content.pop("operators")
    lines = ",\n".join(f"    {json.dumps(key)}: {json.dumps(value)}" for key, value in operators.items())
    head = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items())
    write_text(_HERE / f"{name}.json", f'{{\n{head},\n  "operators": {{\n{lines}\n  }}\n}}\n')
    print(f"{name}: {len(operators)} operators")


def highest_opset() -> int:
    """The latest operator set that the installed onnxruntime reads; the onnx package may know later ones."""
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    graph = helper.make_graph([], "nothing", [value], [value])
    for opset in range(onnx.defs.onnx_opset_version(), 0, -1):
        opsets = [helper.make_opsetid("", opset)]
        try:
            open_onnxruntime(
                helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
            )
        except VerificationError:
            continue
        return opset
    raise SystemExit("onnxruntime does not load any graph")


def _refresh_onnxruntime() -> None:
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    # Without the libraries of a provider, listing its kernels causes a segmentation fault.
    listing = "from onnxruntime.capi import onnxruntime_pybind11_state as s; s.get_all_opkernel_def()"
    if subprocess.run([sys.executable, "-c", listing], capture_output=True).returncode:
        raise SystemExit("the kernels cannot be listed: libraries of CUDA, cuDNN or TensorRT are missing")
    # Both packages install the same module.
    package = next(iter(installed_versions("onnxruntime-gpu", "onnxruntime")))
    kernels = [
        (kernel.provider, kernel.domain, kernel.op_name, kernel.version_range, kernel.type_constraints)
        for kernel in state.get_all_opkernel_def()
    ]
    for name, provider in (("cpu", "CPUExecutionProvider"), ("cuda", "CUDAExecutionProvider")):
        if operators := kernels_of(provider, kernels):
            _write(
                name,
                title=f"onnxruntime's {provider}",
                source=f"kernel registry of the package {package} {onnxruntime.__version__}",
                version=onnxruntime.__version__,
                opsets=[7, highest_opset()],
                operators=operators,
            )


def _refresh_openvino() -> None:
    openvino = import_openvino()
    version = openvino.__version__.split("-")[0]
    _write(
        "openvino",
        title="OpenVINO's CPU plugin",
        source=f"the reader of ONNX in the package openvino {version}, asked for each operator",
        version=version,
        opsets=[7, _HIGHEST],
        operators=probe_openvino(),
    )


def _refresh_tensorrt(table: Path) -> None:
    version, opsets, operators = read_operators_table(table.read_text(encoding="utf-8"))
    _write(
        "tensorrt",
        title=f"TensorRT {version}",
        source=f"docs/operators.md of onnx/onnx-tensorrt for TensorRT {version}",
        version=version,
        opsets=list(opsets),
        operators=operators,
    )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["onnxruntime"]:
            _refresh_onnxruntime()
        case ["openvino"]:
            _refresh_openvino()
        case ["tensorrt", path]:
            _refresh_tensorrt(Path(path))
        case _:
            raise SystemExit(__doc__)
