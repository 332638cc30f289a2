"""The folders `train`, `export`, `runtime` and `harness` lie beside the tests, but only `ptychonnx` may be imported."""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder


class _OnlyOneName(MetaPathFinder):
    """Refuses the bare folders, which would load every module a second time."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in {"train", "export", "runtime", "harness"} and path is None:
            raise ModuleNotFoundError(f"import ptychonnx.{name}, not the bare {name}", name=name)


sys.meta_path.insert(0, _OnlyOneName())
