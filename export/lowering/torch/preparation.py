"""A module as it is exported: a copy in evaluation mode, without wrappers and with weights that are computed once."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from ptychonnx.runtime.errors import InputError, UnsupportedError, first_line

__all__ = ["prepare"]

# Layers that compute something else in training.
_SWITCHED = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)


def prepare(module: nn.Module) -> tuple[nn.Module, list[str]]:
    """A copy on the CPU in evaluation mode, and what was changed in it, in words.

    * A compiled or a data-parallel module is taken out of its wrapper.
    * Parametrized weights, such as those of weight norm and spectral norm, are replaced by their values.

    Raises UnsupportedError if the module is a TorchScript, or has weights of a type that no engine computes in. Raises
    InputError if it has weights without values, or cannot be copied.
    """
    notes = []
    module = _unwrapped(module)
    _refuse_unusable(module)
    if layers := [
        name for name, layer in module.named_modules() if layer.training and isinstance(layer, _SWITCHED)
    ]:
        notes.append(f"exported in evaluation mode, although {layers[0] or 'the module'} is in training mode")
    copied = _copied(module).eval().cpu()
    if baked := [name for name, layer in copied.named_modules() if _bake(layer)]:
        named = ", ".join(name or "the module" for name in baked[:3]) + ", ..." * (len(baked) > 3)
        notes.append(f"parametrized weights replaced by their values: {named}")
    if batchwise := [name for name, layer in copied.named_modules() if _uses_batch_statistics(layer)]:
        notes.append(
            f"{batchwise[0] or 'the module'} has no running statistics: every output depends on the whole batch"
        )
    return copied.requires_grad_(False), notes


def _unwrapped(module: nn.Module) -> nn.Module:
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner  # of torch.compile
        else:
            return module


def _refuse_unusable(module: nn.Module) -> None:
    for name, layer in module.named_modules():
        if isinstance(layer, torch.jit.ScriptModule):
            raise UnsupportedError(
                f"layer {name or '(the module itself)'}: is a TorchScript, which torch exports no longer; expected the "
                "nn.Module that it was made from, with its state dictionary as weights"
            )
    for name, value in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(value):
            raise InputError(
                f"weight {name}: has no value before the first run of a lazy layer, expected values"
            )
        if value.is_meta:
            raise InputError(f"weight {name}: is on the meta device, expected values")
        if value.dtype == torch.bfloat16:
            raise UnsupportedError(
                f"weight {name}: is bfloat16, expected float32; call .float() on the module first"
            )


def _copied(module: nn.Module) -> nn.Module:
    # Weight norm stores results of computations, which torch refuses to copy.
    computed = {
        id(value): value.detach().clone()
        for layer in module.modules()
        for value in vars(layer).values()
        if isinstance(value, Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(module, computed)
    except Exception as error:  # whatever the author's classes raise
        raise InputError(f"the module cannot be copied: {first_line(error)}") from error


def _bake(layer: nn.Module) -> bool:
    """Replace parametrized weights of one layer by their values; whether there were any."""
    values = {}
    if parametrize.is_parametrized(layer):
        with torch.no_grad():
            values = {name: getattr(layer, name).detach().clone() for name in layer.parametrizations}  # type: ignore[union-attr]
        # The class is that of the original module too, from which torch would take the weight.
        layer.__class__ = type(layer).__bases__[0]
        del layer._modules["parametrizations"]
    hooks = [
        (key, hook)
        for key, hook in layer._forward_pre_hooks.items()
        # The older weight norm and spectral norm are hooks.
        if type(hook).__module__ in ("torch.nn.utils.weight_norm", "torch.nn.utils.spectral_norm")
    ]
    for name, value in values.items():
        layer.register_parameter(name, nn.Parameter(value, requires_grad=False))
    for key, hook in hooks:
        hook(layer, ())
        name = str(hook.name)  # type: ignore[attr-defined]
        value = getattr(layer, name).detach().clone()
        for suffix in ("_g", "_v", "_orig", "_u"):
            layer._parameters.pop(f"{name}{suffix}", None)
            layer._buffers.pop(f"{name}{suffix}", None)
        vars(layer).pop(name, None)
        layer.register_parameter(name, nn.Parameter(value, requires_grad=False))
        del layer._forward_pre_hooks[key]
    return bool(values or hooks)


def _uses_batch_statistics(layer: nn.Module) -> bool:
    # Instance norm has the same attribute and works on single elements.
    is_batch_norm = isinstance(layer, nn.modules.batchnorm._BatchNorm)
    return is_batch_norm and not layer.track_running_stats
