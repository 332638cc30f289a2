"""Valid inputs of every kind that ptychonnx takes, and the command that takes each of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import onnx
from onnx import helper

from ptychonnx.runtime.contract import CONTRACT_KEY
from ptychonnx.runtime.contract.integrity import CONTRACT_HASH_KEY, contract_sha256, graph_sha256
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.scan import Reference, Scan
from ptychonnx.runtime.scan.forward_model import cut_windows, forward
from tests.runtime import test_formats_damaged as formats
from tests.runtime.conftest import SIZE, asymmetric_object, gaussian_probe
from tests.runtime.test_session import contract, write_identity

__all__ = ["Subject", "all_subjects", "publish", "stamp"]

PIXEL = 2e-8


@dataclass(frozen=True)
class Subject:
    """A kind of input.

    Attributes
    ----------
    name
        For the report.
    files
        The files that are damaged, relative to the folder of the subject.
    arguments
        Command line, run inside the folder; `{server}` stands for the address of a server.
    result
        File that the command writes, whose content is compared; empty if there is none.
    served
        ``http`` or ``grpc``: what is damaged are the answers of a server, not files.
    """

    name: str
    files: tuple[str, ...]
    arguments: tuple[str, ...]
    result: str = "o.npz"
    served: str = ""


def known_scan() -> Scan:
    """Noise-free patterns of a known object, with everything that a scan may carry."""
    truth, probe = asymmetric_object(), gaussian_probe()
    rows, columns = np.meshgrid(np.arange(8, 33, 8), np.arange(8, 45, 9), indexing="ij")
    positions = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(np.float64)
    patches = cut_windows(truth, positions, SIZE)
    mask = np.ones((SIZE, SIZE), dtype=bool)
    mask[2, 3] = False
    patterns = (forward(patches, probe) * mask).astype(np.float32)
    return Scan(
        patterns, positions, probe, mask, Reference(truth), PIXEL, 1.5e-10, name="known", labels=patches
    )


def publish(path: Path, changes: Callable[[str], str] = str) -> None:
    """An artifact with both hashes, as the exporter stamps it; `changes` are made to the text of the contract."""
    write_identity(path, None)
    stamp(onnx.load(path), path, changes)


def stamp(model: onnx.ModelProto, path: Path, changes: Callable[[str], str] = str, **parts: object) -> None:
    """Write a model with a contract, parts of it as given, and both hashes."""
    del model.metadata_props[:]
    text = changes(
        contract(
            graph_sha256=graph_sha256(model),
            stitching={"weighting": "probe"},
            probe={"sha256": None, "modes": 1, "flux": 1e5},
            **parts,
        ).to_json()
    )
    helper.set_model_props(model, {CONTRACT_KEY: text, CONTRACT_HASH_KEY: contract_sha256(text)})
    onnx.save(model, path)


def foreign_network(path: Path) -> None:
    """A network of another program, whose phase is half of its input."""
    shape = ["batch", 1, SIZE, SIZE]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "half"], ["phase"])],
        "foreign",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("phase", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor("half", onnx.TensorProto.FLOAT, [], [0.5])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)


def _probes(folder: Path, probe: np.ndarray) -> dict[str, Path]:
    np.savez(folder / "p.npz", probe=probe)
    np.save(folder / "p.npy", probe)
    with h5py.File(folder / "p.h5", "w") as file:
        file["probe"] = probe
    with h5py.File(folder / "p.ptyr", "w") as file:
        file["content/probe/Sscan/data"] = probe
    with h5py.File(folder / "p.mat", "w") as file:
        pairs = np.zeros(probe.shape, dtype=[("real", "<f8"), ("imag", "<f8")])
        pairs["real"], pairs["imag"] = probe.real, probe.imag
        file["probe"] = pairs.swapaxes(-1, -2)
    return {kind: folder / f"p.{kind}" for kind in ("npz", "npy", "h5", "ptyr", "mat")}


SIDECAR = """\
label: theirs
n: 16
flux: 1.0e5
stitching: uniform
input:
  layout: BCNN
  steps: [square, {threshold: 1}, log1p]
output:
  channels: [phase]
