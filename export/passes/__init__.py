"""Passes over the graph, one per module, and the order in which they are applied."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import (
    CommonSubexpressionEliminationPass,
    DeduplicateHashedInitializersPass,
    IdentityEliminationPass,
    LiftConstantsToInitializersPass,
    RemoveUnusedNodesPass,
)

from ptychonnx.export.graph.tensor_names import name_outputs
from ptychonnx.export.passes.affine_folding import AffineFoldingPass
from ptychonnx.export.passes.bias_merging import BiasMergingPass, InvalidBiasPass
from ptychonnx.export.passes.canonical_order import CanonicalOrderPass
from ptychonnx.export.passes.concatenation_splitting import ConcatenationSplittingPass
from ptychonnx.export.passes.constant_folding import ConstantFoldingPass
from ptychonnx.export.passes.cubic_resize import CubicResizePass
from ptychonnx.export.passes.gelu_fusion import GeluFusionPass
from ptychonnx.export.passes.metadata_removal import MetadataRemovalPass
from ptychonnx.export.passes.nearest_resize import RepetitionToResizePass, SizesToScalesPass
from ptychonnx.export.passes.periodic_padding import PeriodicPaddingPass
from ptychonnx.export.passes.reshape_merging import ReshapeMergingPass
from ptychonnx.export.passes.reshape_targets import ReshapeTargetPass
from ptychonnx.export.passes.simplification import SimplificationPass
from ptychonnx.export.passes.subpixel_convolution import SubpixelConvolutionPass
from ptychonnx.export.passes.subpixel_head import SubpixelHeadPass
from ptychonnx.export.passes.transpose_elimination import TransposeEliminationPass
from ptychonnx.export.passes.transpose_sinking import TransposeSinkingPass
from ptychonnx.export.passes.transposed_products import TransposedProductPass
from ptychonnx.runtime.machine import installed_versions

__all__ = ["Cleaned", "clean", "pipeline"]


@dataclass(frozen=True)
class Cleaned:
    """A new graph after the passes, and the names of those that changed something, in order."""

    model: onnx.ModelProto
    passes: list[str]


def pipeline() -> Sequence[ir.passes.PassBase]:
    """All passes in the order in which they are applied."""
    own_version = installed_versions("ptychonnx").get("ptychonnx", "0")
    return (
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        IdentityEliminationPass(),
        GeluFusionPass(),
        RepetitionToResizePass(),
        SizesToScalesPass(),
        CubicResizePass(),
        ReshapeTargetPass(),
        ConstantFoldingPass(),
        PeriodicPaddingPass(),
        InvalidBiasPass(),
        SimplificationPass(),
        RemoveUnusedNodesPass(),
        AffineFoldingPass(),
        BiasMergingPass(),
        SimplificationPass(),
        TransposeEliminationPass(),
        TransposeSinkingPass(),
        TransposedProductPass(),
        ConcatenationSplittingPass(),
        SubpixelHeadPass(),
        SubpixelConvolutionPass(),
        ReshapeMergingPass(),
        DeduplicateHashedInitializersPass(),
        CommonSubexpressionEliminationPass(),
        RemoveUnusedNodesPass(),
        CanonicalOrderPass(),
        MetadataRemovalPass(own_version),
    )


def clean(model: onnx.ModelProto) -> Cleaned:
    """Apply the pipeline to a copy of `model`."""
    # The graph would share its tensors with the message that it was read from.
    graph = ir.from_proto(copy.deepcopy(model))
    names = []
    for step in pipeline():
        result = step(graph)
        graph = result.model
        if result.modified:
            names.append(type(step).__name__.removesuffix("Pass"))
    cleaned = ir.to_proto(graph)
    name_outputs(cleaned.graph, [value.name for value in model.graph.output])
    return Cleaned(cleaned, list(dict.fromkeys(names)))
