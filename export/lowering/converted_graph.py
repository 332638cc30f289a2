"""What both converters give, and how they keep their exporters quiet."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx

__all__ = ["INPUT_NAME", "OFFSETS_NAME", "OUTPUT_NAME", "Converted", "quiet"]

INPUT_NAME = "diffraction"
OFFSETS_NAME = "offsets"
OUTPUT_NAME = "object"


@dataclass(frozen=True)
class Converted:
    """A graph as an exporter wrote it; `ptychonnx.export.passes` cleans it.

    Attributes
    ----------
    model
        First axis dynamic. A network of this project has the input `INPUT_NAME`, perhaps `OFFSETS_NAME` as well, and
        the output `OUTPUT_NAME`.
    exporter
        Name and version.
    lowering
        What replaced the spectral convolutions, or ``none``.
    layers
        Relative error of each lowered layer against its original, by dotted path.
    notes
        What was lowered otherwise than it was trained, by dotted path.
    """

    model: onnx.ModelProto
    exporter: str
    lowering: str = "none"
    layers: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def lowering_text(self) -> str:
        """What was lowered, how often, and what was lowered otherwise than it was trained."""
        if not self.layers:
            return self.lowering
        count = len(self.layers)
        text = f"{self.lowering}, {count} layer{'s' if count > 1 else ''}"
        return "; ".join([text, *(f"{name or 'the module'}: {note}" for name, note in self.notes.items())])


@contextlib.contextmanager
def quiet() -> Iterator[io.StringIO]:
    """Collect what an exporter prints, and drop what it warns of and logs."""
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
