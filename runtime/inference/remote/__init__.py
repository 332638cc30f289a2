"""Client for models on inference servers that speak the Open Inference Protocol, version 2."""

from ptychonnx.runtime.inference.remote.authentication import Credentials
from ptychonnx.runtime.inference.remote.remote_session import RemoteSession

__all__ = ["Credentials", "RemoteSession"]
