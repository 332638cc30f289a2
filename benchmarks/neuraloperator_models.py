"""Networks and layers of neuraloperator 2.0, exported and verified: written to `docs/results/neuraloperator.json`.

Each row is exported by `export_module.export_module`, as `ptychonnx export-module` does it: lowered, cleaned, and
compared with torch on random, all-zero, small and large inputs in batches of 1, 3 and 16, in every engine that is
installed. The figure is the largest difference over the largest output, of all these. What is refused is a row too.

    python -m benchmarks.neuraloperator_models --out docs/results/neuraloperator.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from neuralop.layers.spectral_convolution import SpectralConv
from neuralop.layers.spherical_convolution import SphericalConv
from neuralop.models import CODANO, FNO, SFNO, TFNO, UNO, UQNO, LocalNO
from torch import nn

from ptychonnx.export.artifact.export_module import ModuleInput, ModuleOptions, export_module
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.errors import InputError, VerificationError


@dataclass(frozen=True)
class Row:
    """One configuration."""

    build: Callable[..., nn.Module]
    shape: tuple[int, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    complex_values: bool = False


def conv(modes: Any, **settings: Any) -> nn.Module:
    channels = 8
    return SpectralConv(channels, channels if settings.get("separable") else 6, modes, **settings)


def sphere(**settings: Any) -> nn.Module:
    return SphericalConv(8, 6, (8, 8), **settings)


def fno(modes: tuple[int, ...] = (8, 8), **settings: Any) -> nn.Module:
    return FNO(modes, 1, 1, 16, **{"n_layers": 2, **settings})


def tfno(**settings: Any) -> nn.Module:
    return TFNO((8, 8), 1, 1, 16, n_layers=2, **settings)


def sfno(**settings: Any) -> nn.Module:
    return SFNO((8, 8), 1, 1, 16, n_layers=2, **settings)


def local(**settings: Any) -> nn.Module:
    defaults = {"disco_layers": False, "diff_layers": False, "default_in_shape": (32, 32)}
    return LocalNO((8, 8), 1, 1, 16, n_layers=2, **{**defaults, **settings})


def uno(axes: int = 2, **settings: Any) -> nn.Module:
    scalings = [[0.5] * axes, [1] * axes, [2] * axes]
    return UNO(1, 1, hidden_channels=8, n_layers=3, uno_out_channels=[8, 8, 8], uno_n_modes=[(6,) * axes] * 3,
               uno_scalings=scalings, channel_mlp_skip="linear", **settings)  # fmt: skip


def uqno() -> nn.Module:
    return UQNO(fno(), fno())


def codano() -> nn.Module:
    return CODANO(output_variable_codimension=1, lifting_channels=8, hidden_variable_codimension=8,
                  projection_channels=8, n_layers=2, n_heads=[1, 1], n_modes=[[6, 6], [6, 6]],
                  attention_scaling_factors=[1, 1], per_layer_scaling_factors=[[1, 1], [1, 1]],
                  static_channel_dim=0, variable_ids=["a"], use_positional_encoding=False)  # fmt: skip


LINE, SQUARE, ODD, WIDE, CUBE = (1, 65), (1, 32, 32), (1, 33, 31), (1, 16, 32), (1, 12, 9, 11)
ROWS = [
    Row(conv, (8, 64), {"modes": (16,)}),
    Row(conv, (8, 64, 64), {"modes": (12, 12)}),
    Row(conv, (8, 63, 65), {"modes": (13, 12)}),
    Row(conv, (8, 33, 33), {"modes": (7, 8), "max_n_modes": (12, 12)}),
    Row(conv, (8, 16, 15), {"modes": (40, 24)}),
    Row(conv, (8, 32, 32), {"modes": (4, 30)}),
    Row(conv, (8, 12, 9, 11), {"modes": (6, 5, 6)}),
    *(Row(conv, (8, 33, 32), {"modes": (8, 8), "fft_norm": norm}) for norm in ("backward", "ortho")),
    *(Row(conv, (8, 33, 32), {"modes": (8, 8), "resolution_scaling_factor": by}) for by in (0.5, 2)),
    Row(conv, (8, 33, 32), {"modes": (8, 8), "bias": False}),
    Row(conv, (8, 33, 32), {"modes": (8, 8), "separable": True}),
    *(
        Row(conv, (8, 32, 32), {"modes": (8, 8), "factorization": kind, "rank": 0.1, "implementation": way})
        for kind in ("tucker", "cp", "tt")
        for way in ("reconstructed", "factorized")
    ),
    Row(conv, (8, 32, 32), {"modes": (8, 8), "separable": True, "factorization": "tucker"}),
    Row(conv, (8, 33, 32), {"modes": (8, 8), "complex_data": True}, complex_values=True),
    *(Row(conv, (8, 32, 32), {"modes": (8, 8), "fno_block_precision": way}) for way in ("half", "mixed")),
    Row(sphere, (8, 16, 32)),
    Row(sphere, (8, 15, 31), {"sht_grids": "legendre-gauss", "factorization": "tucker"}),
    Row(fno, SQUARE),
    Row(fno, ODD),
    Row(fno, LINE, {"modes": (16,)}),
    Row(fno, CUBE, {"modes": (4, 4, 4)}),
    Row(fno, CUBE, {"modes": (4, 4, 4), "resolution_scaling_factor": [2, 1, 0.5]}),
    *(Row(fno, SQUARE, {"norm": norm}) for norm in ("group_norm", "instance_norm", "batch_norm")),
    *(Row(fno, SQUARE, {"fno_skip": skip}) for skip in ("identity", "soft-gating", None)),
    *(Row(fno, SQUARE, {"channel_mlp_skip": skip}) for skip in ("identity", "linear", None)),
    Row(fno, SQUARE, {"use_channel_mlp": False}),
    Row(fno, SQUARE, {"stabilizer": "tanh", "preactivation": True}),
    Row(fno, SQUARE, {"domain_padding": 0.125}),
    Row(fno, SQUARE, {"positional_embedding": None}),
    Row(fno, SQUARE, {"separable": True}),
    Row(fno, SQUARE, {"fno_block_precision": "mixed", "stabilizer": "tanh"}),
    Row(fno, SQUARE, {"complex_data": True}, complex_values=True),
    *(Row(tfno, SQUARE, {"factorization": kind, "rank": 0.1}) for kind in ("tucker", "cp", "tt")),
    Row(uno, SQUARE),
    Row(uno, ODD),
    Row(uno, SQUARE, {"norm": "group_norm", "domain_padding": 0.125}),
    Row(uno, CUBE, {"axes": 3, "horizontal_skips_map": {}}),
    Row(uno, CUBE, {"axes": 3}),
    Row(uqno, SQUARE),
    Row(codano, SQUARE),
    Row(sfno, WIDE),
    Row(sfno, (1, 15, 31), {"factorization": "cp"}),
    Row(sfno, WIDE, {"resolution_scaling_factor": 2}),
    Row(sfno, WIDE, {"separable": True}),
    Row(local, SQUARE, {"disco_layers": True}),
    Row(local, SQUARE, {"diff_layers": True}),
    Row(local, SQUARE, {"disco_layers": True, "diff_layers": True, "use_channel_mlp": True}),
    Row(local, SQUARE, {"disco_layers": True, "conv_module": SphericalConv, "factorization": "dense"}),
]


def outcome(row: Row, folder: Path) -> tuple[str, str]:
    """Error and size of the file, or why there is none."""
    torch.manual_seed(0)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # UNO prints its skips
            module = row.build(**row.settings)
        with torch.no_grad():
            for parameter in module.parameters():
                # Biases and gates that start at zero or one would hide what is not connected.
                parameter.add_(0.05 * torch.randn_like(parameter))
        result = export_module(
            module, [ModuleInput(row.shape, row.complex_values)], folder / "module.onnx", ModuleOptions()
        )
    except (InputError, VerificationError) as error:
        return "refused", str(error).partition("; all figures")[0].replace("|", "\\|")
    worst = result.report.worst_case()
    figure = f"{worst.max_relative_error:.1e}" if worst.max_relative_error is not None else "not finite"
    failed = {case.engine.split()[0] for case in result.report.failures}
    if failed:
        figure += f", fails in {', '.join(sorted(failed))}"
    return figure, f"{result.path.stat().st_size / 1e3:.0f} kB"


def name_of(build: Callable[..., nn.Module]) -> str:
    return {
        "conv": "SpectralConv",
        "sphere": "SphericalConv",
        "local": "LocalNO",
    }.get(build.__name__, build.__name__.upper())


def settings_of(row: Row) -> str:
    shown = [f"{key}={getattr(value, '__name__', value)!r}" for key, value in row.settings.items()]
    return ", ".join(shown).replace("|", "\\|") or "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", default="", help="builders whose name starts so")
    arguments = parser.parse_args()
    records = []
    with tempfile.TemporaryDirectory() as folder:
        for row in ROWS:
            if not row.build.__name__.startswith(arguments.only):
                continue
            error, size = outcome(row, Path(folder))
            kind = "complex " if row.complex_values else ""
            records.append(
                {
                    "module": name_of(row.build),
                    "settings": settings_of(row),
                    "input": f"{kind}{', '.join(map(str, row.shape))}",
                    "error": error,
                    "file": size,
                }
            )
            print(records[-1], flush=True)
    if arguments.out:
        lines = ",\n".join(f" {json.dumps(record, ensure_ascii=False)}" for record in records)
        write_text(arguments.out, f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