"""
SETTINGS = "weighting: uniform\nplacement: bilinear\nbatch: 8\nprovider: cpu\nsynchronise: false\nsteps: 1\n"


def all_subjects(root: Path) -> list[Subject]:
    """Write a folder for each subject under `root`."""
    scan, truth, probe = known_scan(), asymmetric_object(), gaussian_probe()
    subjects = []

    def folder_of(name: str) -> Path:
        folder = root / name.replace("/", "_")
        folder.mkdir()
        publish(folder / "m.onnx")
        return folder

    def reconstruct(*arguments: str) -> tuple[str, ...]:
        return ("reconstruct", "m.onnx", *arguments, "--provider", "cpu", "--out", "o.npz")

    for kind, write in formats.FILES.items():
        folder = folder_of(f"scan/{kind}")
        path = write(folder, scan, truth, probe)
        mapping = [f"--map={key}={value}" for key, value in formats.MAPPING.items()]
        options = [path.name, "--probe", "p.npz", *(mapping if kind == "mapped" else [])]
        files = tuple(entry.name for entry in folder.iterdir() if entry.name != "m.onnx")
        np.savez(folder / "p.npz", probe=probe)
        subjects.append(Subject(f"scan/{kind}", files, reconstruct(*options)))
    folder = folder_of("scan/uncompressed")
    np.savez(
        folder / "s.npz",
        format="ptychonnx-scan-1",
        diffraction=scan.diffraction,
        positions=scan.positions,
        probe=probe,
        pixel_size=PIXEL,
    )
    subjects.append(Subject("scan/uncompressed", ("s.npz",), reconstruct("s.npz")))
    folder = folder_of("positions/text")
    np.savez(folder / "s.npz", d=scan.diffraction**2, probe=probe)
    lines = "\n".join(f"{row * PIXEL},{column * PIXEL}" for row, column in scan.positions)
    (folder / "p.csv").write_text(f"y_m,x_m\n{lines}\n")
    mapped = (
        "s.npz",
        "--map=patterns=d",
        "--map=probe=probe",
        "--map=positions=p.csv",
        f"--pixel-size={PIXEL}",
    )
    subjects.append(Subject("positions/text", ("p.csv",), reconstruct(*mapped)))

    for kind in ("npz", "npy", "h5", "ptyr", "mat"):
        folder = folder_of(f"probe/{kind}")
        write_scan(folder / "s.npz", scan)
        file = _probes(folder, probe)[kind].name
        subjects.append(Subject(f"probe/{kind}", (file,), reconstruct("s.npz", "--probe", file)))
    for kind in ("npz", "h5"):
        folder = folder_of(f"reference/{kind}")
        write_scan(folder / "s.npz", scan)
        if kind == "npz":
            np.savez(folder / "r.npz", object=truth, origin=np.zeros(2))
        else:
            with h5py.File(folder / "r.h5", "w") as file:
                file["object"], file["origin_px"] = truth, np.zeros(2)
        arguments = ("evaluate", "m.onnx", "--scan", "s.npz", "--reference", f"r.{kind}", "--provider", "cpu")
        subjects.append(
            Subject(f"reference/{kind}", (f"r.{kind}",), (*arguments, "--csv", "o.csv"), result="o.csv")
        )
    for command in ("reconstruct", "inspect", "deploy"):
        folder = folder_of(f"artifact/{command}")
        write_scan(folder / "s.npz", scan)
        arguments = {
            "reconstruct": reconstruct("s.npz"),
            "inspect": ("inspect", "m.onnx"),
            "deploy": ("deploy", "triton", "m.onnx", "--repository", "repo"),
        }[command]
        result = "o.npz" if command == "reconstruct" else ""
        subjects.append(Subject(f"artifact/{command}", ("m.onnx",), arguments, result))
    folder = folder_of("contract/adopt")
    foreign_network(folder / "f.onnx")
    (folder / "f.yaml").write_text(SIDECAR)
    adopt = ("adopt", "f.onnx", "--contract", "f.yaml", "--out", "a.onnx")
    subjects.append(Subject("contract/adopt", ("f.yaml",), adopt, result=""))
    folder = folder_of("config/reconstruct")
    write_scan(folder / "s.npz", scan)
    (folder / "c.yaml").write_text(SETTINGS.replace("steps: 1\n", ""))
    subjects.append(Subject("config/reconstruct", ("c.yaml",), reconstruct("s.npz", "--config", "c.yaml")))
    folder = folder_of("config/simulate")
    (folder / "c.yaml").write_text("n: 16\ntrain-grid: 3\ntest-grid: 2\nphotons: 1e5\nseed: 3\n")
    simulate = ("simulate", "lines", "--config", "c.yaml", "--out", "data")
    subjects.append(Subject("config/simulate", ("c.yaml",), simulate, result="data/test.npz"))
    for served in ("http", "grpc"):
        folder = folder_of(f"server/{served}")
        write_scan(folder / "s.npz", scan)
        arguments = ("reconstruct", "s.npz", "--server", "{server}", "--timeout", "2", "--patience", "4")
        subjects.append(
            Subject(f"server/{served}", (), (*arguments, "--batch", "5", "--out", "o.npz"), served=served)
        )
    return subjects
