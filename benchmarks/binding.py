"""Whether bound buffers pay on the CPU: the ways to run a session, interleaved in one process.

* `plain`: `InferenceSession.run`, as `ptychonnx.runtime.inference.session` does it on the CPU.
* `bound`: `io_binding.BoundRun`, input copied into a buffer that is used again, output copied out of one.
* `no copies`: one input and one output buffer bound for good, nothing copied. No program can use it so, since the next
  run overwrites its patches: it shows the most that binding could ever gain.

Ratios are medians over the rounds of the ratio to `plain` within one round; above 1 is faster than `plain`. With
`--clock cpu` and one thread, the processor's time counts, which other programs disturb less.

    python -m benchmarks.binding models/*.onnx --out benchmarks/results/binding.json
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from ptychonnx.runtime.atomic import write_text
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.inference.io_binding import BoundRun


def measure(path: Path, batch: int, rounds: int, threads: int, clock: str) -> dict[str, Any]:
    now = time.perf_counter if clock == "wall" else time.thread_time
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    contract = Contract.from_json(session.get_modelmeta().custom_metadata_map[CONTRACT_KEY], str(path))
    n, channels = contract.n, contract.channels
    patterns = np.random.default_rng(0).uniform(0, 50, (batch, channels, n, n)).astype(contract.input.dtype)
    parts = np.empty((batch, n, n, channels, 2), dtype=np.float32)
    binding = session.io_binding()
    binding.bind_cpu_input(contract.input.name, patterns)
    binding.bind_output(contract.output.name, "cpu", 0, np.float32, parts.shape, parts.ctypes.data)
    bound = BoundRun(session, contract, "cpu")

    forms: dict[str, Callable[[], object]] = {
        "plain": lambda: session.run([contract.output.name], {contract.input.name: patterns})[0],
        "bound": lambda: bound(patterns),
        "no copies": lambda: session.run_with_iobinding(binding),
    }
    times: dict[str, list[float]] = {form: [] for form in forms}
    shuffled = random.Random(0)
    for number in range(rounds + 1):
        order = list(forms)
        shuffled.shuffle(order)
        for form in order:
            start = now()
            forms[form]()
            if number:  # the first round allocates
                times[form].append(now() - start)
    return {
        form: {
            "milliseconds_a_group": 1e3 * statistics.median(values) / batch,
            "speedup_over_plain": statistics.median(
                plain / own for plain, own in zip(times["plain"], values, strict=True)
            ),
        }
        for form, values in times.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("artifacts", nargs="+", type=Path)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    results: dict[str, dict[int, Any]] = {}
    for path in arguments.artifacts:
        for batch in arguments.batch:
            found = measure(path, batch, arguments.rounds, arguments.threads, arguments.clock)
            results.setdefault(path.stem, {})[batch] = found
            ratios = "  ".join(f"{form} {values['speedup_over_plain']:.3f}" for form, values in found.items())
            print(
                f"{path.stem:<16}batch {batch:<4}{found['plain']['milliseconds_a_group']:8.3f} ms  {ratios}"
            )
    if arguments.out:
        document = {
            "rounds": arguments.rounds,
            "threads": arguments.threads,
            "clock": arguments.clock,
            "machine": platform.processor() or platform.machine(),
            "versions": {name: version(name) for name in ("onnxruntime-gpu", "numpy")},
            "networks": results,
        }
        write_text(arguments.out, json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
