"""State dictionaries as trainers write them, loaded into a module."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from neuralop.layers.spectral_convolution import SpectralConv
from torch import Tensor, nn

from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.paths import check_file

__all__ = ["load_weights"]

# What trainers and compilers put before the names of weights, with others next to them.
_PREFIXES = ("module.", "_orig_mod.", "model.", "network.", "net.")
# Counts of batches have no effect after training, and older files lack them.
_OPTIONAL = "num_batches_tracked"
# How many names an error lists.
_SHOWN = 5


@dataclass(frozen=True)
class _State:
    """A dictionary of tensors in a file, by their names without a prefix."""

    place: str  # keys that lead to it, with dots; empty for the file itself
    prefix: str
    tensors: Mapping[str, Tensor]
    others: tuple[str, ...] = ()  # names in the same dictionary that do not have the prefix

    def __str__(self) -> str:
        words = [f"the dictionary {self.place!r}"] * bool(self.place)
        words += [f"without the prefix {self.prefix!r}"] * bool(self.prefix)
        if self.others:
            words.append(f"and without {_shown(self.others)}, which do not have it")
        return " ".join(words)


def load_weights(module: nn.Module, path: Path, key: str | None = None) -> list[str]:
    """Load a state dictionary into a module; nothing in the file is executed.

    The file is written by `torch.save`, or one of safetensors. The state dictionary may lie inside other dictionaries,
    such as those of Lightning and of training loops, and its names may have a common prefix, such as ``module.``. `key`
    is the dictionary to take, where several fit, such as ``ema``; keys inside each other with dots.

    Returns where in the file the weights were and which prefix was removed, in words; empty for a plain dictionary.

    Raises InputError if the file cannot be read, or no dictionary in it, or more than one, fits the module.
    """
    path = Path(path)
    content = _read(path)
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds {type(content).__name__}, expected a state dictionary")
    expected = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    states = [
        state for place, tensors in _dictionaries(content) for state in _without_prefixes(place, tensors)
    ]
    if not states:
        raise InputError(f"{path}: holds no tensors by name, expected a state dictionary")
    fitting = [state for state in states if not _misfit(expected, state.tensors)]
    if not fitting:
        closest = min(states, key=lambda state: len(_misfit(expected, state.tensors)))
        where = f" (the closest is {closest})" if str(closest) else ""
        raise InputError(
            f"{path}: not the weights of this module: {_shown(_misfit(expected, closest.tensors))}{where}"
        )
    if key is not None:
        places = sorted({state.place for state in fitting})
        fitting = [state for state in fitting if state.place == key]
        if not fitting:
            raise InputError(f"{path}: no weights of this module under {key!r}, expected one of {places}")
    places = list(dict.fromkeys(state.place for state in fitting))
    if len(places) > 1:
        named = " and ".join(repr(place or "the whole file") for place in places)
        raise InputError(f"{path}: {named} all fit this module; --weights-key names one")
    _load(module, fitting[0].tensors, expected, path)
    return [f"weights: {fitting[0]}"] if str(fitting[0]) else []


def _load(module: nn.Module, state: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> None:
    values = {name: _as_expected(state[name], tensor) for name, tensor in expected.items() if name in state}
    try:
        missing = module.load_state_dict(values, strict=False).missing_keys
    except Exception as error:  # modules may have a loading of their own
        raise InputError(f"{path}: cannot be loaded: {first_line(error)}") from error
    if missing := [
        f"{name} is missing" for name in missing if name in expected and not name.endswith(_OPTIONAL)
    ]:
        raise InputError(f"{path}: not the weights of this module: {_shown(missing)}")


def _read(path: Path) -> Any:
    check_file(path, "a state dictionary")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        # Functions and classes in the settings that neuraloperator stores with the tensors of its models.
        with torch.serialization.safe_globals([nn.functional.gelu, SpectralConv]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise a dozen different types
        reason = first_line(error)
        if isinstance(error, pickle.UnpicklingError):
            reason = "it holds objects whose code would have to be run; save module.state_dict() instead"
        elif "TorchScript" in reason:
            reason = "it is a TorchScript; save its state_dict() instead"
        elif reason.isdigit():  # a byte that no pickle begins with
            reason = "it was not written by torch.save"
        raise InputError(f"{path}: not a state dictionary that holds tensors only ({reason})") from error


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise InputError(f"{path}: safetensors is not installed: pip install safetensors") from error
    try:
        return load_file(path)
    except Exception as error:  # the library raises types of its own
        raise InputError(f"{path}: not a file of safetensors ({first_line(error)})") from error


def _dictionaries(content: Mapping[Any, Any], place: str = "") -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Every dictionary that holds tensors by name, with the keys that lead to it."""
    tensors = {
        name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)
    }
    if tensors:
        yield place, tensors
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _dictionaries(value, f"{place}.{key}" if place else str(key))


def _without_prefixes(place: str, tensors: Mapping[str, Tensor]) -> Iterator[_State]:
    """The dictionary as it is, and with each prefix removed that all its names have, one after the other."""
    removed = ""
    while True:
        yield _State(place, removed, tensors)
        prefix = "".join(next(iter(tensors)).partition(".")[:2])
        if not (
            prefix.endswith(".")
            and all(len(name) > len(prefix) and name.startswith(prefix) for name in tensors)
        ):
            break
        removed += prefix
        tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    # Lightning stores the weights of losses and metrics next to those of the model.
    for prefix in _PREFIXES:
        part = {
            name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)
        }
        if part:
            others = tuple(removed + name for name in tensors if not name.startswith(prefix))
            yield _State(place, removed + prefix, part, others)


def _misfit(expected: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """Faults of each weight, in words."""
    wrong = [f"{name} is missing" for name in expected if name not in state and not name.endswith(_OPTIONAL)]
    wrong += [f"{name} is unused" for name in state if name not in expected]
    for name, value in state.items():
        if name in expected and not _fits(value, expected[name]):
            wrong.append(f"{name} is {list(value.shape)}, expected {list(expected[name].shape)}")
    return wrong


def _fits(value: Tensor, expected: Tensor) -> bool:
    pairs = expected.is_complex() and not value.is_complex() and value.shape == (*expected.shape, 2)
    return pairs or (value.shape == expected.shape and (expected.is_complex() or not value.is_complex()))


def _as_expected(value: Tensor, expected: Tensor) -> Tensor:
    """Pairs of numbers, as safetensors store complex weights, become complex."""
    return torch.view_as_complex(value.contiguous()) if value.shape != expected.shape else value


def _shown(wrong: Sequence[str]) -> str:
    more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    return ", ".join(wrong[:_SHOWN]) + more
