"""Merging patches into one object: weighted, complex-valued, at sub-pixel positions, in any order.

Complex values are averaged as such: averaging amplitude and phase apart breaks where the phase wraps.
Each pixel is the weighted mean of the patches that reach it; where none does, the object is 0 and
`Stitched.covered` is False. Nothing is divided by an epsilon.

* `stitcher`: adds patches; the one class that callers need.
* `weight`: what each pixel of a patch counts.
* `fourier`: moves patches by fractions of a pixel on their Fourier modes.
* `synchronisation`: the phases that patches are turned by so that they agree.
* `kept`: the patches until their phases are known, in memory or on disk.
* `canvas`: the sums, in memory or in tiles on disk.
* `kernel`: the loop that adds patches to sums, interpolated between pixels, compiled.
* `scratch`: where what is on disk goes, and what is said if it does not fit.
* `stitched`: the object that comes out, whole or in tiles.
"""

from ptychonnx.runtime.reconstruction.stitching.canvas import MAX_CANVAS_PIXELS, canvas_memory
from ptychonnx.runtime.reconstruction.stitching.pixel_weights import patch_weight
from ptychonnx.runtime.reconstruction.stitching.stitched_object import Block, Stitched, StitchedTiles
from ptychonnx.runtime.reconstruction.stitching.stitcher import Stitcher, check_whole

__all__ = [
    "MAX_CANVAS_PIXELS",
    "Block",
    "Stitched",
    "StitchedTiles",
    "Stitcher",
    "canvas_memory",
    "check_whole",
    "patch_weight",
]
