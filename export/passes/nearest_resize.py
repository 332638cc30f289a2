"""Rewrites the repetition of pixels that Keras writes for `UpSampling2D` as one `Resize`."""

from __future__ import annotations

import itertools
import logging

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import ShapeInferencePass

__all__ = ["RepeatToResizePass", "SizesToScalesPass", "make_resize"]

logger = logging.getLogger(__name__)

_NEAREST = {
    "mode": "nearest",
    "coordinate_transformation_mode": "asymmetric",
    "nearest_mode": "floor",
}
_VIEWS = {"Unsqueeze", "Tile", "Transpose", "Reshape"}
# Any batch that is not also a size would do: the mapping of indices is found for this one.
_BATCH = 2


class RepeatToResizePass(ir.passes.InPlacePass):
    """``Unsqueeze, Tile, [Transpose,] Reshape`` of a rank-4 value becomes ``[Transpose,] Resize``.

    What the chain does is not guessed from its attributes: it is run on an array of indices, and replaced
    only if each output pixel is the one that the nearest-neighbour `Resize` (asymmetric, floor) of whole
    factors, perhaps of a transposition that leaves the batch in front, would take. The result is therefore
    identical bit for bit. The computation of the target shape, which is dynamic, is then dead and left to the
    removal of unused nodes.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        if not any(node.op_type == "Tile" for node in model.graph):
            return ir.passes.PassResult(model, modified=False)
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        chains = [chain for node in model.graph if (chain := _chain(node))]
        replaced = sum(_replace(model.graph, chain) for chain in chains)
        return ir.passes.PassResult(model, modified=replaced > 0)


class SizesToScalesPass(ir.passes.InPlacePass):
    """A nearest-neighbour `Resize` to a computed size becomes one by whole factors; values stay bit for bit.

    torch computes the size by ``Shape`` and ``Concat``, only to carry the batch along. Only `Resize` of the kind
    that `make_resize` writes, with whole factors, is touched.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        nodes = [
            node
            for node in model.graph
            if node.op_type == "Resize" and len(node.inputs) == 4 and node.inputs[3] is not None
        ]
        if not nodes:
            return ir.passes.PassResult(model, modified=False)
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(model)
        return ir.passes.PassResult(model, modified=sum(_scale(model.graph, node) for node in nodes) > 0)


def _scale(graph: ir.Graph, node: ir.Node) -> bool:
    source, target = node.inputs[0], node.outputs[0]
    assert source is not None
    before, after = _sizes(source), _sizes(target)
    if before is None or after is None or not _is_nearest(node):
        return False
    if any(new % old for new, old in zip(after, before, strict=True)) or after[0] != before[0]:
        return False
    factors = tuple(new // old for new, old in zip(after, before, strict=True))
    scaled = make_resize(graph, source, factors, f"{target.name}.scales")
    ir.convenience.replace_nodes_and_values(graph, node, [node], [scaled], [target], [scaled.outputs[0]])
    return True


def _is_nearest(node: ir.Node) -> bool:
    given = {
        name: attribute.as_string()
        for name, attribute in node.attributes.items()
        if attribute.type == ir.AttributeType.STRING
    }
    # Without effect for this mode.
    for name, default in (("keep_aspect_ratio_policy", "stretch"),):
        if given.pop(name, default) != default:
            return False
    return given == _NEAREST


def _chain(node: ir.Node) -> list[ir.Node] | None:
    """The nodes from an `Unsqueeze` to the next `Reshape`, if nothing else reads from between them."""
    if node.op_type != "Unsqueeze":
        return None
    chain = [node]
    while chain[-1].op_type != "Reshape":
        (value,) = chain[-1].outputs
        uses = list(value.uses())
        if (
            len(uses) != 1
            or value.is_graph_output()
            or uses[0].idx != 0
            or uses[0].node.op_type not in _VIEWS
        ):
            return None
        chain.append(uses[0].node)
    return chain if any(link.op_type == "Tile" for link in chain) else None


def _replace(graph: ir.Graph, chain: list[ir.Node]) -> bool:
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
        logger.debug("%s: cannot be followed: %s", chain[0].name, error)
        return False
    found = _as_resize(indices, repeated)
    if found is None:
        logger.debug("%s: is no repetition of pixels", chain[0].name)
        return False
    permutation, factors = found
    nodes: list[ir.Node] = []
    value = source
    if permutation != (0, 1, 2, 3):
        nodes.append(ir.node("Transpose", [value], {"perm": permutation}))
        value = nodes[-1].outputs[0]
        value.dtype, value.shape = source.dtype, ir.Shape(source.shape[i] for i in permutation)  # type: ignore
    nodes.append(make_resize(graph, value, factors, f"{target.name}.scales"))
    ir.convenience.replace_nodes_and_values(
        graph, chain[-1], chain[::-1], nodes, [target], [nodes[-1].outputs[0]]
    )
    logger.debug("%s: now a Resize by %s", target.name, factors)
    return True


def make_resize(graph: ir.Graph, value: ir.Value, factors: tuple[int, ...], name: str) -> ir.Node:
    """A nearest-neighbour `Resize` by whole factors; scales, not sizes, so that the batch stays dynamic."""
    while name in graph.initializers:
        name += "_"
    scales = ir.val(name, const_value=ir.tensor(np.array(factors, dtype=np.float32), name=name))
    graph.register_initializer(scales)
    return ir.node("Resize", [value, None, scales], _NEAREST)


def _sizes(value: ir.Value) -> tuple[int, ...] | None:
    """Sizes with `_BATCH` for an unknown first one."""
    if value.shape is None:
        return None
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    if sizes and sizes[0] is None:
        sizes[0] = _BATCH
    known = tuple(size for size in sizes if size is not None)
    return known if len(known) == len(sizes) else None


def _run(chain: list[ir.Node], indices: NDArray[np.int64], after: tuple[int, ...]) -> NDArray[np.int64]:
    for node in chain:
        match node.op_type:
            case "Unsqueeze":
                indices = np.expand_dims(indices, tuple(_constant(node)))
            case "Tile":
                indices = np.tile(indices, tuple(_constant(node)))
            case "Transpose":
                indices = indices.transpose(node.attributes["perm"].as_ints())
            case "Reshape":
                indices = indices.reshape(after)
    return indices


def _constant(node: ir.Node) -> NDArray:
    value = None if node.inputs[1] is None else ir.convenience.get_const_tensor(node.inputs[1])
    if value is None:
        raise ValueError(f"the second input of {node.op_type} is not constant")
    return value.numpy()


def _as_resize(
    indices: NDArray[np.int64], repeated: NDArray[np.int64]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
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
