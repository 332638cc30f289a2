"""Trained networks that come with ptychonnx: `ptychonnx.zoo.path("pinn_hybrid")`.

Wherever a model is expected, ``zoo:pinn_hybrid`` means the same. `README.md` next to this file describes the networks.
"""

from ptychonnx.runtime.inference.artifact_path import zoo_names as names
from ptychonnx.runtime.inference.artifact_path import zoo_path as path

__all__ = ["names", "path"]
