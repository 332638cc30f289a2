"""Networks on an inference server that speaks the Open Inference Protocol, version 2."""

from ptychonnx.runtime.inference.remote.address import Address
from ptychonnx.runtime.inference.remote.authentication import Access
from ptychonnx.runtime.inference.remote.remote_session import RemoteSession

__all__ = ["Access", "Address", "RemoteSession"]
