"""Put a Triton server together: `python assemble.py FOLDER`, run by the Python that has nvidia-pytriton.

nvidia-pytriton carries `tritonserver` with its Python backend. It is copied to FOLDER/tritonserver, and the
backend `onnxruntime` beside this file is added.
"""

from __future__ import annotations

import shutil
import sys
from importlib.util import find_spec
from pathlib import Path


def assemble(folder: Path) -> None:
    """Make FOLDER/tritonserver and FOLDER/libraries anew."""
    package = Path(find_spec("pytriton").origin).parent
    server, libraries = folder / "tritonserver", folder / "libraries"
    for old in (server, libraries):
        shutil.rmtree(old, ignore_errors=True)
    shutil.copytree(package / "tritonserver", server)
    shutil.copytree(package.parent / "nvidia_pytriton.libs", libraries)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
    shutil.copy2(stub, server / "backends" / "python")
    shutil.copytree(Path(__file__).parent / "backends" / "onnxruntime", server / "backends" / "onnxruntime")


if __name__ == "__main__":
    assemble(Path(sys.argv[1]))
