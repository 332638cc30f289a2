"""Compare trained networks on scans with less and less overlap.

    python examples/compare_networks.py

writes `comparison.png`, and the whole report, `report/report.html`.
"""

import matplotlib.pyplot as plt

import ptychonnx

networks = [f"zoo:{name}" for name in ("baseline", "pinn_fno", "pinn_hybrid")]
steps = [6, 12, 18]  # pixels; half of the photons fall on the middle 12 rows of the probe

# Load: three scans of random lines, with the positions further and further apart.
scans = [ptychonnx.simulate_lines(grid=8, step=step, name=f"step {step}") for step in steps]

# Run: every network on every scan, with the same stitching and the same metrics.
evaluation = ptychonnx.evaluate(networks, scans, "report")

# Look: structural similarity of the phase with the known object, 1 at best.
figure, panel = plt.subplots(figsize=(6, 4), layout="constrained")
for label, row in evaluation.as_json()["rows"].items():
    similarity = [row["scans"][scan.name]["phase"]["ssim"] for scan in scans]
    panel.plot(steps, similarity, "o-", label=label)
    print(f"{label:12s}", *(f"{value:.3f}" for value in similarity))
panel.set(xlabel="step between positions, pixels", ylabel="SSIM of the phase", ylim=(0, 1))
panel.legend()
figure.savefig("comparison.png", dpi=150)
plt.show()
