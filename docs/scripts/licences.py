"""The page `docs/reference/licences.md`: licence of every dependency, from the metadata of what is installed."""

from __future__ import annotations

import re
from importlib.metadata import PackageMetadata, PackageNotFoundError, metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "reference" / "licences.md"
HEAD = """# Licences of dependencies

Every package of `constraints.txt`, those of all extras and of development included, with the licence that its own
metadata state. `make licences` writes this page. ptychonnx itself is under the licence in `LICENSE`.

No dependency is part of ptychonnx's wheel: pip installs them. With a network, `pip-audit -r constraints.txt --no-deps`
compares their versions with known vulnerabilities.

| package | version | licence |
| --- | --- | --- |
"""


def licence(fields: PackageMetadata) -> str:
    """The expression, the classifiers or the first line of the text, in this order."""
    if expression := fields.get("License-Expression"):
        return expression
    classifiers = [
        line.rpartition("::")[2].strip()
        for line in fields.get_all("Classifier") or []
        if line.startswith("License ::")
    ]
    if named := [name for name in classifiers if name != "OSI Approved"]:
        return ", ".join(named)
    text = (fields.get("License") or "").strip().splitlines()
    return text[0][:60] if text else "not stated"


def main() -> None:
    """Write the page."""
    lines = []
    for name, version in re.findall(r"^([\w.-]+)==([^\s;#]+)", (ROOT / "constraints.txt").read_text(), re.M):
        try:
            stated = licence(metadata(name)).replace("|", "\\|")
        except PackageNotFoundError:
            stated = "not installed"
        lines.append(f"| {re.sub(r'[-_.]+', '-', name).lower()} | {version} | {stated} |")
    PAGE.write_text(HEAD + "\n".join(sorted(lines)) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
