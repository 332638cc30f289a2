"""The commands that write, and a folder with everything that they read."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.hostile.subjects import PIXEL, all_subjects, known_scan

__all__ = ["Writer", "framework_writers", "more_writers", "prepare", "quick_writers"]

# So small that a training and an export take seconds.
_SMALL = (
    "--epochs 2 --learning-rate 0.02 --width 4 --blocks 2 --modes 8 --first-steps 3 --final-steps 2 --batch 4 "
    "--overlap 1"
)

REPORT = ("out.onnx", "out.verification.json", "out.verification.txt")


@dataclass(frozen=True)
class Writer:
    """A command that writes.

    Attributes
    ----------
    line
        Command line, without the name of the program, for the folder of `prepare`.
    outputs
        Patterns of the files that it writes.
    earlier
        Files of these that are there before, with the content "old".
    as_one
        Whether the outputs change together: a file, or a folder that takes the place of another.
    journal
        File to which lines are only appended. Scans that failed have a line, so the exit code may be 1.
    """

    line: str
    outputs: tuple[str, ...]
    earlier: tuple[str, ...] = ()
    as_one: bool = True
    journal: str = ""


def quick_writers() -> dict[str, Writer]:
    """Commands by name that the tests disturb."""
    return {
        f"reconstruct {ending}": Writer(
            f"reconstruct m.onnx s.npz --provider cpu --out out.{ending}",
            (f"out.{ending}",),
            (f"out.{ending}",),
        )
        for ending in ("npz", "h5", "cxi")
    } | {
        "merge": Writer("merge part.h5 --out out.h5", ("out.h5",), ("out.h5",)),
        "live": Writer(
            "live m.onnx --frames swmr+file://frames.h5?data=/d&frames=15 --positions p.csv --probe p.npz "
            f"--pixel-size {PIXEL} --provider cpu --out out.h5",
            ("out.h5",),
            ("out.h5",),
        ),
        "evaluate": Writer(
            "evaluate m.onnx --scan s.npz --provider cpu --out out",
            ("out/*",),
            ("out/metrics.json", "out/report.html", "out/notes.txt"),
        ),
        "adopt": Writer("adopt f.onnx --contract f.yaml --out out.onnx", REPORT, REPORT, as_one=False),
        "sign": Writer("sign a.onnx --key key.pem", ("a.onnx.sig",), ("a.onnx.sig",)),
        "deploy": Writer("deploy triton m.onnx --repository out", ("out/**/*",), as_one=False),
        "simulate": Writer(
            "simulate lines --n 16 --train-grid 3 --test-grid 2 --out out", ("out/*",), as_one=False
        ),
    }


def more_writers() -> dict[str, Writer]:
    """Other commands that need no training framework."""
    return {
        "many scans": Writer(
            "reconstruct m.onnx s.npz other.npz --provider cpu --out night",
            ("night/*.h5",),
            as_one=False,
            journal="night/manifest.jsonl",
        ),
        # It writes one file of the folder, and has the lock of the file.
        "summary": Writer("summary evening", ("evening/*.html",), ("evening/summary.html",), as_one=False),
        "shard": Writer(
            "reconstruct m.onnx s.npz --provider cpu --shard 1/1 --out out.h5", ("out.h5",), ("out.h5",)
        ),
        "picture and patches": Writer(
            "reconstruct m.onnx s.npz --provider cpu --out out.tif --picture out.png --patches out.h5",
            ("out*",),
            ("out.png", "out.h5"),
            as_one=False,
        ),
        "tables": Writer(
            "evaluate m.onnx --scan s.npz --provider cpu --json out.json --csv out.csv --markdown out.md",
            ("out.*",),
            ("out.json", "out.csv"),
            as_one=False,
        ),
        "slurm": Writer(
            "slurm reconstruct m.onnx s.npz --out big.h5 --shards 1 --folder jobs --partition short --time 30",
            ("jobs/*.sh",),
            ("jobs/submit.sh",),
            as_one=False,
        ),
        "simulate family": Writer(
            "simulate family --n 16 --scans 2 --grid 3 --object smooth --out out", ("out/*",), as_one=False
        ),
        "deploy mlserver": Writer("deploy mlserver m.onnx --repository out", ("out/**/*",), as_one=False),
        "deploy kserve": Writer(
            "deploy kserve m.onnx --repository out --storage-uri s3://bucket/models",
            ("out/**/*",),
            as_one=False,
        ),
        "bench": Writer("bench m.onnx --rounds 1 --no-reduced --json out.json", ("out.json",)),
    }


def framework_writers() -> dict[str, Writer]:
    """Commands that need torch, and take minutes."""
    return {
        "train": Writer(f"train hybrid --data train.npz --out out {_SMALL}", ("out/**/*",)),
        "export": Writer("export run --out out.onnx", REPORT, REPORT, as_one=False),
        "export general": Writer("export run --general --out out.onnx", REPORT, REPORT, as_one=False),
        "specialise": Writer(
            "specialise general.onnx --scan train.npz --out out.onnx", REPORT, REPORT, as_one=False
        ),
        "export-module": Writer(
            "export-module net.py:build --shape 3 --out out.onnx", REPORT, REPORT, as_one=False
        ),
    }


def prepare(folder: Path, frameworks: bool) -> list[str]:
    """Write what the commands read; the command lines that write the rest."""
    scan = known_scan()
    subjects = folder.parent / "subjects"
    subjects.mkdir()
    all_subjects(subjects)
    shutil.copytree(subjects / "artifact_reconstruct", folder)
    shutil.copytree(subjects / "contract_adopt", folder, dirs_exist_ok=True)
    shutil.copy(folder / "s.npz", folder / "other.npz")
    np.savez(folder / "p.npz", probe=scan.probe)
    with h5py.File(folder / "frames.h5", "w", libver="latest") as file:
        counts = np.rint(scan.diffraction[:15] ** 2).astype(np.uint32)
        file.create_dataset("d", data=counts, chunks=(1, *counts.shape[1:]))
    rows = "\n".join(f"{row},{column}" for row, column in scan.positions[:15])
    (folder / "p.csv").write_text(f"row_px,column_px\n{rows}\n# end\n")
    key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "key.pem").write_bytes(key)
    (folder / "net.py").write_text("import torch\n\ndef build():\n    return torch.nn.Linear(3, 2)\n")
    lines = [
        "adopt f.onnx --contract f.yaml --out a.onnx",
        "reconstruct m.onnx s.npz --provider cpu --shard 1/1 --out part.h5",
        "reconstruct m.onnx s.npz other.npz --provider cpu --out evening",
    ]
    if frameworks:
        lines += [
            "simulate lines --n 32 --train-grid 6 --test-grid 2 --step 4 --out .",
            f"train hybrid --data train.npz --out run {_SMALL}",
            "export run --general --out general.onnx",
        ]
    return lines
