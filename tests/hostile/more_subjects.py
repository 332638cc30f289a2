"""Valid inputs of further kinds: networks, turned stages, objects and probes of other programs, servers, trainings."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

from ptychonnx.runtime.formats import write_scan
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.forward_model import window_corners
from tests.harness.conftest import small_scan
from tests.hostile.result_subjects import publish_general, result_subjects, subject_folder
from tests.hostile.subjects import PIXEL, Subject, known_scan
from tests.runtime.conftest import asymmetric_object
from tests.runtime.test_formats_other_programs import hdf5, ptychodus_product, shelves_file
from tests.runtime.test_formats_plausibility import rotated

__all__ = ["every_other_subject"]

_RECONSTRUCT = ("reconstruct", "m.onnx", "s.npz", "--provider", "cpu", "--out", "o.npz")
_TRAIN = "--epochs 1 --width 4 --blocks 1 --modes 4 --first-steps 2 --final-steps 1 --batch 4 --overlap 1"


def every_other_subject(root: Path) -> list[Subject]:
    """Write a folder under `root` for each subject that `all_subjects` leaves out."""
    scan, truth = known_scan(), asymmetric_object()
    return [
        *result_subjects(root),
        *_networks(root, scan),
        *_stages(root, scan),
        *_references(root, scan, truth),
        *_probes(root, scan),
        *_others(root, scan),
    ]


def _networks(root: Path, scan: Scan) -> list[Subject]:
    subjects = []
    for name, more in (("reconstruct", ()), ("skip", ("--skip-invalid",))):
        subject_folder(root, f"network/{name}", scan, publish_general)
        subjects.append(Subject(f"network/{name}", ("m.onnx",), (*_RECONSTRUCT, *more)))
    subject_folder(root, "network/evaluate", scan, publish_general)
    arguments = ("evaluate", "m.onnx", "--scan", "s.npz", "--provider", "cpu", "--csv", "o.csv")
    return [*subjects, Subject("network/evaluate", ("m.onnx",), arguments, "o.csv")]


def _stages(root: Path, scan: Scan) -> list[Subject]:
    folder = subject_folder(root, "scan/turned stage", scan)
    path = rotated(folder, scan, 30.0)
    np.savez(folder / "p.npz", probe=scan.probe)
    arguments = (
        "reconstruct",
        "m.onnx",
        path.name,
        "--probe",
        "p.npz",
        "--provider",
        "cpu",
        "--out",
        "o.npz",
    )
    return [Subject("scan/turned stage", (path.name,), arguments)]


def cdtools_object(path: Path, truth: np.ndarray, scan: Scan) -> Path:
    """As `FancyPtycho.save_to_h5` of cdtools writes it."""
    basis = np.array([[0, -PIXEL], [-PIXEL, 0], [0, 0]])
    corners = window_corners(scan.positions, scan.size)
    return hdf5(
        path,
        obj=truth,
        obj_basis=basis,
        translations=corners @ basis.T,
        state_dict__min_translation=np.zeros(2),
        probe=scan.probe,
    )


def ptypy_object(path: Path, truth: np.ndarray, scan: Scan) -> Path:
    """As ptypy writes a reconstruction."""
    with h5py.File(path, "w") as file:
        storage = file.create_group("content/obj/Sscan")
        storage["data"], storage["_psize"] = truth[None], [PIXEL, PIXEL]
        storage["_origin"] = [-PIXEL / 2, -PIXEL / 2]
        file["content/probe/Sscan/data"] = scan.probe
    return path


def tike_object(path: Path, truth: np.ndarray, scan: Scan) -> Path:
    """As tike writes a reconstruction."""
    np.savez(path, psi=truth[None], scan=window_corners(scan.positions, scan.size), probe=scan.probe)
    return path


_OBJECTS: dict[str, Callable[[Path, np.ndarray, Scan], Path]] = {
    "ptychodus.h5": ptychodus_product,
    "cdtools.h5": cdtools_object,
    "ptypy.ptyr": ptypy_object,
    "shelves.mat": lambda path, truth, scan: shelves_file(path, truth, scan, True),
    "tike.npz": tike_object,
}


def _references(root: Path, scan: Scan, truth: np.ndarray) -> list[Subject]:
    subjects = []
    for file, write in _OBJECTS.items():
        folder = subject_folder(root, f"reference/{file}", scan)
        write(folder / file, truth, scan)
        arguments = ("evaluate", "m.onnx", "--scan", "s.npz", "--reference", file, "--provider", "cpu")
        subjects.append(Subject(f"reference/{file}", (file,), (*arguments, "--csv", "o.csv"), "o.csv"))
    return subjects


def _probes(root: Path, scan: Scan) -> list[Subject]:
    content = {
        "ptychodus.h5": {"probe": scan.probe[None], "object": asymmetric_object()},
        "scan.cxi": {"entry_1__instrument_1__source_1__probe": scan.probe[0]},
        "object.cxi": {"entry_1__image_1__data": scan.probe[None]},
    }
    subjects = []
    for file, values in content.items():
        folder = subject_folder(root, f"probe/{file}", scan)
        hdf5(folder / file, **values)
        subjects.append(Subject(f"probe/{file}", (file,), (*_RECONSTRUCT, "--probe", file)))
    return subjects


def _others(root: Path, scan: Scan) -> list[Subject]:
    folder = subject_folder(root, "positions/table", scan)
    np.savez(folder / "s.npz", d=scan.diffraction**2, probe=scan.probe)
    rows = "\n".join(
        f"{number}; {1e6 * row * PIXEL:.9f}; {1e6 * column * PIXEL:.9f}".replace(".", ",")
        for number, (row, column) in enumerate(scan.positions)
    )
    (folder / "p.csv").write_text(f"frame; y_um; x_um\n{rows}\n")
    mapped = ("--map=patterns=d", "--map=probe=probe", "--map=positions=p.csv", f"--pixel-size={PIXEL}")
    for name in ("server/description", "train"):
        subject_folder(root, name, scan)
    write_scan(root / "train/s.npz", small_scan())
    served = ("reconstruct", "s.npz", "--server", "{server}", "--timeout", "2", "--patience", "4")
    return [
        Subject("positions/table", ("p.csv",), (*_RECONSTRUCT, *mapped)),
        Subject("server/description", (), (*served, "--out", "o.npz"), served="http"),
        Subject(
            "train",
            ("s.npz",),
            ("train", "hybrid", "--data", "s.npz", "--out", "run", *_TRAIN.split()),
            "run/history.csv",
        ),
    ]
