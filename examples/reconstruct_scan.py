"""Reconstruct a scan with a trained network, and look at the object.

    python examples/reconstruct_scan.py

writes `object.h5`, which silx and ptychodus open, and `object.png`.
"""

import matplotlib.pyplot as plt
import numpy as np

import ptychonnx

# Load: a simulated scan, whose object no network has seen. Networks of the zoo know its probe and about its number of
# photons; a scan of yours, ptychonnx.read_scan("scan.cxi"), needs a network that was trained with yours.
scan = ptychonnx.simulate_lines(grid=12)
print(f"{len(scan)} patterns of {scan.size} x {scan.size} pixels, {scan.flux:.2g} photons each")

# Run: predict a patch for every pattern, rotate the patches to a common phase, and stitch them.
reconstruction = ptychonnx.reconstruct("zoo:pinn_hybrid", scan, synchronise=True, out="object.h5")
print(f"{1e3 * reconstruction.inference_seconds / len(scan):.1f} ms per pattern")

# Look: the object is complex, [row, column]; a transparent object has amplitude 1 and phase 0. The border is dim.
image = reconstruction.object[20:-20, 20:-20]
phase = np.angle(image / np.mean(image))
figure, panels = plt.subplots(1, 3, figsize=(12, 4), layout="constrained")
panels[0].imshow(np.log1p(scan.diffraction[0]), cmap="magma")
panels[0].set_title("first pattern, log of amplitude")
for panel, quantity, title in (
    (panels[1], np.abs(image), "amplitude"),
    (panels[2], phase, "phase, rad"),
):
    figure.colorbar(panel.imshow(quantity, cmap="gray"), ax=panel, shrink=0.8)
    panel.set_title(title)
figure.savefig("object.png", dpi=150)
plt.show()
