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

from ptychonnx.export.passes.affine_folding import AffineFoldingPass
from ptychonnx.export.passes.bias_merging import BiasJoiningPass
from ptychonnx.export.passes.canonical_order import CanonicalOrderPass
from ptychonnx.export.passes.concatenation_splitting import ConcatenationSplittingPass
from ptychonnx.export.passes.constant_folding import ConstantFoldingPass
from ptychonnx.export.passes.cubic_resize import ResamplingPass
from ptychonnx.export.passes.gelu_fusion import GeluPass
from ptychonnx.export.passes.metadata_removal import MetadataPass
from ptychonnx.export.passes.nearest_resize import RepeatToResizePass, SizesToScalesPass
from ptychonnx.export.passes.reshape_merging import ViewJoiningPass
from ptychonnx.export.passes.reshape_targets import ConstantReshapePass
from ptychonnx.export.passes.simplification import SimplificationPass
from ptychonnx.export.passes.subpixel_convolution import SubpixelPass
from ptychonnx.export.passes.subpixel_head import SubpixelHeadPass
from ptychonnx.export.passes.transpose_elimination import TransposeCancellationPass
from ptychonnx.export.passes.transpose_sinking import TransposeSinkingPass
from ptychonnx.export.passes.transposed_products import TurnedProductPass

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
