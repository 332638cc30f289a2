"""Load a torch module from a Python file: ``FILE.py:build``."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from neuralop.layers.spectral_convolution import SpectralConv
from torch import nn

from ptychonnx.runtime.errors import InputError, first_line

__all__ = ["load_module", "load_weights"]


def load_module(source: str) -> nn.Module:
    """Run a Python file and build the module that it defines.

    Parameters
    ----------
    source
        ``FILE.py:NAME``. NAME is a function without arguments that returns a module, or a module itself. The file
        is run, so only use a file that you trust. It may import modules from its folder.

    Raises
    ------
    InputError
        If there is no such file or name, the file fails, or the result is not a module.
    """
    file, colon, name = source.rpartition(":")
    if not colon or not file or not name.isidentifier():
        raise InputError(f"{source}: expected FILE.py:NAME, such as net.py:build")
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected Python code that defines {name!r}")
    module = getattr(_run(path), name, None)
    if module is None:
        raise InputError(f"{path}: defines no {name!r}, expected a function that returns a torch module")
    if not isinstance(module, nn.Module) and callable(module):
        module = _guarded(module, f"{source}()")
    if not isinstance(module, nn.Module):
        raise InputError(f"{source}: is {type(module).__name__}, expected a torch.nn.Module")
    return module


def load_weights(module: nn.Module, path: Path) -> None:
    """Load a state dictionary into a module; nothing in the file is executed.

    Parameters
    ----------
    path
        Written by ``torch.save(module.state_dict(), path)``, or a checkpoint that holds such a dictionary under
        ``state_dict``.

    Raises
    ------
    InputError
        If the file cannot be read, or its tensors do not belong to the module.
    """
    try:
        # Functions and classes in the settings that neuraloperator stores with the tensors of its models.
        with torch.serialization.safe_globals([nn.functional.gelu, SpectralConv]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, expected a state dictionary") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{path}: not a state dictionary that holds tensors only ({first_line(error)})"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise InputError(f"{path}: holds {type(state).__name__}, expected a state dictionary")
    state = {name: value for name, value in state.items() if torch.is_tensor(value)}
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not the weights of this module ({reason[:300]})") from error


def _run(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    # Classes look up their module by name.
    previous = sys.modules.get(path.stem)
    sys.modules[path.stem] = module
    try:
        _guarded(lambda: spec.loader.exec_module(module), str(path))
    finally:
        sys.path.remove(folder)
        if previous is not None:
            sys.modules[path.stem] = previous
    return module


def _guarded(call: Any, where: str) -> Any:
    try:
        return call()
    except Exception as error:  # whatever the author's code raises
        raise InputError(f"{where} raised {type(error).__name__}: {first_line(error)}") from error
