"""Fourier modules as our files, next to torch eager, `torch.compile` and onnxruntime's `DFT`, all in turn.

Every way gets a batch of two and one thread. `DFT` is the file of torch's own exporter, where that is right:
`benchmarks/results/compiled_modules.json`, and the table of docs/decisions/0028.

    python -m benchmarks.compiled_modules
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fft

from benchmarks.exporter_cases import Case, cases_of
from benchmarks.exporter_cases.case import real
from benchmarks.exporter_cases.torch_cases import Function
from benchmarks.exporter_worker import (
    BATCH,
    by_ptychonnx,
    by_torch,
    judge,
    native_of,
    open_onnx,
    open_openvino,
    values,
)
from benchmarks.interleaved import median_milliseconds
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.machine import processor

NAMES = ("GlobalFilter", "token_mixing", "FNO2d", "many_points")


def low_pass(x: Tensor) -> Tensor:
    """The lower half of the frequencies of an image of prime sides."""
    spectrum = fft.rfft2(x)
    spectrum[..., 105:-105, :] = 0
    return fft.irfft2(spectrum, s=(421, 421))


def measured(case: Case, folder: Path) -> dict[str, Any]:
    """Milliseconds of every way that is right."""
    native = native_of(case)
    arrays = values(native, BATCH)
    feed = dict(zip(native.inputs, arrays, strict=True))
    tensors = [torch.from_numpy(array) for array in arrays]
    runs: dict[str, Callable[[], Any]] = {"eager": lambda: native.predict(*arrays)}
    compiled = torch.compile(native._real)  # type: ignore[attr-defined]
    with contextlib.suppress(Exception), torch.inference_mode():  # what it cannot compile has no time
        compiled(*tensors)
        runs["torch.compile"] = lambda: compiled(*tensors)
    for name, by, opener in (
        ("onnxruntime", by_ptychonnx, open_onnx),
        ("OpenVINO", by_ptychonnx, open_openvino),
        ("DFT in onnxruntime", by_torch, open_onnx),
    ):
        path = folder / f"{case.name}.{name}.onnx"
        with contextlib.suppress(Exception):  # what it cannot export has no time
            by(case, native_of(case), None, path)
            if judge(path, native_of(case), case.tolerance, opener)["status"] == "right":
                runs[name] = partial(opener(path), feed)
    with torch.inference_mode():
        return {"module": case.name, "about": case.about, "milliseconds": median_milliseconds(runs, 0.5)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/compiled_modules.json"))
    parser.add_argument("--note", default="", help="about the machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    image = Case(
        "low_pass", "421 x 421 pixels, low frequencies", lambda: Function(low_pass), (real(1, 421, 421),)
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in (*(cases_of("torch")[name] for name in NAMES), image):
            rows.append(measured(case, Path(folder)))
            print(json.dumps(rows[-1]), flush=True)
            content = {
                "processor": processor(),
                "note": arguments.note,
                "torch": torch.__version__,
                "rows": rows,
            }
            write_text(arguments.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
