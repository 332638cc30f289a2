"""Rewrite the repetition of pixels, as Keras writes `UpSampling2D`, as one nearest-neighbour `Resize`."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ptychonnx.export.graph.editing import GraphTape, constant_array, is_read_once, known_sizes
from ptychonnx.export.passes.node_rewriting import NodeRewritePass

__all__ = [
    "RepetitionToResizePass",
    "SizesToScalesPass",
    "add_resize",
    "doubled_image",
    "whole_factors",
]

logger = logging.getLogger(__name__)

_NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
_VIEWS = {"Unsqueeze", "Tile", "Transpose", "Reshape"}
# Any batch that is not also another size would do: the mapping of indices is computed for this one.
_BATCH = 2


class RepetitionToResizePass(NodeRewritePass):
    """``Unsqueeze, Tile, [Transpose,] Reshape`` of a rank-4 value becomes ``[Transpose,] Resize``.

    The chain is run on an array of indices. It is replaced only if every output pixel is the one that a
    nearest-neighbour `Resize` (asymmetric, floor) by whole factors would take, perhaps after a transposition that
    keeps the batch in front. The result is therefore identical bit for bit. The nodes that computed the dynamic
    target shape are then unused, and a later pass removes them.
    """

    operators = frozenset({"Tile"})

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        chain = _chain(node)
        return chain is not None and _replace_chain(graph, chain)


class SizesToScalesPass(NodeRewritePass):
    """A nearest-neighbour `Resize` to a computed size becomes one by whole factors; values stay bit for bit.

    torch computes the size by ``Shape`` and ``Concat``, only to keep the batch dynamic. Only a `Resize` of the kind
    that `add_resize` writes, with whole factors, is rewritten.
    """

    def applies(self, graph: ir.Graph) -> bool:
        return any(_has_sizes(node) for node in graph)

    def rewrite(self, graph: ir.Graph, node: ir.Node) -> bool:
        if not _has_sizes(node) or not _is_nearest(node):
            return False
        source, target = node.inputs[0], node.outputs[0]
        assert source is not None
        before, after = _sizes(source), _sizes(target)
        if before is None or after is None or after[0] != before[0]:
            return False
        if any(new % old for new, old in zip(after, before, strict=True)):
            return False
        tape = GraphTape(graph, target.name)
        add_resize(tape, source, [new // old for new, old in zip(after, before, strict=True)])
        tape.replace([node], target)
        return True


def add_resize(tape: GraphTape, value: ir.Value, factors: Sequence[int], name: str = "scales") -> ir.Value:
    """Record a nearest-neighbour `Resize` by whole factors; with scales, not sizes, the batch stays dynamic."""
    return tape.add("Resize", value, None, tape.constant(factors, np.float32, name), **_NEAREST)


def whole_factors(node: ir.Node) -> tuple[int, ...] | None:
    """Factors of a `Resize` of the kind that `add_resize` writes; None for any other node."""
    if node.op_type != "Resize" or len(node.inputs) != 3 or not _is_nearest(node):
        return None
    scales = constant_array(node.inputs[2])
    if scales is None or not np.array_equal(scales, np.rint(scales)):
        return None
    return tuple(int(scale) for scale in scales)


def doubled_image(value: ir.Value | None) -> tuple[ir.Value, int, int] | None:
    """The image that a value repeats every row and column of, and their numbers; None if it is not of known size."""
    node = None if value is None else value.producer()
    image = node.inputs[0] if node is not None and whole_factors(node) == (1, 1, 2, 2) else None
    sizes = known_sizes(image)
    return None if image is None or sizes is None or -1 in sizes[2:] else (image, *sizes[2:])  # type: ignore


def _has_sizes(node: ir.Node) -> bool:
    return node.op_type == "Resize" and len(node.inputs) == 4 and node.inputs[3] is not None


def _is_nearest(node: ir.Node) -> bool:
    attributes = {
        name: attribute.as_string()
        for name, attribute in node.attributes.items()
        if attribute.type == ir.AttributeType.STRING
    }
    # The policy has no effect in this mode.
    return attributes.pop("keep_aspect_ratio_policy", "stretch") == "stretch" and attributes == _NEAREST


def _chain(node: ir.Node) -> list[ir.Node] | None:
    """The nodes from an `Unsqueeze` to the next `Reshape`, if no other node reads a value between them."""
    if node.op_type != "Unsqueeze":
        return None
    chain = [node]
    while chain[-1].op_type != "Reshape":
        (value,) = chain[-1].outputs
        if not is_read_once(value):
            return None
        (use,) = value.uses()
        if use.idx != 0 or use.node.op_type not in _VIEWS:
            return None
        chain.append(use.node)
    return chain if any(link.op_type == "Tile" for link in chain) else None


def _replace_chain(graph: ir.Graph, chain: list[ir.Node]) -> bool:
    source, target = chain[0].inputs[0], chain[-1].outputs[0]
    assert source is not None
    before, after = _sizes(source), _sizes(target)
    if before is None or after is None or len(before) != 4 or len(after) != 4:
        logger.debug("%s: sizes unknown or not of rank 4", chain[0].name)
        return False
    indices = np.arange(np.prod(before), dtype=np.int64).reshape(before)
    try:
        repeated = _run(chain, indices, after)
    except (ValueError, TypeError) as error:
        logger.debug("%s: the chain cannot be run: %s", chain[0].name, error)
        return False
    resize = _as_resize(indices, repeated)
    if resize is None:
        logger.debug("%s: not a repetition of pixels", chain[0].name)
        return False
    permutation, factors = resize
    tape = GraphTape(graph, target.name)
    value = source
    if permutation != (0, 1, 2, 3):
        value = tape.add("Transpose", source, perm=permutation)
        value.dtype, value.shape = source.dtype, ir.Shape(source.shape[i] for i in permutation)  # type: ignore
    add_resize(tape, value, factors)
    tape.replace(chain[::-1], target)
    logger.debug("%s: now a Resize by %s", target.name, factors)
    return True


def _sizes(value: ir.Value) -> tuple[int, ...] | None:
    """Sizes with `_BATCH` for an unknown first one; None if another size is unknown."""
    sizes = known_sizes(value)
    if sizes and sizes[0] < 0:
        sizes[0] = _BATCH
    return None if sizes is None or -1 in sizes else tuple(sizes)


def _run(chain: list[ir.Node], indices: NDArray[np.int64], after: tuple[int, ...]) -> NDArray[np.int64]:
    for node in chain:
        match node.op_type:
            case "Unsqueeze":
                indices = np.expand_dims(indices, tuple(_second_input(node)))
            case "Tile":
                indices = np.tile(indices, tuple(_second_input(node)))
            case "Transpose":
                indices = indices.transpose(node.attributes.get_ints("perm"))
            case "Reshape":
                indices = indices.reshape(after)
    return indices


def _second_input(node: ir.Node) -> NDArray:
    array = constant_array(node.inputs[1])
    if array is None:
        raise ValueError(f"the second input of {node.op_type} is not constant")
    return array


def _as_resize(
    indices: NDArray[np.int64], repeated: NDArray[np.int64]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Permutation and factors by which `indices` become `repeated`."""
    for others in itertools.permutations((1, 2, 3)):
        permutation = (0, *others)
        moved = indices.transpose(permutation)
        if any(new % old for new, old in zip(repeated.shape, moved.shape, strict=True)):
            continue
        factors = tuple(new // old for new, old in zip(repeated.shape, moved.shape, strict=True))
        if factors[0] != 1:
            continue
        for axis, factor in enumerate(factors):
            moved = moved.repeat(factor, axis=axis)
        if np.array_equal(moved, repeated):
            return permutation, factors
    return None
