"""Networks of ptychonnx as a reconstructor of ptychodus 1.7.

>>> from ptychodus.model import ModelCore
>>> from ptychodus_ptychonnx import register
>>> with ModelCore() as model:
...     register(model)
...     "ptychonnx_network" in model.workflow_api.available_reconstructors()
True
"""

from ptychodus_ptychonnx.library import ALGORITHM, NetworkLibrary, register

__all__ = ["ALGORITHM", "NetworkLibrary", "register"]
