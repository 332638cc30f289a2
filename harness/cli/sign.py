"""`ptychonnx sign`: a signature beside an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.export.artifact.signing import sign as sign_file
from ptychonnx.export.verification.published_file import check_artifact, raise_on_difference
from ptychonnx.harness.cli.console import output

__all__ = ["sign"]


def sign(
    artifact: Annotated[Path, typer.Argument(help="ONNX artifact.")],
    key: Annotated[Path, typer.Option(help="PEM file of an elliptic curve private key.")],
) -> None:
    """Check an artifact as `ptychonnx inspect --verify` does, and write its **signature** to `ARTIFACT.sig`.

    Nothing leaves this machine. Needs `pip install 'ptychonnx[signing]'`. Make a pair of keys with

    `openssl ecparam -name prime256v1 -genkey -noout -out key.pem`

    `openssl ec -in key.pem -pubout -out key.pub`

    Example: `ptychonnx sign models/pinn_fno.onnx --key key.pem`
    """
    raise_on_difference(artifact, check_artifact(artifact))
    output.print(f"[bold]{sign_file(artifact, key)}[/]", soft_wrap=True)
