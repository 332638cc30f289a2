"""The contract of an adopted network."""

from __future__ import annotations

import numpy as np
import onnx

from ptychonnx.export.adoption.foreign_graph import patch_geometry
from ptychonnx.export.adoption.foreign_network import Foreign
from ptychonnx.export.adoption.sidecar import Specification
from ptychonnx.export.artifact.candidate import VerifiedGraph
from ptychonnx.export.graph.inspection import operators
from ptychonnx.export.graph.opset import opset_of
from ptychonnx.runtime.contract import (
    Contract,
    Conversion,
    NetworkInput,
    Provenance,
    Stitching,
    TrainingProbe,
)

__all__ = ["adopted_contract"]

_FLOATING = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def adopted_contract(
    original: onnx.ModelProto, foreign: Foreign, specification: Specification, verified: VerifiedGraph
) -> Contract:
    """The contract, without hash and reference pair.

    Parameters
    ----------
    original
        The foreign graph as it was read.
    foreign
        The network that was adopted.
    """
    window = patch_geometry(specification).window
    is_whole = window == specification.n
    weights = [tensor for tensor in original.graph.initializer if tensor.data_type in _FLOATING]
    producer = f"{original.producer_name} {original.producer_version}".strip() or "an unknown exporter"
    steps = [name for name, _, _ in specification.resolved_steps()[:-1]]
    return Contract(
        label=specification.label,
        architecture=specification.architecture,
        n=specification.n,
        batch=foreign.batch,
        input=NetworkInput(scale=1.0, scale_rule=f"steps in the graph: {', '.join(steps) or 'none'}"),
        stitching=Stitching(
            weighting=specification.stitching or ("probe" if is_whole else "crop"),
            window=None if is_whole else window,
        ),
        probe=TrainingProbe(sha256=None, modes=0, flux=specification.flux),
        provenance=Provenance(
            framework="foreign",
            versions=foreign.versions,
            git_commit=None,
            parameters=sum(int(np.prod(tensor.dims)) for tensor in weights),
            origin=specification.origin,
        ),
        conversion=Conversion(
            exporter=f"{producer}, adopted",
            opset=opset_of(verified.model),
            ir_version=verified.model.ir_version,
            lowering="DFT as products with constant matrices" if foreign.replaced_dft else foreign.lowering,
            passes=[*foreign.changes, *verified.passes],
            operators_before=dict(sorted(operators(original).items())),
        ),
        parity=verified.report.parity(),
    )
