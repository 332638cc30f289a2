"""Candidates for the lowered form of a Fourier layer, interleaved in onnxruntime.

For each layer these forms are exported and timed; all give what the layer gives, which is checked:

* ``columns first``: `FourierChain`. One thin product an axis, real and imaginary part in one matrix, the last axis
  first; channels mixed by one product a mode with the block [[Wr, Wi], [-Wi, Wr]], one axis moved before and after;
* ``rows first``: `RowsFirstChain`, the same with the first axis first;
* ``one matrix``: all axes in one product with a matrix [points, 2 modes];
* ``parts apart``: real and imaginary part as products of their own, four in the place of one;
* ``three products``: channels mixed with three real products a mode in the place of four (Gauss);
* ``grouped convolution``: channels mixed by a convolution with one group a mode;
* ``DFT, forward only``: onnxruntime's operator for the two forward transforms alone, a lower bound. The inverse of real
  data is wrong in some versions of onnxruntime, and no GPU provider has the operator.

A second table takes weights in factors, in all forms of `ptychonnx.export.lowering.torch.mode_mixing.forms`.

Every form runs once in each round, in an order that changes from round to round. Figures are medians over the
rounds, in milliseconds a pattern; ratios are medians of the ratios within one round.

    python benchmarks/spectral_forms.py --out benchmarks/results/spectral_forms.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import torch
from neuralop.layers.spectral_convolution import SpectralConv
from onnx import TensorProto, helper
from torch import Tensor, nn

from ptychonnx.export.lowering.torch.convert import convert_lowered
from ptychonnx.export.lowering.torch.dft_matrices import FourierChain, RowsFirstChain, convolution_axes
from ptychonnx.export.lowering.torch.mode_mixing import Factors, ModeMixing, forms
from ptychonnx.export.lowering.torch.spectral import Lowering, lower_spectral
from ptychonnx.export.passes import clean
from ptychonnx.harness.bench.interleaved import in_turns, timed
from ptychonnx.runtime.atomic import write_text

# Channels, side of the image, modes.
LAYERS = [
    *((32, 64, 12), (32, 64, 40), (16, 32, 12), (32, 128, 16), (32, 16, 12)),
    *((16, 64, (4, 40)), (16, 64, (8, 24)), (32, 128, (8, 64))),
]
# Channels, side, modes, factorisation, rank as neuraloperator takes it.
FACTORISED = [
    (32, 64, 12, "tucker", 0.1),
    (32, 64, 12, "tucker", 0.01),
    (32, 64, 12, "cp", 0.05),
    (32, 64, 12, "tt", 0.05),
]

Run = Callable[[], Any]


class OneMatrix(nn.Module):
    """All axes at once."""

    def __init__(self, chain: FourierChain) -> None:
        super().__init__()
        (height, width), modes = chain.size, 2 * int(np.prod(chain.modes))
        self.size, self.between = (height, width), chain.between
        caught: list[Tensor] = []

        class Catch(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                caught.append(x.flatten(1))
                return torch.eye(modes).reshape(modes, 2, -1)

        catching = FourierChain([], Catch())
        catching.__dict__.update({name: getattr(chain, name) for name in ("size", "modes", "out_size")})
        catching._buffers.update(chain._buffers)
        inverse = catching(torch.eye(height * width).reshape(-1, 1, height, width), 1)
        self.register_buffer("there", caught[0].clone())
        self.register_buffer("back", inverse.flatten(1).clone())

    def forward(self, x: Tensor, out_channels: int) -> Tensor:
        channels = x.shape[1]
        x = x.reshape(-1, channels, self.size[0] * self.size[1]) @ self.there
        x = self.between(x.reshape(-1, 2 * channels, self.there.shape[1] // 2))
        x = x.reshape(-1, out_channels, self.there.shape[1]) @ self.back
        return x.reshape(-1, out_channels, *self.size)


class PartsApart(nn.Module):
    """Products of real matrices, one for each part in and out."""

    def __init__(self, chain: FourierChain) -> None:
        super().__init__()
        height, (k_1, k_2) = chain.size[0], chain.modes
        self.modes = chain.modes
        self.last = [chain.forward_1[:, :k_2].contiguous(), chain.forward_1[:, k_2:].contiguous()]
        block = chain.forward_0.reshape(2, k_1, height, 2)
        self.rows = [block[0, :, :, 0].contiguous(), block[1, :, :, 0].contiguous()]
        mixing = chain.between[0].matrix
        self.mixing = [mixing[:, ::2, ::2].contiguous(), mixing[:, ::2, 1::2].contiguous()]
        back = chain.inverse_0.reshape(height, 2, 2, k_1)
        self.back = [back[:, 0, 0].contiguous(), back[:, 1, 0].contiguous()]
        self.end = [chain.inverse_1[:k_2].contiguous(), chain.inverse_1[k_2:].contiguous()]

    def forward(self, x: Tensor, out_channels: int) -> Tensor:
        (k_1, k_2), channels = self.modes, x.shape[1]
        real, imaginary = x @ self.last[0], x @ self.last[1]
        real, imaginary = (
            self.rows[0] @ real - self.rows[1] @ imaginary,
            self.rows[0] @ imaginary + self.rows[1] @ real,
        )
        real, imaginary = (
            value.reshape(-1, channels, k_1 * k_2).permute(2, 0, 1) for value in (real, imaginary)
        )
        real, imaginary = (
            real @ self.mixing[0] - imaginary @ self.mixing[1],
            real @ self.mixing[1] + imaginary @ self.mixing[0],
        )
        real, imaginary = (
            value.permute(1, 2, 0).reshape(-1, out_channels, k_1, k_2) for value in (real, imaginary)
        )
        real, imaginary = (
            self.back[0] @ real - self.back[1] @ imaginary,
            self.back[0] @ imaginary + self.back[1] @ real,
        )
        return real @ self.end[0] + imaginary @ self.end[1]


class ThreeProducts(nn.Module):
    """``(xr + xi) Wr``, ``xr (Wi - Wr)`` and ``xi (Wr + Wi)`` give both parts."""

    def __init__(self, mixing: ModeMixing) -> None:
        super().__init__()
        real, imaginary = mixing.matrix[:, ::2, ::2], mixing.matrix[:, ::2, 1::2]
        self.parts = [real.contiguous(), (imaginary - real).contiguous(), (real + imaginary).contiguous()]

    def forward(self, x: Tensor) -> Tensor:
        x = x.reshape(-1, x.shape[1] // 2, 2, x.shape[2]).permute(2, 3, 0, 1)
        real, imaginary = x[0], x[1]
        both = (real + imaginary) @ self.parts[0]
        found = torch.stack([both - imaginary @ self.parts[2], both + real @ self.parts[1]])
        return found.permute(2, 3, 0, 1).flatten(1, 2)


class GroupedConvolution(nn.Module):
    """One group of channels a mode."""

    def __init__(self, mixing: ModeMixing) -> None:
        super().__init__()
        modes, inside, outside = mixing.matrix.shape
        self.modes = modes
        self.mix = nn.Conv2d(modes * inside, modes * outside, 1, groups=modes, bias=False)
        self.mix.weight.data = mixing.matrix.transpose(1, 2).reshape(modes * outside, inside, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x.transpose(1, 2).reshape(-1, self.modes * x.shape[1], 1, 1))
        return x.reshape(-1, self.modes, x.shape[1] // self.modes).transpose(1, 2)


class Whole(nn.Module):
    """A chain, or one of the candidates, as a layer."""

    def __init__(self, chain: nn.Module, channels: int) -> None:
        super().__init__()
        self.chain, self.channels = chain, channels

    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x, self.channels)


def candidates(layer: SpectralConv, size: tuple[int, int]) -> dict[str, nn.Module]:
    """Modules that give what the layer gives, by name."""
    x = torch.zeros(1, layer.in_channels, *size)
    chosen = lower_spectral(layer, x).module.chain
    axes = convolution_axes(layer, size, size, chosen.modes)
    chain = FourierChain(axes, chosen.between)
    every = {
        "columns first": chain,
        "rows first": RowsFirstChain(axes, chosen.between),
        "one matrix": OneMatrix(chain),
        "parts apart": PartsApart(chain),
        "three products": FourierChain(axes, ThreeProducts(chain.between[0])),
        "grouped convolution": FourierChain(axes, GroupedConvolution(chain.between[0])),
    }
    return {name: Whole(module, layer.out_channels) for name, module in every.items()}


def factored(layer: SpectralConv, size: tuple[int, int]) -> dict[str, nn.Module]:
    """The layer with its weight in each form, by name."""
    chain = lower_spectral(layer, torch.zeros(1, layer.in_channels, *size)).module.chain
    axes = convolution_axes(layer, size, size, chain.modes)
    return {
        form_name(form): Whole(FourierChain(axes, form.module()), layer.out_channels)
        for form in forms(layer.weight)
    }


def form_name(form: Factors) -> str:
    if form.inside is None and form.outside is None:
        return "multiplied out"
    kept = [name for name, part in (("inside", form.inside), ("outside", form.outside)) if part is not None]
    return " and ".join(kept) + " kept"


def exported(module: nn.Module, x: Tensor) -> onnx.ModelProto:
    return clean(convert_lowered(Lowering(module.eval(), {}), x[:2]).model).model


def forward_dft(channels: int, size: tuple[int, int]) -> onnx.ModelProto:
    """The two forward transforms by the operator `DFT`."""
    constants = [
        helper.make_tensor("rows", TensorProto.INT64, [], [2]),
        helper.make_tensor("columns", TensorProto.INT64, [], [3]),
        helper.make_tensor("last", TensorProto.INT64, [1], [4]),
    ]
    nodes = [
        helper.make_node("Unsqueeze", ["diffraction", "last"], ["x"]),
        helper.make_node("DFT", ["x", "", "columns"], ["y"], onesided=1),
        helper.make_node("DFT", ["y", "", "rows"], ["object"]),
    ]
    make = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "dft",
        [make("diffraction", TensorProto.FLOAT, ["batch", channels, *size])],
        [make("object", TensorProto.FLOAT, ["batch", channels, size[0], size[1] // 2 + 1, 2])],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def measure(models: dict[str, onnx.ModelProto], x: Tensor, rounds: int) -> dict[str, Any]:
    """Medians of interleaved times, and of ratios to the first form."""
    runs: dict[str, Run] = {}
    for name, model in models.items():
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        runs[name] = lambda session=session: session.run(None, {"diffraction": x.numpy()})
        runs[name]()
    seconds = in_turns({name: partial(timed, run) for name, run in runs.items()}, rounds)
    times = {name: 1e3 * values / len(x) for name, values in seconds.items()}
    base = next(iter(times.values()))
    return {
        name: {
            "milliseconds": statistics.median(values),
            "over_first": statistics.median(own / one for own, one in zip(values, base, strict=True)),
            "bytes": len(models[name].SerializeToString()),
        }
        for name, values in times.items()
    }


def check(models: dict[str, onnx.ModelProto], layer: SpectralConv, x: Tensor) -> None:
    with torch.no_grad():
        expected = (layer(x) - layer.bias).numpy()
    for name, model in models.items():
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        found = session.run(None, {"diffraction": x.numpy()})[0]
        error = float(np.abs(found - expected).max() / np.abs(expected).max())
        if not error < 1e-5:
            raise SystemExit(f"{name}: differs by {error:.1e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: list[dict[str, Any]] = []
    every = [(*layer, None, None) for layer in LAYERS] + FACTORISED
    for channels, side, modes, factorization, rank in every:
        torch.manual_seed(0)
        pair = (modes, modes) if isinstance(modes, int) else modes
        settings = {} if factorization is None else {"factorization": factorization, "rank": rank}
        layer = SpectralConv(channels, channels, pair, **settings).eval().requires_grad_(False)
        size = (side, side)
        forms_of = (candidates if factorization is None else factored)(layer, size)
        x = torch.randn(max(arguments.batches), channels, *size)
        models = {name: exported(module, x) for name, module in forms_of.items()}
        check(models, layer, x)
        if factorization is None:
            models["DFT, forward only"] = forward_dft(channels, size)
        name = f"{channels} channels, {side} x {side}, {pair[0]} x {pair[1]} modes"
        name += f", {factorization} {rank}" if factorization else ""
        for batch in arguments.batches:
            found = measure(models, x[:batch], arguments.rounds)
            results.append({"layer": name, "batch": batch, "forms": found})
            print(f"{name}, batch {batch}")
            for form, figures in found.items():
                print(f"  {form:<24}{figures['milliseconds']:9.3f} ms {figures['over_first']:7.2f}x "
                      f"{figures['bytes'] / 1e6:8.2f} MB")  # fmt: skip
    if arguments.out:
        document = {
            "rounds": arguments.rounds,
            "machine": platform.processor() or platform.machine(),
            "versions": {name: version(name) for name in ("onnxruntime-gpu", "torch", "neuraloperator")},
            "results": results,
        }
        write_text(arguments.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
