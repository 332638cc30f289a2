"""Compare trained networks on scans with fewer and fewer photons.

    python examples/compare_networks.py

writes `comparison.png`, and for the scan with most photons the whole report, `report/report.html`.
"""

import matplotlib.pyplot as plt

import ptychonnx

networks = [f"zoo:{name}" for name in ("baseline", "pinn_fno", "pinn_hybrid")]
photons = [1e5, 1e7, 1e9]

# Load: three scans of one object, which differ in dose alone.
scans = [ptychonnx.simulate_lines(grid=9, photons=dose, name=f"{dose:g} photons") for dose in photons]

# Run: every network on every scan, with the same stitching and the same metrics.
evaluation = ptychonnx.evaluate(networks, scans)
ptychonnx.evaluate(networks, scans[-1], "report")

# Look: structural similarity of the phase with the known object, 1 at best.
figure, panel = plt.subplots(figsize=(6, 4), layout="constrained")
for label, row in evaluation.as_json()["rows"].items():
    similarity = [row["scans"][scan.name]["phase"]["ssim"] for scan in scans]
    panel.semilogx(photons, similarity, "o-", label=label)
    print(f"{label:12s}", *(f"{value:.3f}" for value in similarity))
panel.set(xlabel="photons per pattern", ylabel="SSIM of the phase", ylim=(0, 1))
panel.legend()
figure.savefig("comparison.png", dpi=150)
plt.show()
