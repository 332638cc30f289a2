"""Layers of neuraloperator, replaced one by one or lowered with everything else that is complex, and the classic layer.

The same layer of neuraloperator is exported both ways, next to a hand-written layer that keeps as many frequencies:
number of nodes, size, error, and time in turn in onnxruntime with one thread. `benchmarks/results/fourier_layers.json`.

    python -m benchmarks.fourier_layers
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch
from neuralop.layers.spectral_convolution import SpectralConv
from torch import nn

from benchmarks.exporter_cases.fourier_networks import SpectralConvolution
from benchmarks.exporter_worker import open_onnx, relative_error
from benchmarks.interleaved import median_milliseconds
from ptychonnx.export.lowering.torch.convert import convert_lowered
from ptychonnx.export.lowering.torch.spectral import Lowering, lower_spectral
from ptychonnx.export.passes import clean
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import UnsupportedError
from ptychonnx.runtime.machine import processor

SETTINGS: list[dict[str, Any]] = [
    {"shape": (32, 64, 64), "modes": (12, 12)},
    {"shape": (16, 32, 32), "modes": (12, 12)},
    {"shape": (32, 256), "modes": (32,)},
    {"shape": (8, 16, 16, 16), "modes": (6, 6, 6)},
    {"shape": (32, 64, 64), "modes": (12, 12), "factorization": "tucker", "rank": 0.1},
    {"shape": (32, 64, 64), "modes": (12, 12), "factorization": "cp", "rank": 0.05},
]


def build(shape: tuple[int, ...], modes: tuple[int, ...], **settings: Any) -> nn.Module:
    """The layer of neuraloperator."""
    torch.manual_seed(0)
    return SpectralConv(shape[0], shape[0], modes, **settings).eval()


def classic(shape: tuple[int, ...], modes: tuple[int, ...]) -> nn.Module:
    """The hand-written layer with as many frequencies."""
    torch.manual_seed(0)
    return SpectralConvolution(shape[0], shape[0], *(mode // 2 for mode in modes[:-1]), modes[-1] // 2 + 1)


def converted(module: nn.Module, example: torch.Tensor, replace_layers: bool) -> onnx.ModelProto:
    """The graph of a copy of a module."""
    module = copy.deepcopy(module)
    lowering = lower_spectral(module, example) if replace_layers else Lowering(module, {}, {})
    return clean(convert_lowered(lowering, example).model).model


def measured(settings: dict[str, Any], batch: int, folder: Path) -> dict[str, Any]:
    """One row: every way that works."""
    x = torch.randn(batch, *settings["shape"], generator=torch.Generator().manual_seed(0))
    layer = build(**settings)
    ways = {"replaced": (layer, True), "lowered": (layer, False)}
    if "factorization" not in settings:
        ways["classic"] = (classic(settings["shape"], settings["modes"]), False)
    row: dict[str, Any] = {**settings, "batch": batch, "ways": {}}
    runs = {}
    for way, (module, replace_layers) in ways.items():
        try:
            model = converted(module, x[:2], replace_layers)
        except UnsupportedError as error:
            row["ways"][way] = {"refused": str(error)}
            continue
        path = folder / f"{way}.onnx"
        onnx.save(model, path)
        run = open_onnx(path)
        feed = {"diffraction": x.numpy()}
        with torch.no_grad():
            error = relative_error(run(feed)["object"], module(x).numpy())
        row["ways"][way] = {"nodes": len(model.graph.node), "bytes": path.stat().st_size, "error": error}
        runs[way] = partial(run, feed)
    for way, milliseconds in median_milliseconds(runs, 1.0).items():
        row["ways"][way]["milliseconds"] = milliseconds
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/fourier_layers.json"))
    parser.add_argument("--note", default="", help="about the machine")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for settings in SETTINGS:
            rows.append(measured(settings, 4, Path(folder)))
            print(json.dumps(rows[-1]), flush=True)
    content = {"processor": processor(), "note": arguments.note, "rows": rows}
    write_text(arguments.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
