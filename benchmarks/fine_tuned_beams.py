"""A general network, fine-tuned on each of some unseen beams, next to the network alone and to rPIE.

The scans are those of `benchmarks.unseen_beams`. Each network is fine-tuned on the patterns of its scan, without
labels, for about as long as `--seconds`: two epochs are timed first. SSIM of amplitude and phase with the known object;
times are processor time of one thread, which other work on the machine changes little.

    python -m benchmarks.fine_tuned_beams zoo/any_64_grid2 zoo/any_64_grid2.onnx --out FILE

What FILE holds already is not measured again; `--method` measures a part, and `--minutes` ends early.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.regimes import SETTINGS
from benchmarks.unseen_beams import REFINEMENT, Row, family_scans, quality
from ptychonnx.harness.iterative.iterations import iterate, vacuum
from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor, Session
from ptychonnx.runtime.inference.predictor import Batches, Beam, complex_patches
from ptychonnx.runtime.machine import processor
from ptychonnx.runtime.paths import file_sha256
from ptychonnx.runtime.reconstruction import Reconstruction, reconstruct
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.beam_arrays import sampled_flux
from ptychonnx.train.config import TrainingConfig
from ptychonnx.train.fine_tuning import find_initial_weights
from ptychonnx.train.fitting import train
from ptychonnx.train.registry import get_architecture
from ptychonnx.train.run import NativeNetwork, read_run
from ptychonnx.train.trained_network import load_network

TRAINING = TrainingConfig(batch=8, overlap=4, learning_rate=1e-3, tensorboard=False)
# Places among the 20 scans: worst of the known families first, then as different ones as possible.
ORDER = (14, 9, 12, 2, 0, 19, 6, 1, 5, 7, 3, 15, 18, 17, 4, 10, 8, 11, 13, 16)
_TIMED_EPOCHS = 2


class NativePredictor(Predictor):
    """A network of one beam in its own framework, which is not exported first."""

    name = source = "fine-tuned network"
    provider = "torch"

    def __init__(self, network: NativeNetwork, contract: Contract, scan: Scan) -> None:
        self.network = network
        # Its scale is that of the scan, which must not be brought to other photons.
        probe = contract.probe.model_copy(update={"flux": sampled_flux(scan)})
        self.contract = contract.model_copy(update={"beam": None, "probe": probe})

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


class Measurement:
    """The methods on one scan; seconds of processor time."""

    def __init__(self, source: Path, session: Session, scan: Scan, seconds: float) -> None:
        self.source, self.session, self.scan, self.seconds = source, session, scan, seconds

    @cached_property
    def alone(self) -> Reconstruction:
        """Of the general network; the figures of every method are of the region that it covers."""
        return reconstruct(self.session, self.scan)

    def network(self, name: str, predictor: Predictor) -> dict[str, Row]:
        """A network alone, and as the start of rPIE."""
        started = time.process_time()
        first = reconstruct(predictor, self.scan)
        taken = time.process_time() - started
        refined = iterate(self.scan, REFINEMENT, first.stitched, SETTINGS["rPIE"])
        both = time.process_time() - started
        return {
            name: self._row(first.stitched.object, taken),
            f"{name}, then {REFINEMENT} epochs": self._row(refined.stitched.object, both),
        }

    def fine_tuned(self) -> dict[str, Row]:
        """The network of the run after about so many seconds of training on the scan."""
        weights = find_initial_weights(self.source)
        taken: list[float] = []
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"

            def fit(epochs: int) -> None:
                started = time.process_time()
                train(
                    self.scan,
                    get_architecture(weights.architecture),
                    weights.network,
                    replace(TRAINING, epochs=epochs),
                    run,
                    initial_weights=weights,
                )
                taken.append(time.process_time() - started)

            fit(_TIMED_EPOCHS)
            epochs = max(_TIMED_EPOCHS, round(_TIMED_EPOCHS * self.seconds / taken[0]))
            fit(epochs)
            network = load_network(run, read_run(run))
        predictor = NativePredictor(network, self.session.contract, self.scan)
        rows = self.network("fine-tuned", predictor)
        rows["fine-tuned"] |= {"epochs": epochs, "training_seconds": round(taken[-1], 1)}
        return rows

    def iterations(self, epochs: int) -> dict[str, Row]:
        """RPIE from vacuum."""
        started = time.process_time()
        iterated = iterate(self.scan, epochs, vacuum(self.scan), SETTINGS["rPIE"])
        return {f"rPIE, {epochs} epochs": self._row(iterated.stitched.object, time.process_time() - started)}

    def _row(self, image: NDArray[np.complex64], seconds: float) -> Row:
        return {**quality(image, self.scan, self.alone), "seconds": round(seconds, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--scan", type=int, action="append", help="place among the 20 scans; all by default")
    parser.add_argument("--seconds", type=float, default=300.0, help="of fine-tuning")
    parser.add_argument("--epochs", type=int, default=300, help="of rPIE from vacuum")
    parser.add_argument("--method", choices=("network", "fine-tuned", "rPIE"), action="append")
    parser.add_argument("--minutes", type=float, default=np.inf, help="after which no method is begun")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    ends = time.monotonic() + 60 * arguments.minutes
    session = Session(arguments.artifact, "cpu", 1)
    conditions: dict[str, Any] = {
        "artifact": {arguments.artifact.stem: file_sha256(arguments.artifact)},
        "seconds": arguments.seconds,
        "training": {"batch": 8, "overlap": 4, "learning_rate": 1e-3},
    }
    document = json.loads(arguments.out.read_text(encoding="utf-8")) if arguments.out.is_file() else {}
    if {name: document.get(name) for name in conditions} != conditions:
        document = {**conditions, "beams": []}
    beams = {row["place"]: row for row in document["beams"]}
    scans = list(family_scans(session.contract.n, 20, 10, 20261129))
    for place in arguments.scan or ORDER:
        row, scan = scans[place]
        known = beams.setdefault(place, {"place": place, **row, "methods": {}})["methods"]
        measurement = Measurement(arguments.run, session, scan, arguments.seconds)
        measure: dict[str, tuple[str, Callable[[], dict[str, Row]]]] = {
            "network": ("network", partial(measurement.network, "network", session)),
            "fine-tuned": ("fine-tuned", measurement.fine_tuned),
            "rPIE": (f"rPIE, {arguments.epochs} epochs", partial(measurement.iterations, arguments.epochs)),
        }
        for method in arguments.method or measure:
            name, function = measure[method]
            if name in known or time.monotonic() > ends:
                continue
            known |= {name: {**figures, "processor": processor()} for name, figures in function().items()}
            print(place, name, known[name], flush=True)
            document["beams"] = [beams[number] for number in sorted(beams) if beams[number]["methods"]]
            write_text(arguments.out, json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
