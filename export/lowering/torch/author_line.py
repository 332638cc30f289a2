"""The line of the author's code that a node of a traced module comes from."""

from __future__ import annotations

import re

from torch.fx import Node

__all__ = ["author_line"]


def author_line(node: Node) -> str | None:
    """Place and text of the innermost line of the author's code; None if unknown."""
    trace = node.meta.get("stack_trace") or ""
    frames = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n([^\n]*)', trace)
    for path, line, text in reversed(frames):
        if "/torch/" not in path:
            return f"{path.rpartition('/')[2]}:{line} `{text.strip()}`"
    return None
