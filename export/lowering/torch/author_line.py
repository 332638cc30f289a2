"""Lines of the author's code: of a node of a traced module, of an exception, and of the code that is running."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import FrameSummary, StackSummary, extract_stack, extract_tb
from types import TracebackType

import torch
from torch.fx import Node
from torch.fx.proxy import TracerBase

__all__ = ["author_line", "author_line_of_traceback", "complete_stack_traces", "running_author_line"]

_TORCH = f"{Path(torch.__file__).parent}/"
_EXPORT = f"{Path(__file__).absolute().parents[2]}/"


def author_line(node: Node) -> str | None:
    """Place and text of the innermost line of the author's code that a node comes from; None if unknown."""
    trace = node.meta.get("stack_trace") or ""
    frames = re.findall(r'File "([^"]+)", line (\d+), in ([^\n]*)\n([^\n]*)', trace)
    return _in_words(
        [FrameSummary(path, int(line), name, line=text.strip()) for path, line, name, text in frames]
    )


def author_line_of_traceback(trace: TracebackType | None) -> str | None:
    """The innermost line of the author's code that an exception went through, in the same form."""
    return _in_words(extract_tb(trace))


def running_author_line() -> str | None:
    """The innermost line of the author's code that runs now, or that the running node of a trace comes from."""
    frame = sys._getframe(1)
    while frame is not None:
        node = frame.f_locals.get("node")
        if isinstance(node, Node) and (line := author_line(node)):
            return line
        frame = frame.f_back  # type: ignore[assignment]
    return _in_words(extract_stack())


@contextmanager
def complete_stack_traces() -> Iterator[None]:
    """In this context nodes of a trace know all lines from `forward` on; torch keeps those of `forward` alone."""
    original = TracerBase._filter_traceback_frames

    def kept(self: TracerBase, stack: StackSummary) -> StackSummary:
        return StackSummary.from_list(_author_frames(stack))

    TracerBase._filter_traceback_frames = kept  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        TracerBase._filter_traceback_frames = original  # type: ignore[method-assign]


def _author_frames(frames: Sequence[FrameSummary]) -> list[FrameSummary]:
    """Frames from the first `forward` on that belong neither to torch nor to the export."""
    start = next((number for number, frame in enumerate(frames) if frame.name == "forward"), 0)
    outside = [frame for frame in frames[start:] if not frame.filename.startswith((_TORCH, _EXPORT, "<"))]
    # Calls of a library such as einops belong to the author's line, unless the module itself is a library's.
    return [frame for frame in outside if "/site-packages/" not in frame.filename] or outside


def _in_words(frames: Sequence[FrameSummary]) -> str | None:
    ours = _author_frames(frames)
    if not ours:
        return None
    callers = [frame for frame in ours[:-1] if frame.name == "forward"][-1:]
    called = "".join(f", called at {_place(frame)}" for frame in callers if ours[-1].name != "forward")
    return f"{_place(ours[-1])} `{ours[-1].line}`{called}"


def _place(frame: FrameSummary) -> str:
    return f"{Path(frame.filename).name}:{frame.lineno}"
