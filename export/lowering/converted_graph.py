"""The result of both converters, and the capture of what exporters print."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx

__all__ = ["COMPLEX_LOWERING", "Converted", "captured_output"]

COMPLEX_LOWERING = "Fourier transforms and complex numbers in real arithmetic"


@dataclass(frozen=True)
class Converted:
    """A graph as an exporter wrote it, before `ptychonnx.export.passes`.

    * `lowering`: the replacement of the spectral convolutions, `COMPLEX_LOWERING`, or ``none``.
    * `layers`: relative error of each lowered layer against its original, by dotted path.
    * `notes`: layers that were lowered differently from how they were trained, by dotted path.
    """

    model: onnx.ModelProto
    exporter: str
    lowering: str = "none"
    layers: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def lowering_text(self) -> str:
        """The kind and number of lowered layers, and notes about them."""
        if not self.layers:
            return self.lowering
        count = len(self.layers)
        text = f"{self.lowering}, {count} layer{'s' if count > 1 else ''}"
        return "; ".join([text, *(f"{name or 'the module'}: {note}" for name, note in self.notes.items())])


@contextlib.contextmanager
def captured_output() -> Iterator[io.StringIO]:
    """Collect what an exporter prints, and suppress its warnings and logs."""
    printed = io.StringIO()
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield printed
    finally:
        logging.disable(disabled)
