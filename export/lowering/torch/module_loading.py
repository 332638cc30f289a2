"""A torch module from a Python file: ``FILE.py:build``."""

from __future__ import annotations

import importlib.util
import pickle
import sys
from pathlib import Path
from typing import Any

import torch
from neuralop.layers.spectral_convolution import SpectralConv
from torch import nn

from ptychonnx.runtime.errors import InputError

__all__ = ["load_module", "load_weights"]


def load_module(source: str) -> nn.Module:
    """Run a Python file and build the module that it defines.

    Parameters
    ----------
    source
        ``FILE.py:NAME``. NAME is a function without arguments that gives a module, or a module itself. The file
        is run: it must be one's own. It may import what lies beside it.

    Raises
    ------
    InputError
        If there is no such file or name, the file fails, or what it gives is no module.
    """
    file, colon, name = source.rpartition(":")
    if not colon or not file or not name.isidentifier():
        raise InputError(f"{source}: expected FILE.py:NAME, such as net.py:build")
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected Python code that defines {name!r}")
    found = getattr(_run(path), name, None)
    if found is None:
        raise InputError(f"{path}: defines no {name!r}, expected a function that gives a torch module")
    if not isinstance(found, nn.Module) and callable(found):
        found = _guarded(found, f"{source}()")
    if not isinstance(found, nn.Module):
        raise InputError(f"{source}: gives {type(found).__name__}, expected a torch.nn.Module")
    return found


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
        If the file cannot be read, or its tensors are not those of the module.
    """
    try:
        # Functions and classes to which neuraloperator's models refer in the settings beside their tensors.
        with torch.serialization.safe_globals([nn.functional.gelu, SpectralConv]):
            state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, expected a state dictionary") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(
            f"{path}: no state dictionary without other objects ({_first_line(error)})"
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
    # Classes look their module up by name.
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
        raise InputError(f"{where} raised {type(error).__name__}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
