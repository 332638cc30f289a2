"""From a scan and a network to an object: prediction and stitching of patches."""

from ptychonnx.runtime.reconstruction.reconstruction import Reconstruction, reconstruct

__all__ = ["Reconstruction", "reconstruct"]
