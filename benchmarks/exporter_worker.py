"""Worker process of `benchmarks.exporters`: exports modules, judges the files, and times them.

    python -m benchmarks.exporter_worker torch|tensorflow FOLDER

Every pair of a module and an exporter is offered by a line of JSON on standard output, and taken by a line ``yes`` on
standard input. One line for each result follows: one of the exporter, one of the same file through onnxslim, or times.
Files are written to FOLDER.

Every exporter gets the same module. If that has complex or nested inputs or outputs, all exporters but ours get it
wrapped, so that it takes and returns flat real tensors, complex numbers as pairs. Each is asked for a dynamic batch
first, and for a fixed batch of two if that fails. A file is right if it agrees with the native module in batches of two
and three.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from benchmarks.exporter_cases import Case, cases_of
from benchmarks.interleaved import median_milliseconds
from ptychonnx.export.artifact.export_module import NativeModule, native_module
from ptychonnx.export.graph.opset import DEFAULT_OPSET
from ptychonnx.export.lowering.trial_inputs import module_inputs
from ptychonnx.runtime.errors import first_line

BATCH = 2  # of the export, and of the times
OTHER_BATCH = 3

Run = Callable[[dict[str, NDArray]], dict[str, NDArray]]


def native_of(case: Case, batch: int | None = None) -> NativeModule:
    """The module in its framework, freshly built."""
    return native_module(case.build(), case.inputs, case.keywords, batch)


def values(native: NativeModule, batch: int) -> list[NDArray]:
    """Inputs of the graph."""
    return list(module_inputs(list(native.inputs.values()))[0].batch(0, batch))


def open_onnx(path: Path, threads: int = 1) -> Run:
    """Load in onnxruntime on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    inputs = [value.name for value in session.get_inputs()]
    outputs = [value.name for value in session.get_outputs()]

    def run(feed: dict[str, NDArray]) -> dict[str, NDArray]:
        return dict(zip(outputs, session.run(None, _matching(inputs, feed)), strict=True))

    return run


def open_openvino(path: Path, threads: int = 1) -> Run:
    """Load in OpenVINO on the CPU, in float32."""
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
    compiled: Any = openvino.Core().compile_model(str(path), "CPU", settings)
    inputs = [next(iter(value.names), f"input_{number}") for number, value in enumerate(compiled.inputs)]

    def run(feed: dict[str, NDArray]) -> dict[str, NDArray]:
        results = compiled(list(_matching(inputs, feed).values()))
        return {f"output_{number}": np.array(results[number]) for number in range(len(results))}

    return run


def open_iree(path: Path) -> Run:
    """Load what IREE compiled, in its runtime with one thread."""
    import iree.runtime

    config = iree.runtime.Config("local-sync")
    module: Any = iree.runtime.VmModule.mmap(config.vm_instance, str(path))
    context = iree.runtime.SystemContext(config=config)
    context.add_vm_module(module)
    (name,) = (one for one in module.function_names if "$" not in one and not one.startswith("__"))
    function = context.modules[module.name][name]

    def run(feed: dict[str, NDArray]) -> dict[str, NDArray]:
        results = function(*map(np.ascontiguousarray, feed.values()))
        results = results if isinstance(results, list | tuple) else [results]
        return {f"output_{number}": np.asarray(one) for number, one in enumerate(results)}

    return run


def _matching(names: Sequence[str], feed: dict[str, NDArray]) -> dict[str, NDArray]:
    """The inputs by the names in a graph: exporters rename them, and leave out unused ones."""
    if set(names) <= set(feed):
        return {name: feed[name] for name in names}
    if len(names) != len(feed):
        raise ValueError(f"the graph takes {', '.join(names)}, expected {', '.join(feed)}")
    return dict(zip(names, feed.values(), strict=True))


def judge(
    path: Path, native: NativeModule, tolerance: float, opener: Callable[[Path], Run]
) -> dict[str, Any]:
    """Whether a file loads, runs, and agrees with the native module; the largest error of all outputs."""
    try:
        run = opener(path)
    except Exception as error:  # engines raise a dozen types of their own
        return {"status": "does not load", "message": _message(error)}
    record: dict[str, Any] = {}
    for batch in (BATCH, OTHER_BATCH):
        arrays = values(native, batch)
        try:
            found = run(dict(zip(native.inputs, arrays, strict=True)))
        except Exception as error:  # as above
            if batch == OTHER_BATCH:
                return record | {"status": "fixed batch", "message": _message(error)}
            return {"status": "does not run", "message": _message(error)}
        names = [output.name for output in native.outputs]
        ordered = [found[name] for name in names] if set(names) <= set(found) else list(found.values())
        errors = [
            relative_error(one, other) for one, other in zip(ordered, native.predict(*arrays), strict=False)
        ]
        error = float("inf") if len(ordered) != len(names) or None in errors else max(errors)
        error = max(error, record.get("error", 0.0))
        if not error <= tolerance:
            status = "wrong" if batch == BATCH else "wrong in another batch"
            return {"status": status, "error": error if np.isfinite(error) else None}
        record = {"status": "right", "error": error}
    return record


