"""Names of the inputs and the output of every graph of this project."""

__all__ = ["INPUT_NAME", "OFFSETS_NAME", "OUTPUT_NAME"]

INPUT_NAME = "diffraction"
OFFSETS_NAME = "offsets"
OUTPUT_NAME = "object"
