"""`config.pbtxt` of a Triton model, built as the protobuf message that Triton parses."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from google.protobuf import text_format

from ptychonnx.export.deploy.deploy_options import DeployOptions
from ptychonnx.export.deploy.interface import TYPES, Interface, ServedTensor
from ptychonnx.export.deploy.stamped import Stamped
from ptychonnx.export.deploy.versions import MODEL_FILE
from ptychonnx.runtime.errors import InputError, InternalError, UnsupportedError

__all__ = ["config_text", "model_config", "parse_config", "warmup_file"]

# A network that was verified in float32 must not run in 16 bits.
_TENSORRT_PRECISION = {"fp32": "FP32", "fp16": "FP16"}


def warmup_file(name: str) -> str:
    """File with the reference values of an input."""
    return f"reference_{name}.bin"


def config_text(name: str, contracts: Mapping[int, Stamped], options: DeployOptions) -> str:
    """The text of `config.pbtxt`, after reading it back.

    Raises InputError if tritonclient is not installed, or the options do not fit the artifact. Raises InternalError if
    the text does not read back as it was written.
    """
    message = model_config(name, contracts, options)
    text = text_format.MessageToString(message)
    if parse_config(text) != message:
        raise InternalError(f"{name}: config.pbtxt does not read back as it was written")
    return text


def parse_config(text: str) -> Any:
    """Parse a text to the message `inference.ModelConfig`.

    Raises InputError if the text is not a Triton model configuration.
    """
    try:
        return text_format.Parse(text, _package().ModelConfig())
    except text_format.ParseError as error:
        raise InputError(f"config.pbtxt is not a Triton model configuration: {error}") from error


def model_config(name: str, contracts: Mapping[int, Stamped], options: DeployOptions) -> Any:
    """The message `inference.ModelConfig` for a model.

    `contracts`: those of the versions that answer requests, by number, the newest last. They share one interface.
    """
    package = _package()
    newest = list(contracts)[-1]
    stamped = contracts[newest]
    interface = stamped.interface
    dynamic = interface.is_dynamic
    config = package.ModelConfig(
        name=name,
        backend="onnxruntime",
        default_model_filename=MODEL_FILE,
        # With a maximal batch, dimensions exclude the batch; with a fixed batch, they include it.
        max_batch_size=options.max_batch if dynamic else 0,
    )
    # Listed explicitly, versions change together with everything else in this file: see decision 8.
    config.version_policy.specific.versions.extend(contracts)
    for entries, tensors in ((config.input, interface.inputs), (config.output, interface.outputs)):
        for tensor in tensors:
            _declare(entries, tensor, interface)
    if dynamic:
        config.dynamic_batching.preferred_batch_size.extend(sorted(set(options.preferred_batch)))
        config.dynamic_batching.max_queue_delay_microseconds = options.queue_delay
    kind = "KIND_GPU" if options.device == "gpu" else "KIND_CPU"
    config.instance_group.add(kind=kind, count=options.instances)
    if options.accelerator is not None:
        _accelerate(config, name, stamped, options)
    if options.threads is not None:
        config.parameters["intra_op_thread_count"].string_value = str(options.threads)
    _publish(config, contracts)
    for size in sorted({1, options.max_batch}) if dynamic else [1]:
        _warm_up(config, size, stamped)
    return config


def _publish(config: Any, contracts: Mapping[int, Stamped]) -> None:
    """Add contracts as parameters, which clients read with the model configuration.

    ``ptychonnx.contract`` is that of the newest version; with several versions, ``ptychonnx.contract.<number>`` is that
    of each.
    """
    *_, newest = contracts.values()
    config.parameters[newest.key].string_value = newest.text
    if len(contracts) > 1:
        for number, stamped in contracts.items():
            config.parameters[f"{stamped.key}.{number}"].string_value = stamped.text


def _declare(entries: Any, tensor: ServedTensor, interface: Interface) -> None:
    """Add an input or output. With a maximal batch, dimensions exclude the batch; otherwise they are complete."""
    dims = tensor.shape if interface.is_dynamic else interface.full_shape(tensor)
    entry = entries.add(name=tensor.name, data_type=f"TYPE_{TYPES[tensor.dtype]}", dims=dims or (1,))
    if not dims:
        # Triton knows no tensor without axes: clients send [batch, 1], and the network gets [batch].
        entry.reshape.SetInParent()


def _warm_up(config: Any, size: int, stamped: Stamped) -> None:
    """Add one run of the reference input; Triton batches `size` requests with one element each."""
    warmup = config.model_warmup.add(name=f"reference_{size}", batch_size=size)
    for tensor, array in zip(config.input, stamped.reference, strict=True):
        entry = warmup.inputs[tensor.name]
        entry.data_type = tensor.data_type
        entry.dims.extend(tensor.dims if -1 not in tensor.dims else array.shape)
        entry.input_data_file = warmup_file(tensor.name)


def _accelerate(config: Any, name: str, stamped: Stamped, options: DeployOptions) -> None:
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(
        name=options.accelerator
    )
    precision = stamped.precision
    if options.accelerator == "cuda":
        if precision == "fp32":
            # TF32 is on by default and keeps 10 bits of each factor; parity was measured without it.
            accelerator.parameters["use_tf32"] = "0"
        return
    if precision not in _TENSORRT_PRECISION:
        raise UnsupportedError(
            f"{name}: TensorRT does not support 8-bit activations with an offset, expected a float32 or fp16 "
            "artifact, or --accelerator cuda"
        )
    accelerator.parameters["precision_mode"] = _TENSORRT_PRECISION[precision]
    if stamped.interface.is_dynamic:
        best = max(options.preferred_batch, default=options.max_batch)
        for which, size in (("min", 1), ("opt", best), ("max", options.max_batch)):
            shapes = (
                f"{tensor.name}:{'x'.join(map(str, (size, *tensor.shape)))}"
                for tensor in stamped.interface.inputs
            )
            accelerator.parameters[f"trt_profile_{which}_shapes"] = ",".join(shapes)
    if options.engine_cache is not None:
        accelerator.parameters["trt_engine_cache_enable"] = "1"
        accelerator.parameters["trt_engine_cache_path"] = _cache(options.engine_cache, name, stamped)


def _cache(folder: str, name: str, stamped: Stamped) -> str:
    """A separate folder for each graph: onnxruntime identifies engines by names in the graph, not by its weights."""
    if stamped.graph_sha256 is None:
        raise InputError(f"{name}: its contract has no hash of the graph, which --engine-cache needs")
    return f"{folder.rstrip('/')}/{name}/{stamped.graph_sha256[:16]}"


def _package() -> ModuleType:
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise InputError(
            f"deploying to Triton needs tritonclient and grpcio ({error}): pip install 'ptychonnx[serve]'"
        ) from error
    return model_config_pb2
