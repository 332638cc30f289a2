"""Arguments of a module's `forward`: positions, keywords, dictionaries and classes from a flat list of tensors."""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ptychonnx.export.lowering.module_input import ModuleInput, leaves, replace_leaves, unique_names
from ptychonnx.runtime.errors import InputError, first_line

__all__ = ["Arguments", "bind_arguments", "tensors_in"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Arguments:
    """How a module is called, with a `ModuleInput` in the place of each tensor.

    Anything in the arguments that is neither an input nor a container is passed as it is. All `inputs` are by their
    names in the graph, in the order of the graph.
    """

    positional: tuple[Any, ...]
    keywords: Mapping[str, Any]
    inputs: Mapping[str, ModuleInput]

    @property
    def is_plain(self) -> bool:
        """Whether the module is called with real tensors by position."""
        return not self.keywords and all(
            isinstance(argument, ModuleInput) and not argument.complex_values for argument in self.positional
        )

    def call(self, module: nn.Module, tensors: Sequence[Tensor]) -> Any:
        """Output of the module for all tensors of the graph."""
        positional, keywords = self.filled(tensors)
        return module(*positional, **keywords)

    def filled(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with a tensor in the place of each input; pairs become complex numbers."""
        remaining = iter(tensors)

        def tensor(value: Any) -> Any:
            if not isinstance(value, ModuleInput):
                return value
            filled = next(remaining)
            return torch.view_as_complex(filled) if value.complex_values else filled

        return replace_leaves((self.positional, dict(self.keywords)), _is_input, tensor)


def bind_arguments(
    module: nn.Module,
    inputs: Sequence[Any],
    keywords: Mapping[str, Any] | None = None,
    shared: Collection[str] = (),
) -> Arguments:
    """Give every input its argument of `forward`, and its name.

    Positional arguments have a `ModuleInput` in the place of each tensor; one with a name is a keyword argument, or a
    part of one. `shared` names inputs without a batch axis, in addition to those that say so themselves.

    Raises InputError if `forward` has no such arguments.
    """
    named = [value for value in inputs if isinstance(value, ModuleInput) and value.name is not None]
    positional = tuple(value for value in inputs if value not in named)
    by_name = {**_nested(module, named), **(keywords or {})}
    names = _positional_names(module, len(positional), by_name)
    found = [
        ((name, *path), leaf)
        for name, argument in (*zip(names, positional, strict=True), *by_name.items())
        for path, leaf in leaves(argument, _is_input)
        if isinstance(leaf, ModuleInput)
    ]
    if not found:
        raise InputError("the module gets no tensor, expected at least one input")
    paths, inputs = zip(*found, strict=True)
    by_graph_name = dict(zip(unique_names(list(paths)), inputs, strict=True))
    if unknown := [name for name in shared if name not in by_graph_name]:
        raise InputError(f"shared: no input {unknown[0]!r}, expected some of {', '.join(by_graph_name)}")
    described = {name: one.without_batch() if name in shared else one for name, one in by_graph_name.items()}
    return Arguments(positional, by_name, described)


def _is_input(value: Any) -> bool:
    return isinstance(value, ModuleInput)


def _positional_names(module: nn.Module, count: int, keywords: Mapping[str, Any]) -> list[str]:
    """Names of the first `count` arguments of `forward`."""
    parameters = list(inspect.signature(module.forward).parameters.values())
    kinds = {parameter.kind for parameter in parameters}
    known = [parameter.name for parameter in parameters]
    if inspect.Parameter.VAR_KEYWORD not in kinds and (
        unknown := [key for key in keywords if key not in known]
    ):
        raise InputError(f"the module takes {', '.join(known) or 'no argument'}, got {', '.join(unknown)}")
    names = [parameter.name for parameter in parameters if parameter.kind in _POSITIONAL][:count]
    if repeated := [name for name in names if name in keywords]:
        raise InputError(
            f"argument {repeated[0]!r} of the module is given by name and by position, expected names for all inputs "
            "from there on"
        )
    if len(names) < count:
        if inspect.Parameter.VAR_POSITIONAL not in kinds:
            raise InputError(f"the module takes {len(names)} inputs, got {count} shapes")
        names += [f"input_{index}" for index in range(len(names), count)]
    required = [
        parameter.name
        for parameter in parameters
        if parameter.default is inspect.Parameter.empty
        and parameter.kind in (*_POSITIONAL, inspect.Parameter.KEYWORD_ONLY)
        and parameter.name not in (*names, *keywords)
    ]
    if required:
        raise InputError(f"the module also takes {', '.join(required)}, expected an input for each")
    return names


def _nested(module: nn.Module, inputs: Sequence[ModuleInput]) -> dict[str, Any]:
    """Keyword arguments from names with dots: dictionaries, lists for numbers, or the class of the annotation."""
    tree: dict[str, Any] = {}
    for one in inputs:
        *folders, last = str(one.name).split(".")
        node = tree
        for key in folders:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                raise InputError(f"input {one.name!r} lies inside another input, expected separate names")
        if last in node:
            raise InputError(f"input {one.name!r} is given twice, expected it once")
        node[last] = one
    if not any(isinstance(value, dict) for value in tree.values()):
        return tree
    try:
        hints = typing.get_type_hints(module.forward)
    except Exception:  # an annotation may name anything
        hints = {}
    return {key: _container(value, hints.get(key), key) for key, value in tree.items()}


def _container(value: Any, kind: Any, name: str) -> Any:
    if not isinstance(value, dict):
        return value
    members = {key: _container(child, None, f"{name}.{key}") for key, child in value.items()}
    if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")):
        try:
            return kind(**members)
        except Exception as error:  # whatever the author's class raises
            raise InputError(f"input {name}: {kind.__name__} refuses it: {first_line(error)}") from error
    if all(key.isdigit() for key in members):
        return [members[key] for key in sorted(members, key=int)]
    return members


def tensors_in(tree: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments."""
    for _, leaf in leaves(tree, lambda value: isinstance(value, Tensor)):
        if isinstance(leaf, Tensor):
            yield leaf
