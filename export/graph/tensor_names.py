"""Names of the inputs and the output of every graph of this project."""

__all__ = ["BEAM_NAMES", "INPUT_NAME", "OFFSETS_NAME", "OUTPUT_NAME"]

INPUT_NAME = "diffraction"
OFFSETS_NAME = "offsets"
OUTPUT_NAME = "object"

# Inputs of a general artifact that have defaults, see `ptychonnx.runtime.contract.BeamInputs`.
BEAM_NAMES = ("probe", "mask", "scale")
