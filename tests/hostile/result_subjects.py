"""Valid inputs that are results of a program: general artifacts, objects, manifests, parts, keys, growing frames."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from onnx import helper, numpy_helper

from ptychonnx import simulate_lines
from ptychonnx.harness.campaign.manifest import MANIFEST, VERSION, FileState, ScanRecord
from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.formats.writers.reconstruction_file import write_reconstruction
from ptychonnx.runtime.reconstruction import Reconstruction
from ptychonnx.runtime.reconstruction.stitching import Stitched
from ptychonnx.runtime.scan import Scan
from tests.hostile.subjects import PIXEL, Subject, known_scan, publish, stamp
from tests.runtime.conftest import SIZE, asymmetric_object
from tests.runtime.test_session import contract

__all__ = ["publish_general", "result_subjects", "subject_folder"]

_EVALUATE = ("evaluate", "--scan", "s.npz", "--csv", "o.csv")


def publish_general(path: Path) -> None:
    """An artifact that takes probe, mask and scale, and multiplies its input by the last two."""
    publish(path)
    model = onnx.load(path)
    defaults = {
        "probe": np.ones((1, SIZE, SIZE, 2), np.float32),
        "mask": np.ones((SIZE, SIZE), np.float32),
        "scale": np.array(0.1, np.float32),
        "nothing": np.array(0, np.float32),
    }
    tensors = [numpy_helper.from_array(values, name) for name, values in defaults.items()]
    model.graph.initializer.extend(tensors)
    model.graph.input.extend(
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, values.shape)
        for name, values in defaults.items()
        if name != "nothing"
    )
    nodes = list(model.graph.node)
    place = next(index for index, node in enumerate(nodes) if node.output[0] == "amplitude")
    nodes[place].output[0] = "bare"
    nodes[place + 1 : place + 1] = [
        helper.make_node("Mul", ["bare", "mask"], ["valid"]),
        helper.make_node("Mul", ["valid", "scale"], ["scaled"]),
        helper.make_node("ReduceSum", ["probe"], ["power"], keepdims=0),
        helper.make_node("Mul", ["power", "nothing"], ["zero"]),
        helper.make_node("Add", ["scaled", "zero"], ["amplitude"]),
    ]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    stamp(model, path, beam={"modes": 1}, trained_for={"n": [SIZE], "photons": [1e4, 1e6]})


def result_subjects(root: Path) -> list[Subject]:
    """Write a folder for each subject under `root`."""
    scan = known_scan()
    result = _reconstruction(scan)
    return [
        *_general(root, scan),
        *_objects(root, scan, result),
        *_many(root, scan, result),
        *_others(root, scan),
    ]


def _reconstruction(scan: Scan) -> Reconstruction:
    truth = asymmetric_object()
    stitched = Stitched(truth, np.ones(truth.shape), (0.0, 0.0))
    return Reconstruction(stitched, "probe", len(scan), 0.0, 0.0)


def subject_folder(root: Path, name: str, scan: Scan, artifact: Callable[[Path], None] = publish) -> Path:
    """The folder of a subject, with an artifact and a scan."""
    folder = root / name.replace("/", "_")
    folder.mkdir()
    artifact(folder / "m.onnx")
    write_scan(folder / "s.npz", scan)
    return folder


def _general(root: Path, scan: Scan) -> list[Subject]:
    reconstruct = ("reconstruct", "m.onnx", "s.npz", "--provider", "cpu", "--out", "o.npz")
    commands = {
        "general/artifact": (("m.onnx",), reconstruct, "o.npz"),
        "general/scan": (("s.npz",), reconstruct, "o.npz"),
        "general/specialise": (
            ("m.onnx", "s.npz"),
            ("specialise", "m.onnx", "--scan", "s.npz", "--out", "o.onnx"),
            "",
        ),
    }
    for name in commands:
        subject_folder(root, name, scan, publish_general)
    return [Subject(name, files, arguments, result) for name, (files, arguments, result) in commands.items()]


def _objects(root: Path, scan: Scan, result: Reconstruction) -> list[Subject]:
    subjects = []
    for kind in ("h5", "cxi", "npz", "tif", "ptyr", "mat"):
        folder = subject_folder(root, f"object/{kind}", scan)
        truth = result.stitched.object
        if kind == "ptyr":
            with h5py.File(folder / "o.ptyr", "w") as file:
                storage = file.create_group("content/obj/Sscan")
                storage["data"], storage["_psize"] = truth[None], [PIXEL, PIXEL]
                storage["_origin"] = [-PIXEL / 2, -PIXEL / 2]
        elif kind == "mat":
            with h5py.File(folder / "o.mat", "w") as file:
                for name, values in (("object", truth), ("probe", scan.probe)):
                    pairs = np.zeros(values.shape, dtype=[("real", "<f8"), ("imag", "<f8")])
                    pairs["real"], pairs["imag"] = values.real, values.imag
                    file[name] = pairs.swapaxes(-1, -2)
                corners = (scan.positions - scan.size // 2)[:, ::-1]
                file["outputs/probe_positions"] = corners.T
                file["p/dx_spec"] = np.array([[PIXEL], [PIXEL]])
        else:
            write_reconstruction(folder / f"o.{kind}", result, scan, contract())
        files = ("o_amplitude.tif", "o_phase.tif") if kind == "tif" else (f"o.{kind}",)
        arguments = (*_EVALUATE, "--object", f"theirs={files[0]}")
        subjects.append(Subject(f"object/{kind}", files, arguments, "o.csv"))
    folder = subject_folder(root, "metrics", scan)
    write_reconstruction(folder / "o.h5", result, scan, contract())
    np.savez(folder / "r.npz", object=result.stitched.object, pixel_size=PIXEL)
    subjects.append(Subject("metrics", ("o.h5", "r.npz"), ("metrics", "o.h5", "r.npz"), ""))
    return subjects


def _many(root: Path, scan: Scan, result: Reconstruction) -> list[Subject]:
    subjects = []
    commands = {
        "manifest/reconstruct": (
            (f"night/{MANIFEST}",),
            ("reconstruct", "m.onnx", "s.npz", "--provider", "cpu", "--out", "night"),
            "night/s.h5",
        ),
        "manifest/summary": ((f"night/{MANIFEST}", "night/s.h5"), ("summary", "night"), ""),
    }
    for name, (files, arguments, output) in commands.items():
        folder = subject_folder(root, name, scan)
        (folder / "night").mkdir()
        if not output:
            write_reconstruction(folder / "night/s.h5", result, scan, contract())
        record = ScanRecord(
            scan="/gone/s.npz",
            state=FileState.of(folder / "s.npz"),
            settings={},
            result="s.h5",
            version=VERSION,
            finished="2026-11-29T12:00:00+00:00",
            host="here",
            patterns=len(scan),
            shape=(40, 52),
            misfit=0.01,
            verdict="good",
        )
        (folder / files[0]).write_text(record.model_dump_json() + "\n")
        subjects.append(Subject(name, files, arguments, output))
    folder = subject_folder(root, "part", scan)
    line = "reconstruct m.onnx s.npz --provider cpu --shard 1/1 --out part.h5"
    subprocess.run(
        [sys.executable, "-m", "ptychonnx", *line.split()], cwd=folder, check=True, capture_output=True
    )
    subjects.append(Subject("part", ("part.h5",), ("merge", "part.h5", "--out", "o.npz")))
    return subjects


def _others(root: Path, scan: Scan) -> list[Subject]:
    check, sign, live = (subject_folder(root, name, scan) for name in ("check", "key", "live"))
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (sign / "key.pem").write_bytes(key)
    np.savez(live / "p.npz", probe=scan.probe)
    with h5py.File(live / "frames.h5", "w", libver="latest") as file:
        counts = np.rint(scan.diffraction**2).astype(np.uint32)
        file.create_dataset("d", data=counts, chunks=(1, *counts.shape[1:]))
    rows = "\n".join(f"{row},{column}" for row, column in scan.positions)
    (live / "p.csv").write_text(f"row_px,column_px\n{rows}\n# end\n")
    frames = f"swmr+file://frames.h5?data=/d&frames={len(scan)}"
    arguments = ("live", "m.onnx", "--frames", frames, "--positions", "p.csv", "--probe", "p.npz")
    arguments += (
        "--pixel-size",
        str(PIXEL),
        "--provider",
        "cpu",
        "--silence",
        "3",
        "--positions-timeout",
        "1",
    )
    # The overlap of the known scan is wrong.
    write_scan(check / "s.npz", simulate_lines(grid=4))
    return [
        Subject("check", ("s.npz",), ("check", "s.npz", "--json"), ""),
        Subject("key", ("key.pem",), ("sign", "m.onnx", "--key", "key.pem"), ""),
        Subject("live", ("frames.h5", "p.csv"), (*arguments, "--out", "o.h5"), "o.h5"),
    ]
