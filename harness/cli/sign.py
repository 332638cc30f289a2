"""`ptychonnx sign`: a signature of an artifact, in a file next to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ptychonnx.export.artifact.artifact_checks import check_artifact, raise_on_difference
from ptychonnx.export.artifact.signing import sign as sign_file
from ptychonnx.harness.cli.console import print_result

__all__ = ["sign"]


def sign(
    artifact: Annotated[Path, typer.Argument(help="ONNX artifact.")],
    key: Annotated[Path, typer.Option(help="PEM file with an elliptic curve private key.")],
) -> None:
    """Check an artifact as `ptychonnx inspect --verify` does, and write its **signature** to `ARTIFACT.sig`.

    Nothing leaves this machine. Needs `pip install 'ptychonnx[signing]'`. Make a pair of keys with

    `openssl ecparam -name prime256v1 -genkey -noout -out key.pem`

    `openssl ec -in key.pem -pubout -out key.pub`

    Example: `ptychonnx sign models/pinn_fno.onnx --key key.pem`
    """
    raise_on_difference(artifact, check_artifact(artifact))
    print_result(sign_file(artifact, key), [])
