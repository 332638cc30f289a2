"""The README next to a deployed model."""

from __future__ import annotations

import json
import textwrap

from ptychonnx.export.deploy.deployable import Deployable, Interface

__all__ = ["readme"]


def readme(artifact: Deployable, version: int, server: str) -> bytes:
    """Input, output and contract of the newest version.

    Parameters
    ----------
    server
        One or two sentences on how this server handles the folder.
    """
    contract, interface = artifact.contract, artifact.interface
    parity = contract.parity
    rows = {
        "label": contract.label,
        "version": str(version),
        "input": f"`{interface}`, DC at the {contract.input.dc}",
        "output": f"`{_output(interface)}`: {contract.output.quantity} as {contract.output.representation}",
        "precision": contract.conversion.precision,
        "trained on": f"{contract.probe.flux:.3g} photons per pattern",
        "parity": "not measured" if parity is None else f"{parity.max_relative_error:.1e} ({parity.engine})",
        "graph": f"sha256 `{contract.graph_sha256 or 'not stored'}`",
    }
    table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
    document = json.dumps(json.loads(artifact.stamped.text), indent=2, sort_keys=True)
    return (
        f"# {artifact.name}\n\n"
        f"{textwrap.fill(f'Written by `ptychonnx deploy`. {server}', 120)}\n\n"
        f"| | |\n|---|---|\n{table}\n\n"
        f"## Contract of version {version}\n\n```json\n{document}\n```\n"
    ).encode()


def _output(interface: Interface) -> str:
    batch = "batch" if interface.batch is None else str(interface.batch)
    return f"{interface.output_name}: float32 [{', '.join(map(str, (batch, *interface.output_shape)))}]"
