"""Stitching of patches into one object: weighted, complex-valued, at sub-pixel positions, in any order.

Complex values are averaged, since averages of amplitude and phase fail where the phase wraps. Each pixel is the
weighted mean of the patches that cover it. Where there are none, the object is 0 and `Stitched.covered` is False;
nothing is divided by an epsilon.

* `stitcher`: accumulates patches; the one class that callers need.
* `pixel_weights`: per-pixel stitching weights.
* `fourier_shift`: sub-pixel shifts of patches by their Fourier modes.
* `synchronisation`: rotates patches to a common global phase.
* `patch_store`: holds patches until their phases are known, in memory or on disk.
* `canvas`: the weighted sums, in memory or in tiles on disk.
* `kernel`: the compiled loop that interpolates patches and adds them to the sums.
* `temporary_files`: disk space and errors of temporary files.
* `stitched_object`: the resulting object, whole or in tiles.
"""

from ptychonnx.runtime.reconstruction.stitching.canvas import canvas_memory
from ptychonnx.runtime.reconstruction.stitching.pixel_weights import patch_weight
from ptychonnx.runtime.reconstruction.stitching.stitched_object import Stitched, StitchedTiles
from ptychonnx.runtime.reconstruction.stitching.stitcher import (
    Stitcher,
    Sums,
    canvas_layout,
    check_whole,
    whole_shape,
)

__all__ = [
    "Stitched",
    "StitchedTiles",
    "Stitcher",
    "Sums",
    "canvas_layout",
    "canvas_memory",
    "check_whole",
    "patch_weight",
    "whole_shape",
]
