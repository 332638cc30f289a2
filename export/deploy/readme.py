"""The README next to a deployed model."""

from __future__ import annotations

import json
import textwrap

from ptychonnx.export.deploy.deployable import Deployable

__all__ = ["readme"]


def readme(artifact: Deployable, version: int, server: str) -> bytes:
    """Input, output and contract of the newest version.

    Parameters
    ----------
    server
        One or two sentences on how this server handles the folder.
    """
    stamped = artifact.stamped
    (first, label), *others = stamped.rows().items()
    rows = {first: label, "version": str(version), **dict(others)}
    rows["graph"] = f"sha256 `{stamped.graph_sha256 or 'not stored'}`"
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    title = "Contract" if artifact.contract else "Description"
    document = json.dumps(json.loads(stamped.text), indent=2, sort_keys=True)
    return (
        f"# {artifact.name}\n\n"
        f"{textwrap.fill(f'Written by `ptychonnx deploy`. {server}', 120)}\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        f"## {title} of version {version}\n\n```json\n{document}\n```\n"
    ).encode()
