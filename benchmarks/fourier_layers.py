"""Layers of neuraloperator, replaced one by one or lowered with everything else that is complex, and the classic layer.

The same network of neuraloperator is exported both ways, next to a hand-written layer that keeps as many frequencies:
number of nodes, size, error, and time in turn in onnxruntime with one thread. `benchmarks/results/fourier_layers.json`.

    python -m benchmarks.fourier_layers
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import onnx
import torch
from neuralop.layers.spectral_convolution import SpectralConv
from neuralop.models import FNO
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

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("FNO", {"shape": (1, 32, 32), "modes": (12, 12)}),
    ("SpectralConv", {"shape": (32, 64, 64), "modes": (12, 12)}),
    ("SpectralConv", {"shape": (32, 64, 64), "modes": (12, 12), "factorization": "tucker", "rank": 0.1}),
    ("SpectralConv", {"shape": (32, 256), "modes": (32,)}),
    ("SpectralConv", {"shape": (16, 32, 32), "modes": (12, 12)}),
    ("SpectralConv", {"shape": (8, 16, 16, 16), "modes": (6, 6, 6)}),
]


def build(name: str, shape: tuple[int, ...], modes: tuple[int, ...], **settings: Any) -> nn.Module:
    """The layer or network of neuraloperator."""
    torch.manual_seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        if name == "FNO":
            return FNO(modes, 1, 1, 16, n_layers=2, **settings).eval()
        return SpectralConv(shape[0], shape[0], modes, **settings).eval()


def classic(shape: tuple[int, ...], modes: tuple[int, ...]) -> nn.Module:
    """The hand-written layer with as many frequencies."""
    torch.manual_seed(0)
    return SpectralConvolution(shape[0], shape[0], *(mode // 2 for mode in modes[:-1]), modes[-1] // 2 + 1)


def converted(module: nn.Module, example: torch.Tensor, replace_layers: bool) -> tuple[onnx.ModelProto, bool]:
    """The graph of a copy of a module, and whether it takes any batch, not that of the example alone."""
    for batch in (None, len(example)):
        copied = copy.deepcopy(module)
        lowering = lower_spectral(copied, example) if replace_layers else Lowering(copied, {}, {})
        try:
            model = convert_lowered(lowering, example, batch=batch).model
        except UnsupportedError:
            if batch is not None:
                raise
        else:
            return clean(model).model, batch is None
    raise AssertionError


def measured(name: str, settings: dict[str, Any], batch: int, folder: Path) -> dict[str, Any]:
    """One row: every way that works."""
    x = torch.randn(batch, *settings["shape"], generator=torch.Generator().manual_seed(0))
    network = build(name, **settings)
    ways = {"replaced": (network, True), "lowered": (network, False)}
    if name == "SpectralConv" and "factorization" not in settings:
        ways["classic"] = (classic(settings["shape"], settings["modes"]), False)
    row: dict[str, Any] = {"network": name, **settings, "batch": batch, "ways": {}}
    runs = {}
    for way, (module, replace_layers) in ways.items():
        try:
            model, any_batch = converted(module, x, replace_layers)
        except UnsupportedError as error:
            row["ways"][way] = {"refused": str(error)}
            continue
        path = folder / f"{way}.onnx"
        onnx.save(model, path)
        run = open_onnx(path)
        feed = {"diffraction": x.numpy()}
        with torch.no_grad():
            error = relative_error(run(feed)["object"], module(x).numpy())
        row["ways"][way] = {
            "nodes": len(model.graph.node),
            "bytes": path.stat().st_size,
            "error": error,
            "any_batch": any_batch,
        }
        runs[way] = lambda run=run, feed=feed: run(feed)
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
        for name, settings in SETTINGS:
            rows.append(measured(name, settings, 4, Path(folder)))
            print(json.dumps(rows[-1]), flush=True)
    content = {"processor": processor(), "note": arguments.note, "rows": rows}
    write_text(arguments.out, json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
