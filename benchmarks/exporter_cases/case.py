"""One module of the comparison of exporters: how it is built, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ptychonnx.export.lowering.module_input import ModuleInput

__all__ = ["Case", "Cases", "complex_numbers", "integers", "real"]


@dataclass(frozen=True)
class Case:
    """One module.

    Attributes
    ----------
    about
        What it holds, in a few words.
    build
        Returns the module, with seeded weights.
    inputs, keywords
        Arguments, with a `ModuleInput` in the place of each tensor.
    tolerance
        Largest difference from the native module, over the largest output, that counts as right.
    """

    name: str
    about: str
    build: Callable[[], Any]
    inputs: tuple[Any, ...]
    keywords: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5


class Cases(dict[str, Case]):
    """Modules of one subject, by name, that decorators collect.

    Parameters
    ----------
    module_of
        A module that applies a function.
    seed
        Seeds the weights of the framework.
    """

    def __init__(self, module_of: Callable[[Callable[..., Any]], Any], seed: Callable[[int], Any]) -> None:
        super().__init__()
        self._module_of, self._seed = module_of, seed

    def add(self, about: str, *inputs: Any, tolerance: float = 1e-5, **keywords: Any) -> Callable:
        """Add the class that is decorated, or a function as a module without weights."""

        def decorate(definition: Any) -> Any:
            build = definition if isinstance(definition, type) else partial(self._module_of, definition)
            self._keep(definition.__name__, about, build, inputs, keywords, tolerance)
            return definition

        return decorate

    def add_builder(self, about: str, *inputs: Any) -> Callable:
        """Add what the function that is decorated returns."""

        def decorate(build: Callable[[], Any]) -> Callable[[], Any]:
            self._keep(build.__name__, about, build, inputs, {}, 1e-5)
            return build

        return decorate

    def _keep(self, name: str, about: str, build: Callable[[], Any], *settings: Any) -> None:
        def seeded() -> Any:
            self._seed(0)
            return build()

        self[name] = Case(name, about, seeded, *settings)


def real(*shape: int, dtype: str = "float32", shared: bool = False) -> ModuleInput:
    """A tensor of real numbers."""
    return ModuleInput(shape, dtype=dtype, shared=shared)


def integers(*shape: int, largest: int) -> ModuleInput:
    """A tensor of integers from 0."""
    return ModuleInput(shape, dtype="int64", bounds=(0, largest))


def complex_numbers(*shape: int) -> ModuleInput:
    """A tensor of complex numbers."""
    return ModuleInput(shape, complex_values=True)
