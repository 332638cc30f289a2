"""Errors of the torch exporter, in one line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from types import TracebackType

import torch

from ptychonnx.runtime.errors import first_line

__all__ = ["reason"]


def reason(error: BaseException) -> str:
    """The first cause of `error`, after the dotted path of the layer that was exported, if it is known.

    The message of the exporter is general advice in many lines. The cause is in the exception that it was raised
    from, and the layer is in the node that was being translated.
    """
    chain = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    path = next((found for one in reversed(chain) if (found := _path(one.__traceback__))), None)
    text = first_line(chain[-1])
    return f"layer {path}: {text}" if path else text


def _path(trace: TracebackType | None) -> str | None:
    for node in _nodes(trace):
        layers = list(node.meta.get("nn_module_stack", {}).values())
        if layers:
            return re.sub(r"^L\['self'\]\.?", "", layers[-1][0]) or "(the module itself)"
    return None


def _nodes(trace: TracebackType | None) -> Iterator[torch.fx.Node]:
    while trace is not None:
        node = trace.tb_frame.f_locals.get("node")
        if isinstance(node, torch.fx.Node):
            yield node
        trace = trace.tb_next
