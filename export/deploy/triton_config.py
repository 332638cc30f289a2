"""`config.pbtxt` of a Triton model, built as the protobuf message that Triton parses."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from google.protobuf import text_format

from ptychonnx.export.deploy.deploy_options import DeployOptions
from ptychonnx.export.deploy.deployable import Interface, StampedContract
from ptychonnx.export.deploy.versions import MODEL_FILE
from ptychonnx.runtime.contract import CONTRACT_KEY, Contract
from ptychonnx.runtime.errors import InputError, InternalError, UnsupportedError

__all__ = ["config_text", "model_config", "parse_config", "warmup_file"]

_TYPES = {"float32": "TYPE_FP32", "uint16": "TYPE_UINT16"}
# A network that was verified in float32 must not run in 16 bits.
_TENSORRT_PRECISION = {"fp32": "FP32", "fp16": "FP16"}


def warmup_file(name: str) -> str:
    """File with the reference values of an input."""
    return f"reference_{name}.bin"


def config_text(name: str, contracts: Mapping[int, StampedContract], options: DeployOptions) -> str:
    """The text of `config.pbtxt`, after reading it back.

    Raises
    ------
    InputError
        If tritonclient is not installed, or the options do not fit the artifact.
    InternalError
        If the text does not read back as it was written.
    """
    message = model_config(name, contracts, options)
    text = text_format.MessageToString(message)
    if parse_config(text) != message:
        raise InternalError(f"{name}: config.pbtxt does not read back as it was written")
    return text


def parse_config(text: str) -> Any:
    """Parse a text to the message `inference.ModelConfig`.

    Raises
    ------
    InputError
        If the text is not a Triton model configuration.
    """
    try:
        return text_format.Parse(text, _package().ModelConfig())
    except text_format.ParseError as error:
        raise InputError(f"config.pbtxt is not a Triton model configuration: {error}") from error


def model_config(name: str, contracts: Mapping[int, StampedContract], options: DeployOptions) -> Any:
    """The message `inference.ModelConfig` for a model.

    Parameters
    ----------
    contracts
        Of the versions that answer requests, by number, the newest last. They share one interface.
    """
    package = _package()
    newest = list(contracts)[-1]
    contract = contracts[newest].contract
    interface = Interface.of(contract)
    dynamic = interface.batch is None
    batch = () if interface.batch is None else (interface.batch,)
    config = package.ModelConfig(
        name=name,
        backend="onnxruntime",
        default_model_filename=MODEL_FILE,
        # With a maximal batch, dimensions exclude the batch; with a fixed batch, they include it.
        max_batch_size=options.max_batch if dynamic else 0,
    )
    # Listed explicitly, versions change together with everything else in this file: see decision 8.
    config.version_policy.specific.versions.extend(contracts)
    for tensor in interface.inputs:
        config.input.add(name=tensor.name, data_type=_TYPES[tensor.dtype], dims=(*batch, *tensor.shape))
    config.output.add(
        name=interface.output_name, data_type="TYPE_FP32", dims=(*batch, *interface.output_shape)
    )
    if dynamic:
        config.dynamic_batching.preferred_batch_size.extend(sorted(set(options.preferred_batch)))
        config.dynamic_batching.max_queue_delay_microseconds = options.queue_delay
    kind = "KIND_GPU" if options.device == "gpu" else "KIND_CPU"
    config.instance_group.add(kind=kind, count=options.instances)
    if options.accelerator is not None:
        _accelerate(config, name, contract, options)
    if options.threads is not None:
        config.parameters["intra_op_thread_count"].string_value = str(options.threads)
    _publish(config, contracts)
    for size in sorted({1, options.max_batch}) if dynamic else [1]:
        _warm_up(config, size)
    return config


def _publish(config: Any, contracts: Mapping[int, StampedContract]) -> None:
    """Add contracts as parameters, which clients read with the model configuration.

    ``ptychonnx.contract`` is that of the newest version; with several versions, ``ptychonnx.contract.<number>`` is that
    of each.
    """
    *_, newest = contracts.values()
    config.parameters[CONTRACT_KEY].string_value = newest.text
    if len(contracts) > 1:
        for number, stamped in contracts.items():
            config.parameters[f"{CONTRACT_KEY}.{number}"].string_value = stamped.text


def _warm_up(config: Any, size: int) -> None:
    """Add one run of the reference input; Triton batches `size` requests with one element each."""
    warmup = config.model_warmup.add(name=f"reference_{size}", batch_size=size)
    for tensor in config.input:
        entry = warmup.inputs[tensor.name]
        entry.data_type = tensor.data_type
        entry.dims.extend(tensor.dims)
        entry.input_data_file = warmup_file(tensor.name)


def _accelerate(config: Any, name: str, contract: Contract, options: DeployOptions) -> None:
    accelerator = config.optimization.execution_accelerators.gpu_execution_accelerator.add(
        name=options.accelerator
    )
    precision = contract.conversion.precision
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
    if contract.batch is None:
        best = max(options.preferred_batch, default=options.max_batch)
        for which, size in (("min", 1), ("opt", best), ("max", options.max_batch)):
            shapes = (
                f"{tensor.name}:{'x'.join(map(str, (size, *tensor.shape)))}" for tensor in contract.inputs
            )
            accelerator.parameters[f"trt_profile_{which}_shapes"] = ",".join(shapes)
    if options.engine_cache is not None:
        accelerator.parameters["trt_engine_cache_enable"] = "1"
        accelerator.parameters["trt_engine_cache_path"] = _cache(options.engine_cache, name, contract)


def _cache(folder: str, name: str, contract: Contract) -> str:
    """A separate folder for each graph: onnxruntime identifies engines by names in the graph, not by its weights."""
    if contract.graph_sha256 is None:
        raise InputError(f"{name}: its contract has no hash of the graph, which --engine-cache needs")
    return f"{folder.rstrip('/')}/{name}/{contract.graph_sha256[:16]}"


def _package() -> ModuleType:
    try:
        from tritonclient.grpc import model_config_pb2
    except ImportError as error:
        raise InputError(
            f"deploying to Triton needs tritonclient and grpcio ({error}): pip install 'ptychonnx[serve]'"
        ) from error
    return model_config_pb2
