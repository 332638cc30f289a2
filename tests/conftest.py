"""Only `ptychonnx` may be imported; random numbers are the same in any order; how workers share the tests."""

from __future__ import annotations

import gc
import os
import random
import sys
import zlib
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path

import numpy as np
import pytest

from tests.command_server import command_server

if _WORKER := os.environ.get("PYTEST_XDIST_WORKER"):
    # Each worker, and what it starts, has a core for itself: threads of two workers do not wait for each other.
    if hasattr(os, "sched_setaffinity"):
        _CORES = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {_CORES[int(_WORKER.removeprefix("gw")) % len(_CORES)]})
    # Read when the libraries are loaded.
    for _name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(_name, "1")

# A tenth of an export was the search for cycles of garbage among a million objects, most of which live until the end.
gc.set_threshold(10_000, 20, 20)

# Tests that import OpenVINO themselves send no telemetry either, see ptychonnx.runtime.inference.openvino_import.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# Files that take longest, which parallel workers begin with: the last one should be a short one.
_LONGEST = (
    "export/test_artifact.py",
    "docs/test_pages.py",
    "train/test_training.py",
    "export/test_torch_convert.py",
    "harness/test_study.py",
    "harness/test_speed.py",
    "harness/test_zoo.py",
    "train/test_resume.py",
    "export/test_general.py",
    "export/test_neuraloperator_models.py",
    "hostile/test_crashes.py",
    "harness/test_star.py",
    "package/test_wheel.py",
    "train/test_keras_beams.py",
)


class _OnlyOneName(MetaPathFinder):
    """Refuses the bare folders, which would load every module a second time."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in {"train", "export", "runtime", "harness"} and path is None:
            raise ModuleNotFoundError(f"import ptychonnx.{name}, not the bare {name}", name=name)


sys.meta_path.insert(0, _OnlyOneName())


def _seed(name: str) -> None:
    """Seed the generators that a network without a seed draws its weights from, if their libraries are loaded."""
    seed = zlib.crc32(name.encode())
    random.seed(seed)
    np.random.seed(seed)
    if torch := sys.modules.get("torch"):
        torch.manual_seed(seed)
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(seed)


@pytest.hookimpl(tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef) -> None:
    _seed(fixturedef.argname)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    _seed(item.name)


@pytest.fixture(scope="session")
def programs() -> Iterator[Path]:
    """Folder with a `ptychonnx` that a process with its libraries loaded runs, see `tests/command_server.py`."""
    with command_server() as folder:
        yield folder


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = config.rootpath / "tests"
        order = {root / name: place for place, name in enumerate(_LONGEST)}
        items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_collection_finish() -> None:
    gc.freeze()
