"""Where the server is, and servers that are stopped whatever happens."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness.conftest import four_artifacts, lines_scan, run
from tests.triton.server import TritonServer, add_model

__all__ = ["four_artifacts", "lines_scan", "run"]

ROOT = Path(__file__).resolve().parents[2]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.triton)


@pytest.fixture(scope="session")
def home() -> Path:
    """Folder of the server and its environment."""
    folder = Path(os.environ.get("PTYCHONNX_TRITON", ROOT / ".triton"))
    if not (folder / "installed").is_file():
        pytest.skip(f"no Triton server in {folder}, `make test-triton` sets it up")
    return folder


@pytest.fixture(scope="session")
def served(home: Path, four_artifacts: list[Path], tmp_path_factory) -> Iterator[TritonServer]:
    """A server with the four artifacts, for tests that change nothing."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "repository").mkdir()
    for artifact in four_artifacts:
        add_model(folder / "repository", artifact.stem, artifact)
    add_model(folder / "repository", "silent", four_artifacts[0], published=False)
    add_model(folder / "repository", "patient", four_artifacts[0], max_batch=8, delay_us=100_000)
    server = TritonServer(home, folder / "repository", folder / "triton.log")
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def triton(home: Path, tmp_path: Path) -> Iterator[Callable[..., TritonServer]]:
    """`triton(*options)`: a server of the test's own on `tmp_path / "repository"`."""
    servers = []

    def start(*options: str) -> TritonServer:
        server = TritonServer(home, tmp_path / "repository", tmp_path / "triton.log", options)
        servers.append(server)
        server.start()
        return server

    (tmp_path / "repository").mkdir()
    try:
        yield start
    finally:
        for server in servers:
            server.stop()