def relative_error(output: NDArray, expected: NDArray) -> float | None:
    """Largest difference over the largest output; None if shapes differ, or integers do."""
    if output.shape != expected.shape:
        return None
    if expected.dtype.kind in "iub":
        return 0.0 if np.array_equal(output, expected) else None
    difference = np.abs(output.astype(np.float64) - expected.astype(np.float64)).max(initial=0)
    return float(difference / (np.abs(expected.astype(np.float64)).max(initial=0) or 1.0))


def _message(error: BaseException) -> str:
    # torch's exporter raises advice in many lines from the cause.
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"[:300]


def by_ptychonnx(case: Case, native: NativeModule, batch: int | None, path: Path) -> None:
    """Export as `ptychonnx export-module` does; verification is left to `judge`, as for the others."""
    from ptychonnx.export.passes import clean

    native = native if batch is None else native_of(case, batch)
    onnx.save(clean(native.convert(DEFAULT_OPSET).model).model, path)


def by_torch(case: Case, native: Any, batch: int | None, path: Path) -> None:
    """Export by torch's exporter, the one that is based on `torch.export`."""
    import torch

    from ptychonnx.export.lowering.torch.convert import dynamic_batch

    module, example = _flat_torch(native)
    shared = [described.shared for described in native.inputs.values()]
    shapes = None if batch else dynamic_batch(module, len(example), shared)
    program = torch.onnx.export(
        module, example, dynamic_shapes=shapes, dynamo=True, external_data=False, verbose=False
    )
    program.save(path)


def _flat_torch(native: Any) -> tuple[Any, tuple]:
    """The module, wrapped if it has complex or nested inputs or outputs, and tensors for it."""
    import torch

    example = tuple(torch.from_numpy(array) for array in values(native, BATCH))
    is_flat = native._arguments.is_plain and not any(output.complex_values for output in native.outputs)
    module = native._module if is_flat else native._real
    return module.requires_grad_(False), example


def by_tf2onnx(case: Case, native: Any, batch: int | None, path: Path) -> None:
    """Export by tf2onnx."""
    import tf2onnx

    function, signature = _keras_function(native, batch)
    model, _ = tf2onnx.convert.from_function(function, input_signature=signature, opset=18)
    onnx.save(model, path)


def _keras_function(native: Any, batch: int | None) -> tuple[Any, list]:
    import tensorflow as tf

    signature = [
        tf.TensorSpec([batch, *one.real_shape], one.dtype, name=name) for name, one in native.inputs.items()
    ]
    names = [output.name for output in native.outputs]

    @tf.function(input_signature=signature)
    def named(*arguments: Any) -> dict[str, Any]:
        return dict(zip(names, native._flat(*arguments), strict=True))

    return named, signature


def by_openvino(case: Case, native: Any, batch: int | None, path: Path) -> None:
    """Convert by OpenVINO: what it traces itself first, and what `torch.export` traces second."""
    import openvino

    if native.framework == "tensorflow":
        model = openvino.convert_model(_keras_function(native, batch)[0])
    else:
        import torch

        module, example = _flat_torch(native)
        try:
            model = openvino.convert_model(module, example_input=example)
        except Exception:
            model = openvino.convert_model(torch.export.export(module, example))
    openvino.save_model(model, path, compress_to_fp16=False)


def by_iree(case: Case, native: Any, batch: int | None, path: Path) -> None:
    """Compile the file of torch's exporter for this processor."""
    source = path.with_name(f"{case.name}.torch.onnx")
    if not source.exists():
        raise FileNotFoundError("torch's exporter writes no file, which IREE takes")
    compiled_by_iree(source, path)


def compiled_by_iree(source: Path, path: Path) -> None:
    """Import an ONNX file into IREE, as `iree-import-onnx` does, and compile it."""
    from iree.compiler import tools

    imported = path.with_suffix(".mlir")
    importer = [sys.executable, "-m", "iree.compiler.tools.import_onnx", str(source), "-o", str(imported)]
    result = subprocess.run(importer, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr.strip().rpartition("\n")[2])
    tools.compile_file(
        str(imported),
        output_file=str(path),
        target_backends=["llvm-cpu"],
        input_type="onnx",
        extra_args=["--iree-llvmcpu-target-cpu=host"],
    )


def has_iree() -> bool:
    """Whether IREE's compiler is installed (`iree-base-compiler` and `iree-base-runtime`)."""
    return importlib.util.find_spec("iree") is not None


def slimmed(source: Path, path: Path) -> None:
    """What onnxslim makes of a file."""
    import onnxslim

    onnx.save(onnxslim.slim(onnx.load(source)), path)


EXPORTERS: dict[str, tuple[Callable, str, Callable[[Path], Run]]] = {
    "ptychonnx": (by_ptychonnx, "onnx", open_onnx),
    "torch": (by_torch, "onnx", open_onnx),
    "tf2onnx": (by_tf2onnx, "onnx", open_onnx),
    "openvino": (by_openvino, "xml", open_openvino),
    "iree": (by_iree, "vmfb", open_iree),
}
OPENERS = {".onnx": open_onnx, ".xml": open_openvino, ".vmfb": open_iree}

