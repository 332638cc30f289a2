"""LSQML of pty-chi on one scan, in an environment of its own; see `benchmarks/lsqml.py`.

    python lsqml_worker.py SCAN.npz OBJECTS.npz EPOCHS BATCH

SCAN has `patterns` (photons, float32 [n, N, N]), `corners` float64 [n, 2] of the windows on the object, `probe`
complex64 [modes, N, N] and `shape` of the object. OBJECTS gets `objects` complex64 [k, rows, columns] after each of the
EPOCHS (numbers with commas between) and `seconds` float64 [k] of iterations until then.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch


def without_compiled_operators() -> None:
    """Let torchvision load next to a torch without CUDA, for which its wheel has no operators; pty-chi uses none."""
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    globals()["_library"] = library  # which is closed with its last reference


def main() -> None:
    """Iterate, and write the objects."""
    source, target, epochs, batch = sys.argv[1:]
    torch.set_num_threads(1)
    if torch.version.cuda is None:
        without_compiled_operators()
    import ptychi.api as api
    from ptychi.api.task import PtychographyTask

    with np.load(source) as file:
        patterns, corners, probe, shape = (file[name] for name in ("patterns", "corners", "probe", "shape"))
    options = api.LSQMLOptions()
    options.data_options.data = patterns
    options.object_options.initial_guess = np.ones((1, *shape), np.complex64)
    options.object_options.determine_position_origin_coords_by = api.ObjectPosOriginCoordsMethods.SPECIFIED
    # Windows have their centres between pixels, and whole steps from there: pty-chi rounds positions, not this.
    options.object_options.position_origin_coords = 2 * [(probe.shape[-1] - 1) / 2]
    # The probe is exact, and known.
    options.object_options.remove_object_probe_ambiguity.enabled = False
    # Its Fourier transform is not unitary.
    options.probe_options.initial_guess = probe[None] / probe.shape[-1]
    options.probe_options.optimizable = False
    options.probe_position_options.position_y_px, options.probe_position_options.position_x_px = (
        corners.astype(np.float32).T
    )
    options.probe_position_options.optimizable = False
    options.reconstructor_options.batch_size = int(batch)
    options.reconstructor_options.default_device = api.Devices.CPU
    options.reconstructor_options.rescale_probe_intensity_in_first_epoch = False
    options.reconstructor_options.random_seed = 1
    judged = [int(number) for number in epochs.split(",")]
    options.reconstructor_options.num_epochs = judged[-1]
    task, done, seconds, objects = PtychographyTask(options), 0, 0.0, []
    times = []
    for number in judged:
        began = time.perf_counter()
        task.run(number - done)
        seconds, done = seconds + time.perf_counter() - began, number
        objects.append(task.get_data_to_cpu("object", as_numpy=True)[0])
        times.append(seconds)
    np.savez(target, objects=np.array(objects), seconds=np.array(times))


if __name__ == "__main__":
    main()
