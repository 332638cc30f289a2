"""Networks on an inference server that speaks the Open Inference Protocol, version 2."""

from runtime.remote.access import Access
from runtime.remote.address import Address
from runtime.remote.session import RemoteSession

__all__ = ["Access", "Address", "RemoteSession"]
