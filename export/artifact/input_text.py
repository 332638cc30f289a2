"""Inputs of a module as text, ``x=1,64,64:int64:0..9``, and as arrays in a file."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ptychonnx.export.lowering.module_input import DTYPES, PARTS, ModuleInput
from ptychonnx.runtime.errors import InputError, first_line

__all__ = ["other_sizes", "read_example", "read_input"]

_BOUNDS = re.compile(r"(-?\d+)\.\.(-?\d+)")
_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)*")


def read_input(text: str) -> ModuleInput:
    """``[NAME=]SIZES[:TYPE][:LOW..HIGH][:shared]`` as an input.

    Raises InputError if the text is not of this form.

    Parameters
    ----------
    text
        SIZES without the batch, such as ``1,64,64``; empty for one number for each element of the batch. NAME is the
        argument of the module, with keys of dictionaries after dots.

    Examples
    --------
    >>> read_input("ids=12:int64:0..9").bounds
    (0, 9)
    >>> read_input("").shape
    ()
    """
    described, *marks = text.replace(" ", "").split(":")
    name, equals, sizes = described.rpartition("=")
    try:
        shape = tuple(int(size) for size in sizes.split(",")) if sizes else ()
    except ValueError as error:
        raise _refusal(text) from error
    if any(size < 1 for size in shape) or (equals and not _NAME.fullmatch(name)):
        raise _refusal(text)
    result = ModuleInput(shape, name=name or None)
    for mark in marks:
        result = _marked(result, mark, text)
    if result.bounds is not None and not result.is_integer:
        raise InputError(f"--shape {text}: bounds are for integers, expected a type such as int64")
    return result


def _marked(one: ModuleInput, mark: str, text: str) -> ModuleInput:
    if mark == "shared":
        return replace(one, shared=True)
    if mark in PARTS:
        return replace(one, complex_values=True, dtype=PARTS[mark])
    if mark in DTYPES:
        return replace(one, dtype=mark)
    if (bounds := _BOUNDS.fullmatch(mark)) and int(bounds[1]) <= int(bounds[2]):
        return replace(one, bounds=(int(bounds[1]), int(bounds[2])))
    raise _refusal(text)


def _refusal(text: str) -> InputError:
    return InputError(
        f"--shape {text}: expected sizes such as 1,64,64, with an optional NAME= before and :TYPE, :LOW..HIGH or "
        f":shared after; types are {', '.join((*DTYPES, *PARTS))}"
    )


def other_sizes(inputs: Sequence[ModuleInput], text: str) -> list[ModuleInput]:
    """The inputs at another resolution.

    Raises InputError if the text does not fit the inputs.

    `text`: sizes of all inputs in order, or of some by name, with semicolons between them: ``3,64,64`` or
    ``x=3,64,64;grid=2,64,64``. Types stay.
    """
    parts = [read_input(part) for part in text.split(";")]
    resized = list(inputs)
    for index, part in enumerate(parts):
        if part.name is None:
            places = [index] if index < len(inputs) else []
        else:
            places = [place for place, one in enumerate(inputs) if one.name == part.name]
        if len(places) != 1:
            raise InputError(
                f"--shape-also {text}: expected the sizes of {len(inputs)} inputs, in order or by name"
            )
        resized[places[0]] = replace(inputs[places[0]], shape=part.shape, example=None)
    if [one.shape for one in resized] == [one.shape for one in inputs]:
        raise InputError(f"--shape-also {text}: is the size of --shape, expected another one")
    return resized


def read_example(path: Path, inputs: Sequence[ModuleInput]) -> list[ModuleInput]:
    """Inputs with the values of arrays in a file of NumPy, on which the file is verified.

    Raises InputError if the file cannot be read, or an array does not fit its input.

    * `path`: an ``.npz`` file with an array for each input, by name or in order, the batch first.
    * `inputs`: as given by their shapes; if there are none, the arrays tell shapes and types.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file, expected arrays of inputs") from error
    except Exception as error:  # damaged files raise a dozen different types
        raise InputError(f"{path}: not a .npz file of arrays ({first_line(error)})") from error
    if not arrays or (inputs and len(arrays) != len(inputs)):
        raise InputError(
            f"{path}: holds {len(arrays)} arrays, expected one for each of {len(inputs) or 'the'} inputs"
        )
    if not inputs:
        first = next(iter(arrays.values()))
        inputs = [_described(name, array, len(first) if first.ndim else 0) for name, array in arrays.items()]
    by_name = all(one.name in arrays for one in inputs)
    values = [arrays[str(one.name)] for one in inputs] if by_name else list(arrays.values())
    return [_with_example(one, array, path) for one, array in zip(inputs, values, strict=True)]


def _described(name: str, array: np.ndarray, batch: int) -> ModuleInput:
    shared = not array.ndim or len(array) != batch
    dtype = PARTS.get(array.dtype.name, array.dtype.name)
    shape = array.shape if shared else array.shape[1:]
    return ModuleInput(shape, array.dtype.kind == "c", dtype, name=name, shared=shared)


def _with_example(one: ModuleInput, array: np.ndarray, path: Path) -> ModuleInput:
    if array.dtype.kind == "c":
        array = np.stack([array.real, array.imag], axis=-1)
    shape = array.shape if one.shared else array.shape[1:]
    if array.dtype.name != one.dtype or shape != one.real_shape or not array.size or one.dtype not in DTYPES:
        expected = (*(() if one.shared else ("batch",)), *one.real_shape)
        shown = ", ".join(map(str, expected))
        raise InputError(
            f"{path}: an array is {array.dtype} {list(array.shape)}, expected {one.dtype} [{shown}]"
        )
    return replace(one, example=array)
