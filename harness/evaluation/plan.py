"""Plan of an evaluation: open artifacts and scans, and check that all of them fit, before anything is run."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ptychonnx.harness.evaluation.methods import IterativeMethod, Method, NetworkMethod
from ptychonnx.harness.evaluation.object_method import open_object
from ptychonnx.harness.iterative.algorithm import Algorithm
from ptychonnx.harness.iterative.iterations import Epochs, check_iterative
from ptychonnx.runtime.contract import Contract
from ptychonnx.runtime.contract.integrity import check_model_file, stored_contract
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.inference import DEFAULT_BATCH, Predictor, Session, tuned
from ptychonnx.runtime.inference.artifact_path import artifact_path
from ptychonnx.runtime.paths import StrPath
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.reconstruction.stitching import check_whole, patch_weight
from ptychonnx.runtime.scan import Scan

__all__ = ["EvaluationPlan", "artifacts_of_size", "plan_evaluation"]

logger = logging.getLogger(__name__)

_Artifact = TypeVar("_Artifact", bound=StrPath | Predictor)


@dataclass(frozen=True)
class EvaluationPlan:
    """The methods and the scans of an evaluation; all labels and all names differ."""

    methods: tuple[Method, ...]
    scans: tuple[Scan, ...]


def plan_evaluation(
    artifacts: Sequence[StrPath | Predictor],
    scans: Sequence[StrPath | Scan],
    references: Sequence[StrPath | None] | None = None,
    *,
    provider: str = "auto",
    batch: int | None = DEFAULT_BATCH,
    stitching: ReconstructOptions | None = None,
    iterations: Epochs = 0,
    refine: Epochs | None = None,
    algorithm: Algorithm | None = None,
    objects: Mapping[str, StrPath] | None = None,
) -> EvaluationPlan:
    """Open everything that an evaluation needs and check it; parameters as in `evaluate`.

    Raises InputError if an artifact or a scan cannot be used, they do not fit each other, or two of them cannot be told
    apart.

    Networks for patterns of another size are left out, with a warning, if others fit.
    """
    objects = objects or {}
    if not (artifacts or iterations or objects) or not scans:
        raise InputError(
            f"evaluate: got {len(artifacts)} artifacts and {len(scans)} scans, expected one at least"
        )
    if objects and len(scans) > 1:
        raise InputError(
            f"evaluate: got objects and {len(scans)} scans, expected the one that they belong to"
        )
    stitching, algorithm = stitching or ReconstructOptions(), algorithm or Algorithm()
    for what, items, kind in (("artifacts", artifacts, Predictor), ("scans", scans, Scan)):
        for item in items:
            if not isinstance(item, str | os.PathLike | kind):
                raise InputError(
                    f"{what}: got {type(item).__name__}, expected a {kind.__name__} or the path of a file"
                )
    contracts = [_contract(artifact) for artifact in artifacts]
    opened = _open_scans(scans, references)
    networks = [
        Session(artifact, provider) if isinstance(artifact, str | os.PathLike) else artifact
        for artifact in _of_size(artifacts, contracts, {scan.size for scan in opened})
    ]
    labels = _distinct_labels(networks)
    for scan in opened:
        check_whole(scan.positions, scan.size, None, f"{scan.name}: evaluate takes the whole object")
        if iterations or refine:
            check_iterative(scan)
        for network in networks:
            network.check_scan(scan)
            chosen = stitching.resolved(network.contract)
            patch_weight(chosen.weighting, scan.size, scan.probe, chosen.window)
    methods: list[Method] = []
    for label, network in zip(labels, networks, strict=True):
        size = batch
        if size is None:
            if not isinstance(network, Session):
                raise InputError(
                    f"{network.name}: --batch auto is for artifacts, expected a number with servers"
                )
            network, size = tuned(network, opened[0])
        method = NetworkMethod(label, network, size, batch is None, stitching)
        methods.append(method)
        if refine:
            methods.append(IterativeMethod(refine, algorithm, method))
    if iterations:
        methods.append(IterativeMethod(iterations, algorithm))
    taken = {method.label for method in methods}
    for label, path in objects.items():
        if label in taken:
            raise InputError(f"{path}: another row is labelled {label!r}, expected labels that differ")
        methods.append(open_object(label, path, opened[0]))
    return EvaluationPlan(tuple(methods), tuple(opened))


def artifacts_of_size(artifacts: Sequence[_Artifact], sizes: Collection[int]) -> list[_Artifact]:
    """The artifacts for patterns of these sizes; a warning names the others. All of them if there is none.

    Raises InputError or VerificationError if a file is no artifact. Only contracts are read: onnxruntime takes seconds
    to load a large network.
    """
    return _of_size(artifacts, [_contract(artifact) for artifact in artifacts], sizes)


def _contract(artifact: StrPath | Predictor) -> Contract:
    if isinstance(artifact, Predictor):
        return artifact.contract
    path = artifact_path(artifact)
    return stored_contract(path, check_model_file(path))


def _of_size(
    artifacts: Sequence[_Artifact], contracts: Sequence[Contract], sizes: Collection[int]
) -> list[_Artifact]:
    fits = [contract.n in sizes for contract in contracts]
    if not any(fits):
        return list(artifacts)
    for artifact, contract, fitting in zip(artifacts, contracts, fits, strict=True):
        if not fitting:
            logger.warning(
                "%s: left out, takes patterns of %d pixels, the scan has %s",
                artifact.name if isinstance(artifact, Predictor) else artifact_path(artifact).name,
                contract.n,
                " and ".join(map(str, sorted(sizes))),
            )
    return [artifact for artifact, fitting in zip(artifacts, fits, strict=True) if fitting]


def _distinct_labels(networks: Sequence[Predictor]) -> list[str]:
    """One label per network; equal labels get the stem of the file, or the URL, as a suffix."""
    counts = Counter(network.contract.label for network in networks)
    labels: dict[str, Predictor] = {}
    for network in networks:
        label = network.contract.label
        if counts[label] > 1:
            label = f"{label} ({network.name.removesuffix('.onnx')})"
        if label in labels:
            raise InputError(
                f"{labels[label].source} and {network.source}: both are labelled {network.contract.label!r} and "
                f"named {network.name!r}, expected labels or file names that differ"
            )
        labels[label] = network
    return list(labels)


def _open_scans(scans: Sequence[StrPath | Scan], references: Sequence[StrPath | None] | None) -> list[Scan]:
    """The scans with their references; equal names are numbered."""
    if references is None:
        references = [None] * len(scans)
    if len(references) != len(scans):
        raise InputError(
            f"evaluate: got {len(references)} references for {len(scans)} scans, expected one for each"
        )
    opened = []
    for scan, reference in zip(scans, references, strict=True):
        if not isinstance(scan, Scan):
            opened.append(read_scan(scan, reference=reference))
        elif reference is not None:
            raise InputError(
                f"{scan.name}: the scan is loaded already, expected its reference inside it and not in {reference}"
            )
        else:
            opened.append(scan)
    counts = Counter(scan.name for scan in opened)
    numbers: Counter[str] = Counter()
    for index, scan in enumerate(opened):
        if counts[scan.name] > 1:
            numbers[scan.name] += 1
            opened[index] = replace(scan, name=f"{scan.name} #{numbers[scan.name]}")
    return opened
