from __future__ import annotations

import os

# Read by TensorFlow when it is loaded.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
