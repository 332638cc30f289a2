"""Connections by scheme. The client library is an extra, so it is imported only when a connection is made."""

from __future__ import annotations

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.inference.remote.address import Address
from ptychonnx.runtime.inference.remote.authentication import Credentials
from ptychonnx.runtime.inference.remote.connection import Connection

__all__ = ["connect"]


def connect(address: Address, credentials: Credentials, timeout: float) -> Connection:
    """Create the connection for the scheme of an address, without sending anything yet.

    Raises InputError if the client library is missing or incompatible.

    `timeout`: seconds within which each request must be answered.
    """
    try:
        if address.scheme in {"grpc", "grpcs"}:
            from ptychonnx.runtime.inference.remote.grpc_connection import GrpcConnection

            return GrpcConnection(address, credentials, timeout)
        from ptychonnx.runtime.inference.remote.http_connection import HttpConnection
    except ImportError as error:
        raise InputError(
            f"{address}: {error.name or error} is not installed, pip install 'ptychonnx[serve]' brings it"
        ) from error
    except Exception as error:  # generated protobuf code raises various types at unknown versions
        raise InputError(
            f"{address}: tritonclient does not work with what is installed ({first_line(error)})"
        ) from error
    return HttpConnection(address, credentials, timeout)
