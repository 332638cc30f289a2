"""Tables of Markdown and the results that fill them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def whole(figure: str) -> str:
    """A figure that is not broken over two lines."""
    return figure.replace(" ", "\u00a0").replace("-", "\u2011") if len(figure) < 20 else figure


def results(name: str, folder: str = "docs/results") -> Any:
    return json.loads((ROOT / folder / f"{name}.json").read_text(encoding="utf-8"))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
