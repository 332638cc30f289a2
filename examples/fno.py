"""A Fourier neural operator, as its author would write it.

    ptychonnx export-module examples/fno.py:build --shape 1,64,64 --out fno.onnx

`--weights model_state_dict.pt` loads what `torch.save(model.state_dict(), ...)` wrote after training.
"""

from neuralop.models import FNO


def build() -> FNO:
    """One channel in, one channel out, on images of any size; the size is fixed when it is exported."""
    return FNO(n_modes=(16, 16), in_channels=1, out_channels=1, hidden_channels=32, n_layers=4)
