"""A general artifact for one beam: probe, mask and scale become constants, and what follows from them is folded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from ptychonnx.export.artifact.candidate import Candidate, VerifiedGraph, release
from ptychonnx.export.artifact.export_run import ExportResult
from ptychonnx.export.graph.opset import opset_of
from ptychonnx.export.verification.beam_inputs import smooth_patterns
from ptychonnx.export.verification.inputs import (
    VerificationInputs,
    amplitude_inputs,
    count_inputs,
    with_offsets,
)
from ptychonnx.export.verification.reference_pair import reference_offsets
from ptychonnx.runtime.contract import Contract, TrainingProbe
from ptychonnx.runtime.contract.integrity import check_model_file, stored_contract
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.conversion.probe_window import probe_of_size
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.predictor import object_parts
from ptychonnx.runtime.progress import SILENT, Progress
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import MOST_PHOTONS
from ptychonnx.runtime.scan.beam_arrays import beam_arrays, probe_arrays, sampled_flux
from ptychonnx.runtime.scan.probe_distance import thumbnail

__all__ = ["TOLERANCE", "OneBeam", "beam_of_probe", "beam_of_scan", "specialise"]

# Relative difference that is allowed between the specialised artifact and the general one with the same beam.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class OneBeam:
    """A beam as the inputs of a general artifact, see `ptychonnx.runtime.scan.beam_arrays`, and where it comes from."""

    arrays: dict[str, NDArray[np.float32]]  # probe, mask and scale by name
    sha256: str | None  # of the probe, see `Scan.probe_sha256`
    photons: float  # mean, in a pattern
    origin: str  # name of a scan or of a file

    @property
    def probe(self) -> NDArray[np.complex64]:
        """The modes that are not empty, complex64 [modes, N, N]."""
        pairs = self.arrays["probe"]
        probe = (pairs[..., 0] + 1j * pairs[..., 1]).astype(np.complex64)
        return probe[np.any(probe, axis=(1, 2))]


def beam_of_scan(artifact: Path, scan: Scan) -> OneBeam:
    """The beam of a scan for a general artifact.

    Raises InputError if the artifact is not general, N differs, or the beam cannot be used.
    """
    contract = _general(artifact)
    if scan.size != contract.n:
        raise InputError(
            f"{scan.name}: patterns are {scan.size} x {scan.size} pixels, {artifact.name} takes "
            f"{contract.n} x {contract.n}"
        )
    assert contract.beam is not None
    arrays = beam_arrays(scan, contract.beam.modes)
    return OneBeam(arrays, scan.settled().probe_sha256(), sampled_flux(scan), scan.name)


def beam_of_probe(
    artifact: Path,
    probe: NDArray[np.complex64],
    photons: float,
    mask: NDArray[np.bool_] | None,
    name: str,
    *,
    resample: bool = False,
) -> OneBeam:
    """The beam with a probe complex64 [modes, N, N] of any power, for a number of photons in a pattern.

    Raises InputError if the artifact is not general, N differs, or the beam cannot be used.

    `resample`: whether to resample a probe of another N over the same field of view.
    """
    contract = _general(artifact)
    probe = probe_of_size(probe, contract.n, resample, name)
    if not 0 < photons <= MOST_PHOTONS:
        raise InputError(
            f"--photons {photons:g}: expected the mean photons in a pattern, above 0 and at most {MOST_PHOTONS:g}"
        )
    power = float(np.sum(np.abs(probe.astype(np.complex128)) ** 2))
    scaled = probe * np.float32(np.sqrt(photons / power)) if np.isfinite(power) and power else probe
    assert contract.beam is not None
    arrays = probe_arrays(scaled, mask, photons, contract.beam.modes, name)
    return OneBeam(arrays, None, photons, name)


def specialise(artifact: Path, beam: OneBeam, out: Path, progress: Progress = SILENT) -> ExportResult:
    """Write an artifact that holds one beam, verified against the general one with the same beam.

    Raises InputError if the artifact is not general. Raises VerificationError if the two differ by more than
    `TOLERANCE`; nothing is written.
    """
    contract = _general(artifact)
    session = Session(artifact, "cpu")

    def general(*inputs: NDArray) -> NDArray:
        return object_parts(session.predict(*inputs, beam=beam.arrays))

    candidate = Candidate(
        label=f"{contract.label} for {beam.origin}",
        model=_with_constants(check_model_file(artifact), beam.arrays),
        inputs=[tensor.name for tensor in contract.inputs],
        native={contract.output.name: general},
        verification_inputs=_inputs(contract, beam),
        stamp=partial(_contract, contract, beam),
        batch=contract.batch,
        tolerance=TOLERANCE,
        # The slow evaluator has verified the general graph, of which this is a part.
        deciding_engines="onnxruntime",
    )
    return ExportResult(out, *release(candidate, out, progress))


def _general(artifact: Path) -> Contract:
    contract = stored_contract(artifact, check_model_file(artifact))
    if contract.beam is None:
        made = "was specialised already" if contract.specialised_from else "holds one beam"
        raise InputError(f"{artifact}: {made}, expected a general artifact (`ptychonnx export --general`)")
    return contract


def _with_constants(model: onnx.ModelProto, arrays: dict[str, NDArray[np.float32]]) -> onnx.ModelProto:
    """The graph with the arrays instead of inputs."""
    inputs = [value for value in model.graph.input if value.name not in arrays]
    constants = [tensor for tensor in model.graph.initializer if tensor.name not in arrays]
    constants += [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in arrays.items()]
    del model.graph.input[:], model.graph.initializer[:], model.metadata_props[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(constants)
    return model


def _inputs(contract: Contract, beam: OneBeam) -> list[VerificationInputs]:
    patterns = smooth_patterns(beam.probe, beam.arrays["mask"] > 0, contract.channels)
    kinds = count_inputs if contract.input.domain == "counts" else amplitude_inputs
    inputs = kinds(patterns, f"seeded smooth objects in the beam of {beam.origin}")
    # Noise, and patterns of a brightness for which the artifact is not, magnify rounding a hundredfold in either graph.
    inputs = [kind for kind in inputs if kind.kind in ("held-out", "all-zero")]
    if contract.offsets is None:
        return inputs
    offsets = reference_offsets(contract.gridsize, contract.n)[1]
    return with_offsets(inputs, offsets.take(range(len(patterns)), axis=0, mode="wrap"))


def _contract(contract: Contract, beam: OneBeam, verified: VerifiedGraph) -> Contract:
    conversion = contract.conversion.model_copy(
        update={"opset": opset_of(verified.model), "passes": [*contract.conversion.passes, *verified.passes]}
    )
    return contract.model_copy(
        update={
            "beam": None,
            "specialised_from": contract.graph_sha256,
            "input": contract.input.model_copy(update={"scale": float(beam.arrays["scale"])}),
            "probe": TrainingProbe(
                sha256=beam.sha256,
                modes=len(beam.probe),
                flux=beam.photons,
                thumbnail=thumbnail(beam.probe),
            ),
            "conversion": conversion,
            "parity": verified.report.parity(),
        }
    )
