"""Inputs and outputs of a module: name, shape and type of each tensor, and the containers that hold them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import UnsupportedError

__all__ = [
    "DTYPES",
    "PARTS",
    "ModuleInput",
    "ModuleOutput",
    "described_output",
    "leaves",
    "output_names",
    "output_tensors",
    "replace_leaves",
    "unique_names",
]

# Types that a graph can take; a complex input is a pair of `float32` or `float64`.
DTYPES = ("float32", "float64", "float16", "int64", "int32", "int16", "int8", "uint8", "uint16", "bool")
# The type of the parts of a complex type.
PARTS = {"complex64": "float32", "complex128": "float64"}

# Name of the output of a module that returns a tensor.
OUTPUT = "output"


@dataclass(frozen=True, eq=False)
class ModuleInput:
    """One input of a module.

    * `shape`: without the batch.
    * `complex_values`: the module takes complex numbers; the graph then takes `dtype` [batch, *shape, 2], real and
      imaginary part.
    * `dtype`: type in the graph, one of `DTYPES`.
    * `name`: argument of the module, with the keys of dictionaries after dots: ``x``, ``batch.x``. None takes the next
      positional argument.
    * `shared`: the input has no batch axis: all elements of a batch share it, such as a grid.
    * `bounds`: smallest and largest value of integers; None tries which values the module accepts.
    * `example`: values [batch, *shape, (2)] to verify on, or None.
    """

    shape: tuple[int, ...]
    complex_values: bool = False
    dtype: str = "float32"
    name: str | None = None
    shared: bool = False
    bounds: tuple[int, int] | None = None
    example: NDArray | None = None

    @property
    def real_shape(self) -> tuple[int, ...]:
        """Shape in the graph, without the batch."""
        return (*self.shape, 2) if self.complex_values else self.shape

    @property
    def is_integer(self) -> bool:
        """Whether values are drawn between `bounds`."""
        return np.dtype(self.dtype).kind in "iu"

    def without_batch(self) -> ModuleInput:
        """The same input, shared by all elements of a batch; the first axis of an example is one of its own."""
        if self.shared:
            return self
        shape = self.shape if self.example is None else (len(self.example), *self.shape)
        return dataclasses.replace(self, shape=shape, shared=True)

    def full_shape(self, batch: int) -> tuple[int, ...]:
        """Shape in the graph, with the batch if there is one."""
        return self.real_shape if self.shared else (batch, *self.real_shape)


@dataclass(frozen=True)
class ModuleOutput:
    """One output of a module, and its type in the graph, which has pairs for complex numbers."""

    name: str
    complex_values: bool
    dtype: str
    batched: bool  # whether its first axis is the batch


def described_output(name: str, dtype: str, batched: bool, inputs: Collection[str]) -> ModuleOutput:
    """An output of a type that a graph can have, under a name that no input has.

    Raises UnsupportedError if no graph can have the type.
    """
    real = PARTS.get(dtype, dtype)
    if real not in DTYPES:
        raise UnsupportedError(f"output {name!r} of the module is {dtype}, expected float32, for example")
    return ModuleOutput(f"{name}_out" if name in inputs else name, real != dtype, real, batched)


def output_names(paths: Sequence[tuple[Any, ...]]) -> list[str]:
    """`unique_names` of outputs, which are named after `OUTPUT` where they have no key."""
    return unique_names(
        [path if path and not isinstance(path[0], int) else (OUTPUT, *path) for path in paths]
    )


def output_tensors(
    output: Any, is_tensor: Callable[[Any], bool], owner: str
) -> list[tuple[tuple[Any, ...], Any]]:
    """All tensors that a module or model, the `owner`, returns, with their paths; None is left out.

    Raises UnsupportedError if it returns something else, or no tensor.
    """
    found = [(path, value) for path, value in leaves(output, is_tensor) if value is not None]
    if other := next((value for _, value in found if not is_tensor(value)), None):
        raise UnsupportedError(f"the {owner} returns {type(other).__name__}, expected tensors")
    if not found:
        raise UnsupportedError(f"the {owner} returns no tensor, expected at least one")
    return found


def _children(tree: Any) -> dict[Any, Any] | None:
    """Members of a container by key; None for anything else."""
    if isinstance(tree, Mapping):
        return dict(tree)
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return dict(zip(tree._fields, tree, strict=True))
    if isinstance(tree, tuple | list):
        return dict(enumerate(tree))
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
    return None


def leaves(
    tree: Any, is_leaf: Callable[[Any], bool], path: tuple[Any, ...] = ()
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Everything in nested dictionaries, sequences and dataclasses that is no container, with its path of keys.

    `is_leaf`: whether an object is taken as it is, although it may be a container.
    """
    children = None if is_leaf(tree) else _children(tree)
    if children is None:
        yield path, tree
        return
    for key, child in children.items():
        yield from leaves(child, is_leaf, (*path, key))


def replace_leaves(tree: Any, is_leaf: Callable[[Any], bool], replace: Callable[[Any], Any]) -> Any:
    """The same containers with other leaves, in the order of `leaves`."""
    children = None if is_leaf(tree) else _children(tree)
    if children is None:
        return replace(tree)
    replaced = {key: replace_leaves(child, is_leaf, replace) for key, child in children.items()}
    if isinstance(tree, Mapping):
        return replaced
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return type(tree)(**replaced)
    if isinstance(tree, tuple | list):
        return type(tree)(replaced.values())
    # Not `dataclasses.replace`: fields may be computed or frozen.
    copied = object.__new__(type(tree))
    for key, value in replaced.items():
        object.__setattr__(copied, key, value)
    return copied


def unique_names(paths: list[tuple[Any, ...]]) -> list[str]:
    """A name in the graph for each path of keys.

    It is the last key with the indices after it (``velocity``, ``rest_0``); where that is not unique, all keys are
    joined (``left_x``, ``right_x``).
    """
    last_words = [
        max((at for at, key in enumerate(path) if not isinstance(key, int)), default=0) for path in paths
    ]
    short = [_joined(path[last:]) for path, last in zip(paths, last_words, strict=True)]
    return [
        name if short.count(name) == 1 else _joined(path) for name, path in zip(short, paths, strict=True)
    ]


def _joined(path: tuple[Any, ...]) -> str:
    text = "_".join(map(str, path))
    # Names become parts of file names and of requests to servers.
    return "".join(character if character.isalnum() or character in "_.-" else "_" for character in text)
