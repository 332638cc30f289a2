"""Architectures and training in TensorFlow/Keras."""

from __future__ import annotations

import os
import tempfile


def _import_quietly() -> None:
    """Import TensorFlow without the hardware trivia that its C++ part writes to standard error."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    kept = os.dup(2)
    with tempfile.TemporaryFile() as swallowed:
        os.dup2(swallowed.fileno(), 2)
        try:
            import tensorflow as tf

            tf.constant(0)  # the last of it comes with the first tensor
        finally:
            os.dup2(kept, 2)
            os.close(kept)


_import_quietly()
