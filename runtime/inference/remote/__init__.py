"""Client for models on inference servers that speak the Open Inference Protocol, version 2."""

from ptychonnx.runtime.inference.remote.address import Address
from ptychonnx.runtime.inference.remote.authentication import Credentials, read_token
from ptychonnx.runtime.inference.remote.remote_session import RemoteSession

__all__ = ["Address", "Credentials", "RemoteSession", "read_token"]
