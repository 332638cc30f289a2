"""Passes over the graph, one a module, and the order in which they are applied."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateHashedInitializersPass,
    IdentityEliminationPass,
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
)

from export.passes.affine import AffineFoldingPass
from export.passes.bias import BiasJoiningPass
from export.passes.concatenation import ConcatenationSplittingPass
from export.passes.folding import ConstantFoldingPass
from export.passes.gelu import GeluPass
from export.passes.metadata import MetadataPass
from export.passes.order import CanonicalOrderPass
from export.passes.resampling import ResamplingPass
from export.passes.reshape import ConstantReshapePass
from export.passes.resize import RepeatToResizePass, SizesToScalesPass
from export.passes.simplification import SimplificationPass
from export.passes.sinking import TransposeSinkingPass
from export.passes.subpixel import SubpixelPass
from export.passes.subpixel_head import SubpixelHeadPass
from export.passes.transpose import TransposeCancellationPass
from export.passes.turned import TurnedProductPass
from export.passes.views import ViewJoiningPass

__all__ = ["Cleaned", "clean", "pipeline"]


@dataclass(frozen=True)
class Cleaned:
    """A graph after the passes.

    Attributes
    ----------
    model
        A new model; the one given is untouched.
    passes
        Names of the passes that changed something, in order.
    """

    model: onnx.ModelProto
    passes: list[str]


def pipeline() -> Sequence[ir.passes.PassBase]:
    """All passes in the order in which they are applied."""
    try:
        own_version = version("ptychonnx")
    except PackageNotFoundError:
        own_version = "0"
    return (
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        IdentityEliminationPass(),
        GeluPass(),
        RepeatToResizePass(),
        SizesToScalesPass(),
        ResamplingPass(),
        ConstantReshapePass(),
        ConstantFoldingPass(),
        SimplificationPass(),
        RemoveUnusedNodesPass(),
        AffineFoldingPass(),
        BiasJoiningPass(),
        SimplificationPass(),
        TransposeCancellationPass(),
        TransposeSinkingPass(),
        TurnedProductPass(),
        ConcatenationSplittingPass(),
        SubpixelHeadPass(),
        SubpixelPass(),
        ViewJoiningPass(),
        DeduplicateHashedInitializersPass(),
        CommonSubexpressionEliminationPass(),
        RemoveUnusedNodesPass(),
        CanonicalOrderPass(),
        MetadataPass(own_version),
    )


def clean(model: onnx.ModelProto) -> Cleaned:
    """Apply the pipeline to a copy of `model`."""
    # The graph shares its tensors with the message it came from.
    graph = ir.from_proto(copy.deepcopy(model))
    names = []
    for step in pipeline():
        result = step(graph)
        graph = result.model
        if result.modified:
            names.append(type(step).__name__.removesuffix("Pass"))
    return Cleaned(ir.to_proto(graph), list(dict.fromkeys(names)))
