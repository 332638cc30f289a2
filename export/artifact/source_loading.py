"""Load a module from Python code, ``FILE.py:NAME`` or ``package.module:NAME``, or a model from a ``.keras`` file."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from ptychonnx.export.artifact.export_module import framework_of
from ptychonnx.runtime.errors import InputError, first_line
from ptychonnx.runtime.paths import check_file
from ptychonnx.train.registry import import_framework_module

__all__ = ["load_source", "load_weights", "read_arguments"]


def load_source(source: str, arguments: Mapping[str, Any] | None = None) -> Any:
    """Run Python code and build the module that it defines, or read a Keras file.

    Raises InputError if there is no such file or name, the code fails, or the result is not a module.

    * `source`: ``FILE.py:NAME``, ``package.module:NAME``, or ``FILE.keras``. NAME is a module, a class of modules, or a
      function that returns one. The code is run, so only use code that you trust; a Keras file is read in safe mode,
      which runs none. The file may import modules from its folder, also relatively.
    * `arguments`: keyword arguments of the class or function.
    """
    if source.endswith(".keras"):
        if arguments:
            raise InputError(f"{source}: takes no arguments, expected none for a Keras file")
        reading = import_framework_module("ptychonnx.export.lowering.tensorflow.native_module", "tensorflow")
        return reading.read_keras_file(Path(source))
    with warnings.catch_warnings():
        # Deprecations in the author's code, and in the packages that it imports.
        warnings.simplefilter("ignore")
        return _load(source, arguments or {})


def _load(source: str, arguments: Mapping[str, Any]) -> Any:
    place, colon, name = source.rpartition(":")
    if not colon or not place or not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"{source}: expected FILE.py:NAME, such as net.py:build, or package.module:NAME")
    code = _load_file(Path(place), name) if place.endswith(".py") else _load_package(place)
    value: Any = code
    for part in name.split("."):
        value = getattr(value, part, None)
    if value is None:
        raise InputError(f"{place}: defines no {name!r}, expected a function that returns a module")
    return _built(value, source, arguments)


def read_arguments(texts: Sequence[str]) -> dict[str, Any]:
    """``width=32`` as a keyword argument: a Python literal, or else text.

    Raises InputError if a text is not of this form, or a name occurs twice.
    """
    arguments: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise InputError(f"--arg {text}: expected NAME=VALUE, such as width=32")
        if name in arguments:
            raise InputError(f"--arg {text}: {name!r} is given twice, expected it once")
        try:
            arguments[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            arguments[name] = value
    return arguments


def _built(value: Any, source: str, arguments: Mapping[str, Any]) -> Any:
    if framework_of(value) is not None:
        if arguments:
            raise InputError(f"{source}: is a module already, expected a class or function for --arg")
        return value
    if callable(value):
        _check_arguments(value, source, arguments)
        value = _guarded(lambda: value(**arguments), f"{source}()")
    if framework_of(value) is None:
        raise InputError(f"{source}: is {type(value).__name__}, expected a torch.nn.Module or a keras.Model")
    return value


def _check_arguments(value: Callable, source: str, arguments: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(value)
    except (ValueError, TypeError):
        return
    try:
        signature.bind(**arguments)
    except TypeError as error:
        raise InputError(
            f"{source}: takes {signature}, {error}; --arg NAME=VALUE sets an argument"
        ) from error


def _load_package(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise InputError(f"{name}: expected FILE.py or package.module before the colon")
    with _first_on_path(str(Path.cwd())):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name and f"{name}.".startswith(f"{error.name}."):
                raise InputError(
                    f"{name}: no such module ({error.name} does not exist), expected FILE.py:NAME "
                    "or an installed package"
                ) from error
            raise _raised(name, error) from error
        except Exception as error:  # whatever the author's code raises
            raise _raised(name, error) from error


def _load_file(path: Path, name: str) -> ModuleType:
    """Run a file by itself, or as a part of its package if it lies in one or imports relatively."""
    check_file(path, f"Python code that defines {name!r}")
    file = path.resolve()
    text = file.read_text(encoding="utf-8", errors="replace")
    if ("keras" in text or "tensorflow" in text) and importlib.util.find_spec("tensorflow"):
        # Imported quietly: TensorFlow writes about the hardware otherwise.
        importlib.import_module("ptychonnx.train.tensorflow")
    levels = 0
    while (file.parents[levels] / "__init__.py").is_file():
        levels += 1
    if not levels and "from ." in text:
        levels = 1
    while levels < len(file.parents):
        try:
            return _run(file, levels)
        except ImportError as error:
            # `from ..package import x` needs another folder above, which may have no `__init__.py`.
            if "beyond top-level package" not in str(error):
                raise _raised(path, error) from error
            levels += 1
        except Exception as error:  # whatever the author's code raises
            raise _raised(path, error) from error
    raise InputError(f"{path}: its relative imports lead out of the file system")


def _run(file: Path, levels: int) -> ModuleType:
    """Import a file whose `levels` folders above are packages."""
    root = file.parents[levels]
    parts = file.relative_to(root).with_suffix("").parts
    if levels and all(part.isidentifier() for part in parts):
        with _first_on_path(str(root), str(file.parent)), _names_of(parts):
            return importlib.import_module(".".join(parts))
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _first_on_path(str(file.parent)), _names_of((file.stem,)):
        # Classes look up their module by name.
        sys.modules[file.stem] = module
        spec.loader.exec_module(module)
    return module


@contextmanager
def _names_of(parts: Sequence[str]) -> Iterator[None]:
    """Hide loaded modules of the same names, which are other files, and put them back afterwards."""
    names = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    hidden = {
        name: module
        for name, module in sys.modules.items()
        if name in names or name.startswith(f"{parts[0]}.")
    }
    for name in hidden:
        del sys.modules[name]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.modules.update(hidden)


@contextmanager
def _first_on_path(*folders: str) -> Iterator[None]:
    sys.path[:0] = folders
    try:
        yield
    finally:
        for folder in folders:
            sys.path.remove(folder)


def _guarded(call: Callable[[], Any], where: str) -> Any:
    try:
        return call()
    except Exception as error:  # whatever the author's code raises
        raise _raised(where, error) from error


def _raised(where: object, error: Exception) -> InputError:
    return InputError(f"{where} raised {type(error).__name__}: {first_line(error)}")


def load_weights(module: Any, path: Path, key: str | None = None) -> list[str]:
    """Load weights into a torch module, see `ptychonnx.export.lowering.torch.weights.load_weights`, or a Keras model.

    Keras reads its own ``.weights.h5``, without running code from it.
    """
    if framework_of(module) != "torch":
        if not path.name.endswith(".weights.h5") or not path.is_file():
            raise InputError(f"{path}: no such file of a Keras model, expected one that ends in .weights.h5")
        _guarded(lambda: module.load_weights(path), f"{path}: loading it")
        return [f"weights: {path.name}"]
    loading = import_framework_module("ptychonnx.export.lowering.torch.weights", "torch")
    notes: list[str] = loading.load_weights(module, path, key)
    return notes
