"""A general network, fine-tuned on each of some unseen beams, next to the network alone and to rPIE.

The scans are those of `benchmarks.unseen_beams`. Each network is fine-tuned on the patterns of its scan, without
labels, for about as long as `--seconds`: two epochs are timed first. SSIM of amplitude and phase with the known object;
times are processor time of one thread, which other work on the machine changes little.

    python -m benchmarks.fine_tuned_beams zoo/any_64 zoo/any_64.onnx --scan 0 --scan 14 --out FILE
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.unseen_beams import REFINEMENT, Row, family_scans, quality
from ptychonnx.harness.iterative.rpie import iterate, vacuum
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor, Session
from ptychonnx.runtime.inference.predictor import Batches, Beam, complex_patches
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.reconstruction import reconstruct
from ptychonnx.runtime.scan import Scan
from ptychonnx.train.config import TrainingConfig
from ptychonnx.train.fine_tuning import find_initial_weights
from ptychonnx.train.fitting import train
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import NativeNetwork, read_run
from ptychonnx.train.trained_network import load_network

TRAINING = TrainingConfig(batch=8, overlap=4, learning_rate=1e-3, tensorboard=False)
_TIMED_EPOCHS = 2


class NativePredictor(Predictor):
    """A network in its own framework, which is not exported first."""

    name = source = "fine-tuned network"
    provider = "torch"

    def __init__(self, network: NativeNetwork, contract: Contract) -> None:
        self.network, self.contract = network, contract

    def predict(self, *inputs: NDArray) -> NDArray[np.complex64]:
        return complex_patches(self.network.predict(*inputs))

    def batches(
        self, scan: Scan, groups: NDArray[np.intp], batch: int = DEFAULT_BATCH, beam: Beam | None = None
    ) -> Batches:
        for start in range(0, len(groups), batch):
            index = groups[start : start + batch]
            yield index, self.predict(*self.inputs(scan, index))

    def close(self) -> None:
        """Nothing is open."""


def fine_tuned(source: Path, scan: Scan, seconds: float, contract: Contract) -> tuple[NativePredictor, Row]:
    """The network of a run after about so many seconds of training on the scan, and what it took."""
    weights = find_initial_weights(source)
    architecture = get_architecture(weights.architecture)
    taken: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"

        def fit(epochs: int) -> None:
            started = time.process_time()
            training = replace(TRAINING, epochs=epochs)
            train(scan, architecture, weights.network, training, run, initial_weights=weights)
            taken.append(time.process_time() - started)

        fit(_TIMED_EPOCHS)
        epochs = max(_TIMED_EPOCHS, round(_TIMED_EPOCHS * seconds / taken[0]))
        fit(epochs)
        network = load_network(run, read_run(run))
    fixed = contract.model_copy(update={"beam": None})
    return NativePredictor(network, fixed), {"epochs": epochs, "training_seconds": round(taken[-1], 1)}


def methods(source: Path, session: Session, scan: Scan, seconds: float, epochs: int) -> dict[str, Row]:
    """Quality and seconds of each method on a scan."""
    rows: dict[str, Row] = {}
    tuned, training = fine_tuned(source, scan, seconds, session.contract)
    for name, predictor in (("network", session), ("fine-tuned", tuned)):
        started = time.process_time()
        alone = reconstruct(predictor, scan)
        taken = time.process_time() - started
        refined = iterate(scan, REFINEMENT, alone.stitched)
        refining = time.process_time() - started - taken
        extra = training if predictor is tuned else {}
        rows[name] = {**quality(alone.stitched.object, scan, alone), "seconds": round(taken, 2), **extra}
        rows[f"{name}, then {REFINEMENT} epochs"] = {
            **quality(refined.stitched.object, scan, alone),
            "seconds": round(taken + refining, 2),
        }
    started = time.process_time()
    iterated = iterate(scan, epochs, vacuum(scan))
    rows[f"rPIE, {epochs} epochs"] = {
        **quality(iterated.stitched.object, scan, alone),
        "seconds": round(time.process_time() - started, 2),
    }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--scan", type=int, action="append", required=True, help="place among the 20 scans")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--epochs", type=int, default=300, help="of rPIE from vacuum")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    session = Session(arguments.artifact, "cpu", 1)
    document: dict[str, Any] = {
        "seconds": arguments.seconds,
        "training": {"batch": 8, "overlap": 4, "learning_rate": 1e-3},
        "processor": processor(),
        "beams": [],
    }
    if arguments.out.is_file():
        document["beams"] = json.loads(arguments.out.read_text(encoding="utf-8"))["beams"]
    scans = list(family_scans(session.contract.n, 20, 10, 20261129))
    for place in arguments.scan:
        row, scan = scans[place]
        measured = methods(arguments.run, session, scan, arguments.seconds, arguments.epochs)
        kept = [other for other in document["beams"] if other["place"] != place]
        document["beams"] = [*kept, {"place": place, **row, "methods": measured}]
        print(document["beams"][-1], flush=True)
        write_text(arguments.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
