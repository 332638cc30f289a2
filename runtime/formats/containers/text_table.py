"""Tables of numbers in text files, with commas, semicolons, tabs or spaces, and possibly a line of names."""

from __future__ import annotations

import codecs
import csv
import re
import reprlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats.quantities import LENGTH_UNITS
from ptychonnx.runtime.machine import check_memory

__all__ = ["TextTable", "read_text_table"]

# Beginnings of comments, of NumPy, MATLAB and C.
_COMMENTS = ("#", "%", "//")


@dataclass(frozen=True)
class TextTable:
    """Numbers float64 [rows, columns], and the names of the columns if the file has them."""

    values: NDArray[np.float64]
    names: tuple[str, ...]


def read_text_table(path: Path, expected: str) -> TextTable:
    """Read a table; empty lines and comments (#, %, //) are ignored, but for one above the numbers that names them.

    Raises InputError if another line than those holds something else than numbers, or lines differ in length.
    """
    check_memory(16 * path.stat().st_size, str(path))
    try:
        lines = _decoded(path.read_bytes()).splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise InputError(f"{path}: no array of numbers ({error}), expected {expected}") from error
    numbered = [
        (number, line)
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.strip().startswith(_COMMENTS)
    ]
    rows: list[list[float]] = []
    # A title and names, or names and units.
    head: list[str] = []
    for number, line in numbered:
        fields = _fields(line)
        try:
            rows.append([_number(field) for field in fields])
        except ValueError as error:
            if rows or len(head) == 2:
                raise InputError(
                    f"{path}: line {number} is no row of numbers ({reprlib.repr(line)}), expected {expected}"
                ) from error
            head.append(line)
            continue
        if len(rows[-1]) != len(rows[0]):
            raise InputError(
                f"{path}: line {number} has {len(rows[-1])} columns, expected {len(rows[0])} like the lines before"
            )
    names = tuple(_fields(head[-1])) if head else ()
    if rows and len(head) == 2 and len(above := _fields(head[0])) == len(names) and _are_units(names):
        names = tuple(f"{name} [{unit.strip('[]() ')}]" for name, unit in zip(above, names, strict=True))
    elif rows and len(head) == 2 and len(_fields(head[0])) == len(rows[0]):
        raise InputError(
            f"{path}: line {numbered[0][0]} is no row of numbers ({reprlib.repr(head[0])}), expected {expected}"
        )
    if rows and not names:
        names = _names_in_comments(lines[: numbered[0][0] - 1], len(rows[0]))
    if rows and names and len(names) != len(rows[0]):
        raise InputError(
            f"{path}: line {numbered[len(head) - 1][0]} has {len(names)} names ({reprlib.repr(head[-1])}), expected "
            f"{len(rows[0])}, one for each column"
        )
    if not rows:
        raise InputError(f"{path}: no array of numbers (the file has no row of them), expected {expected}")
    return TextTable(np.array(rows), names)


def _decoded(content: bytes) -> str:
    """Text in UTF-8, in UTF-16 with its mark as spreadsheets write it, or else in Latin-1."""
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        if b"\0" in content:
            raise
        return content.decode("latin-1")


def _are_units(fields: Sequence[str]) -> bool:
    """Whether a line below the names holds units, of lengths or of pixels."""
    units = [field.strip("[]() ") for field in fields]
    return any(units) and all(unit in {"", "-", "px", "pixel", "pixels", *LENGTH_UNITS} for unit in units)


def _names_in_comments(lines: list[str], count: int) -> tuple[str, ...]:
    """Names in the last comment above the numbers, as NumPy's `savetxt` writes them; none if it is something else."""
    comments = [line.strip().lstrip("#%/").strip() for line in lines if line.strip().startswith(_COMMENTS)]
    names = _fields(comments[-1]) if comments else []
    # SPEC names columns in a line #L, with two spaces between them, and may write comments below it.
    if labels := [comment[2:] for comment in comments if comment.startswith("L ")]:
        names = re.split(r"\s{2,}", labels[-1].strip())
    return tuple(names) if len(names) == count and not any(map(_is_number, names)) else ()


def _number(text: str) -> float:
    """A number as other programs write it; Python would take 1_000 for one too."""
    if "_" in text:
        raise ValueError(text)
    return float(text)


def _is_number(text: str) -> bool:
    try:
        _number(text)
    except ValueError:
        return False
    return True


def _fields(line: str) -> list[str]:
    """The fields of a line, without the quotation marks around them."""
    separator = next((mark for mark in ";,\t" if mark in line), " ")
    if separator == " " and '"' not in line:
        return line.split()
    try:
        (fields,) = csv.reader(
            [line.strip() if separator == " " else line], delimiter=separator, skipinitialspace=True
        )
    except csv.Error:  # longer than any number or name
        return [line]
    # Where semicolons separate, a comma may be the decimal mark.
    return [field.strip().replace(",", ".") if separator == ";" else field.strip() for field in fields]
