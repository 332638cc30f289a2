"""Architectures and training in TensorFlow/Keras."""

import os

# TensorFlow logs hardware trivia to standard error unless told otherwise before its first import.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
