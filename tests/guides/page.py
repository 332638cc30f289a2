"""The commands of a page of documentation, as a reader would copy them.

A fenced block marked `sh` is run by the tests. One marked `shell` needs what the tests do not have;
a comment says what.
"""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["ROOT", "commands"]

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: str, section: str) -> list[str]:
    """Blocks of commands under a heading of the second level, in order; at least one."""
    text = (ROOT / page).read_text(encoding="utf-8")
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    blocks = _BLOCK.findall(sections[section])
    assert blocks, f"{page}: no command to run in {section!r}"
    return blocks
