"""A small known experiment, and artifacts with known answers, which they look up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from ptychonnx.harness.cli.app import main
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward

Degrade = Callable[[np.ndarray], np.ndarray]
Run = Callable[..., tuple[int, str, str]]


def lines_like_object(side: int, seed: int = 3) -> np.ndarray:
    """complex64 [side, side]: bright object with dark, phase-shifting lines and a slow background."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    density = np.zeros((side, side))
    for _ in range(side // 3):
        angle, offset, width = rng.uniform(0, np.pi), rng.uniform(-0.7, 0.7) * side, rng.uniform(0.8, 2.0)
        distance = np.cos(angle) * (rows - side / 2) + np.sin(angle) * (columns - side / 2) - offset
        density += rng.uniform(0.3, 1.0) * np.exp(-((distance / width) ** 2))
    density /= density.max()
    return ((1 - 0.7 * density) * np.exp(1.2j * density)).astype(np.complex64)


def small_scan(size: int = 16, grid: int = 8, step: int = 4, name: str = "lines") -> Scan:
    """A scan with its reference, whose canvas coordinates begin at (-3, 5)."""
    side = size + step * (grid - 1)
    reference = Reference(lines_like_object(side + 8), origin=(-3.0, 5.0))
    corners = np.array([(r, c) for r in range(grid) for c in range(grid)]) * step
    positions = corners.astype(np.float64) + size // 2 + np.array(reference.origin) + 4
    row, column = np.mgrid[:size, :size] - size // 2
    probe = (100 * np.exp(-(row**2 + column**2) / (size / 3.5) ** 2)).astype(np.complex64)[None]
    patches = cut_windows(reference.object, positions, size, reference.origin)
    return Scan(
        diffraction=forward(patches, probe).astype(np.float32),
        positions=positions,
        probe=probe,
        reference=reference,
        pixel_size=1e-8,
        name=name,
    )


def make_contract(label: str, scan: Scan, **changes: object) -> Contract:
    """A valid contract for an artifact of this scan's N."""
    return Contract.model_validate(
        {
            "label": label,
            "architecture": label.removeprefix("pinn_"),
            "n": scan.size,
            "input": {"scale": 1.0, "scale_rule": "none"},
            "probe": {"sha256": scan.probe_sha256(), "modes": 1, "flux": scan.flux},
            "provenance": {
                "framework": "torch",
                "versions": {"torch": "2.13.0"},
                "git_commit": None,
                "parameters": 1,
                "training_data_sha256": "0" * 64,
                "seed": 1,
                "epochs": 1,
                "loss": "amplitude MAE",
                "final_loss": 0.1,
            },
            "conversion": {
                "exporter": "onnx.helper",
                "opset": 18,
                "ir_version": 10,
                "lowering": "none",
                "passes": [],
            },
            "parity": {
                "max_relative_error": 3e-6,
                "rms_relative_error": 4e-7,
                "tolerance": 1e-4,
                "batches": [1, 5],
                "patterns": "held-out test patterns",
                "engine": "torch 2.13.0",
            },
        }
        | changes
    )


def write_oracle(
    path: Path, scan: Scan, contract: Contract, degrade: Degrade = lambda patches: patches
) -> Path:
    """An artifact that recognises each pattern of the scan and answers with its degraded true patch.

    The pattern with the least squared distance: argmax of ``x . b - |b|^2 / 2`` over the bank of patterns b.
    """
    assert scan.reference is not None
    patches = degrade(cut_windows(scan.reference.object, scan.positions, scan.size, scan.reference.origin))
    bank = scan.diffraction.reshape(len(scan), -1).astype(np.float32)
    answers = np.stack([patches.real, patches.imag], axis=-1)[:, :, :, None, :].astype(np.float32)
    half_norms = (np.sum(bank.astype(np.float64) ** 2, axis=1) / 2).astype(np.float32)
    constants = {
        "flat": np.array([-1, bank.shape[1]], dtype=np.int64),
        "bank": np.ascontiguousarray(bank.T),
        "half_norms": half_norms,
        "answers": answers,
    }
    nodes = [
        helper.make_node("Reshape", ["diffraction", "flat"], ["rows"]),
        helper.make_node("MatMul", ["rows", "bank"], ["products"]),
        helper.make_node("Sub", ["products", "half_norms"], ["scores"]),
        helper.make_node("ArgMax", ["scores"], ["index"], axis=1, keepdims=0),
        helper.make_node("Gather", ["answers", "index"], ["object"], axis=0),
    ]
    n = scan.size
    graph = helper.make_graph(
        nodes,
        "oracle",
        [helper.make_tensor_value_info("diffraction", TensorProto.FLOAT, ["batch", 1, n, n])],
        [helper.make_tensor_value_info("object", TensorProto.FLOAT, ["batch", n, n, 1, 2])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    onnx.checker.check_model(model)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)
    return path


def blurred(patches: np.ndarray) -> np.ndarray:
    """Patches averaged over 3 x 3 pixels."""
    padded = np.pad(patches, ((0, 0), (1, 1), (1, 1)), mode="edge")
    n = patches.shape[-1]
    return sum(padded[:, r : r + n, c : c + n] for r in range(3) for c in range(3)) / 9


def noisy(patches: np.ndarray) -> np.ndarray:
    """Patches with complex white noise of 0.08."""
    rng = np.random.default_rng(8)
    return patches + 0.08 * (rng.normal(size=patches.shape) + 1j * rng.normal(size=patches.shape))


def blank(patches: np.ndarray) -> np.ndarray:
    """Patches of one grey value."""
    return np.full_like(patches, 0.8 + 0.1j)


def turned(patches: np.ndarray) -> np.ndarray:
    """Patches times one complex factor."""
    return patches * (1.7 * np.exp(0.9j))


@pytest.fixture(scope="session")
def lines_scan() -> Scan:
    return small_scan()


@pytest.fixture(scope="session")
def four_artifacts(lines_scan: Scan, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("models")
    return [
        write_oracle(folder / f"{label}.onnx", lines_scan, make_contract(label, lines_scan), degrade)
        for label, degrade in (
            ("pinn_cnn", turned),
            ("pinn_fno", blurred),
            ("pinn_hybrid", noisy),
            ("baseline", blank),
        )
    ]


@pytest.fixture
def oracle() -> Callable[..., Path]:
    """`oracle(path, scan, label, degrade=..., **contract_changes)` writes an artifact."""

    def write(path: Path, scan: Scan, label: str, degrade: Degrade = lambda p: p, **changes: object) -> Path:
        return write_oracle(path, scan, make_contract(label, scan, **changes), degrade)

    return write


@pytest.fixture(scope="session")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> object:
    """A scan for live reconstruction, see `live_streams.Experiment`."""
    pytest.importorskip("bitshuffle")
    from .live_streams import live_experiment

    return live_experiment(
        small_scan(grid=8),
        lambda path, scan: write_oracle(path, scan, make_contract("pinn_fno", scan)),
        tmp_path_factory.mktemp("live"),
    )


@pytest.fixture
def scan_of() -> Callable[..., Scan]:
    """`small_scan`, for tests that need another one."""
    return small_scan


@pytest.fixture
def degradations() -> dict[str, Degrade]:
    return {"blurred": blurred, "noisy": noisy, "blank": blank, "turned": turned}


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in this process: exit code, standard output, standard error."""

    def call(*arguments: object, columns: int = 200) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ptychonnx", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", str(columns))
        try:
            main()
            code = 0
        except SystemExit as exit:
            code = int(exit.code or 0)
        captured = capfd.readouterr()
        return code, captured.out, captured.err

    return call
