"""Stands in for NVIDIA's onnxruntime backend where only Triton's Python backend is to be had.

It takes the same model repository, `config.pbtxt` with ``backend: "onnxruntime"`` and all, and opens the same
`model.onnx`, but it is not that backend: it runs on the CPU, and proves nothing about NVIDIA's code.
Runs inside Triton, in the environment of `tests/triton/requirements.txt`.
"""

import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """One instance of one version of a model."""

    @staticmethod
    def auto_complete_config(auto_complete_model_config):
        """Nothing is completed: the configuration has to be whole, as under `--disable-auto-complete-config`."""
        return auto_complete_model_config

    def initialize(self, args):
        """Open the file; what cannot be opened raises, and Triton does not load the version."""
        config = json.loads(args["model_config"])
        name = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / name
        options = ort.SessionOptions()
        options.log_severity_level = 3
        threads = config.get("parameters", {}).get("intra_op_thread_count", {}).get("string_value")
        if threads is not None:
            options.intra_op_num_threads = int(threads)
        self._session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self._inputs = [value["name"] for value in config["input"]]
        self._outputs = [value["name"] for value in config["output"]]

    def execute(self, requests):
        """Run the requests that the dynamic batcher put together as one batch."""
        sizes, columns = [], {name: [] for name in self._inputs}
        for request in requests:
            for name in self._inputs:
                columns[name].append(pb_utils.get_input_tensor_by_name(request, name).as_numpy())
            sizes.append(len(columns[self._inputs[0]][-1]))
        feed = {name: np.concatenate(parts) for name, parts in columns.items()}
        found = self._session.run(self._outputs, feed)
        ends = np.cumsum(sizes)[:-1]
        parts = zip(*(np.split(values, ends) for values in found), strict=True)
        return [
            pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, part) for name, part in zip(self._outputs, each, strict=True)]
            )
            for each in parts
        ]
