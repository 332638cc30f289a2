"""File plugins of ptychonnx; ptychodus imports every module of this folder and calls `register_plugins`."""

from ptychodus_ptychonnx.files import register_plugins

__all__ = ["register_plugins"]
