"""Architectures and training in TensorFlow/Keras."""

from __future__ import annotations

import itertools
import linecache
import os
import sys
import tempfile
from types import ModuleType

_NUMBERS = itertools.count()


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


def _load_source(source: str, delete_on_exit: bool) -> tuple[ModuleType, str]:
    """Run code that AutoGraph generated, under a name of its own; returns the module and its name as a file."""
    name = f"__autograph_generated_{next(_NUMBERS)}"
    module = ModuleType(name)
    module.__file__ = f"<{name}>"
    # Without a time of change, tracebacks show these lines and look for no file.
    linecache.cache[module.__file__] = (len(source), None, source.splitlines(keepends=True), module.__file__)
    sys.modules[name] = module
    exec(compile(source, module.__file__, "exec"), module.__dict__)
    return module, module.__file__


def _keep_code_in_memory() -> None:
    """AutoGraph writes each function to a temporary file, which a process that is killed leaves behind, and always its
    bytecode.
    """
    from tensorflow.python.autograph.pyct import loader

    loader.load_source = _load_source


_import_quietly()
_keep_code_in_memory()