JOBS = {
    "torch": ("ptychonnx", "torch", "openvino", *(["iree"] if has_iree() else []), "time"),
    "tensorflow": ("ptychonnx", "tf2onnx", "openvino", "time"),
}


def export(exporter: str, case: Case, folder: Path) -> Iterator[dict[str, Any]]:
    """Export one module, and once more through onnxslim if the exporter is not ours."""
    by, suffix, opener = EXPORTERS[exporter]
    path = folder / f"{case.name}.{exporter}.{suffix}"
    record = {"case": case.name, "exporter": exporter} | _first_right(by, case, path, opener)
    yield record | _described(path)
    if exporter in ("torch", "tf2onnx") and path.exists():
        slim = folder / f"{case.name}.{exporter}_onnxslim.{suffix}"
        record = {"case": case.name, "exporter": f"{exporter}_onnxslim"}
        try:
            slimmed(path, slim)
            record |= judge(slim, native_of(case), case.tolerance, opener)
        except Exception as error:  # whatever it raises
            record |= {"status": "no export", "message": _message(error)}
        yield record | _described(slim)
    if exporter == "ptychonnx" and path.exists():
        # The same file in OpenVINO, next to what its own converter writes.
        record = {"case": case.name, "exporter": "ptychonnx_openvino"}
        yield record | judge(path, native_of(case), case.tolerance, open_openvino)
    if exporter == "ptychonnx" and path.exists() and native_of(case).framework == "torch" and has_iree():
        compiled = folder / f"{case.name}.ptychonnx_iree.vmfb"
        record = {"case": case.name, "exporter": "ptychonnx_iree"}
        try:
            compiled_by_iree(path, compiled)
            yield record | judge(compiled, native_of(case), case.tolerance, open_iree)
        except Exception as error:  # whatever it raises
            yield record | {"status": "no export", "message": _message(error)}


def _first_right(by: Callable, case: Case, path: Path, opener: Callable) -> dict[str, Any]:
    """With a dynamic batch, or a fixed one if that fails."""
    record: dict[str, Any] = {}
    # OpenVINO's converter takes no batch, and IREE takes torch's file.
    for batch in (None, BATCH) if by not in (by_openvino, by_iree) else (None,):
        path.unlink(missing_ok=True)
        start = time.perf_counter()
        try:
            native = native_of(case)
            by(case, native, batch, path)
        except Exception as error:  # exporters raise a dozen types of their own
            record = {"status": "no export", "message": _message(error)}
        else:
            record = judge(path, native_of(case), case.tolerance, opener)
        record["export_seconds"] = round(time.perf_counter() - start, 1)
        if record["status"] in ("right", "fixed batch"):
            return record
    return record


def _described(path: Path) -> dict[str, Any]:
    """Number of nodes, of Fourier operators among them, and size."""
    if not path.exists() or path.suffix != ".onnx":
        return {}
    nodes = Counter(node.op_type for node in onnx.load(path).graph.node)
    return {"nodes": nodes.total(), "dft": nodes["DFT"] + nodes["STFT"], "bytes": path.stat().st_size}


def timed(case: Case, folder: Path) -> dict[str, Any]:
    """Median time of a run of every file of a module and of the module itself, all in turn, in milliseconds."""
    native = native_of(case)
    arrays = values(native, BATCH)
    feed = dict(zip(native.inputs, arrays, strict=True))
    runs: dict[str, Callable[[], Any]] = {"native": lambda: native.predict(*arrays)}
    for path in sorted(folder.glob(f"{case.name}.*")):
        exporter = path.name.split(".")[1]
        if path.suffix not in OPENERS:
            continue
        openers = {"": OPENERS[path.suffix]}
        if exporter == "ptychonnx":
            openers["_openvino"] = open_openvino
        for suffix, opener in openers.items():
            with contextlib.suppress(Exception):  # what does not run has no time
                run = opener(path)
                run(feed)
                runs[exporter + suffix] = lambda run=run: run(feed)
    return {"case": case.name, "milliseconds": median_milliseconds(runs)}


def main() -> None:
    # Exporters write to standard output, which must hold only the answers.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    framework, folder = sys.argv[1], Path(sys.argv[2])
    if framework == "torch":
        import torch

        torch.set_num_threads(1)

    def say(record: dict[str, Any]) -> None:
        channel.write(json.dumps(record) + "\n")
        channel.flush()

    for name, case in cases_of(framework).items():
        for job in JOBS[framework]:
            say({"offer": name, "job": job, "about": case.about, "framework": framework})
            if sys.stdin.readline().strip() != "yes":
                continue
            for record in [timed(case, folder)] if job == "time" else export(job, case, folder):
                say(record)
    say({"end": True})


if __name__ == "__main__":
    main()
