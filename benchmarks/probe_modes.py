"""Time of a pattern in a general network, by the number of modes of the probe and by batch, in one interleaved run.

    python -m benchmarks.probe_modes zoo/any_64.onnx zoo/pinn_hybrid.onnx --out docs/results/probe_modes.json

One thread. *Four, three of them dark* is what a graph with a fixed number of four modes computes for a probe of one.
`--batch` measures one batch and keeps the others of FILE.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.interleaved import median_milliseconds
from ptychonnx.harness.simulate.beams import draw_beam
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.scan.beam_arrays import probe_arrays
from ptychonnx.runtime.scan.forward_model import forward

PHOTONS = 1e8
_LARGE = 256
# Modes with light, and modes in all.
PROBES = {"1": (1, 1), "2": (2, 2), "4": (4, 4), "four, three of them dark": (1, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("general", type=Path)
    parser.add_argument("fixed", type=Path, help="network of one beam, for comparison")
    parser.add_argument("--batch", type=int, action="append", help="1, 16 and 256 by default")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    general, fixed = (Session(path, "cpu", 1) for path in (arguments.general, arguments.fixed))
    n = general.contract.n
    known = json.loads(arguments.out.read_text(encoding="utf-8"))["rows"] if arguments.out.is_file() else []
    rows = {row["batch"]: row for row in known}
    for batch in arguments.batch or (1, 16, 256):
        functions = {}
        for name, (lit, modes) in PROBES.items():
            probe = draw_beam("zone-plate", n, lit, np.random.default_rng(0)) * np.float32(np.sqrt(PHOTONS))
            patches = np.ones((batch, 1, n, n), np.complex64)
            patterns = forward(patches, probe).astype(np.float32)
            beam = probe_arrays(probe, None, PHOTONS, modes, name)
            functions[name] = partial(general.predict, patterns, beam=beam)
        functions[arguments.fixed.stem] = partial(fixed.predict, patterns)
        times = median_milliseconds(functions, seconds=1.0, runs=3 if batch < _LARGE else 1)
        rows[batch] = {"batch": batch} | {name: milliseconds / batch for name, milliseconds in times.items()}
        print(rows[batch], flush=True)
    document = {
        "artifact": arguments.general.name,
        "processor": processor(),
        "threads": 1,
        "rows": [rows[batch] for batch in sorted(rows)],
    }
    write_text(arguments.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
