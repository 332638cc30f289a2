"""ptychonnx works in a folder with the user's own `train.py`, `export.py`, ... , which must never be imported.

Real processes run in that folder, which is also first on PYTHONPATH.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import ptychonnx

TRAPS = (
    "train",
    "export",
    "runtime",
    "harness",
    "tests",
    "utils",
    "zoo",
    "benchmarks",
    "api",
    "scan",
    "model",
    "reconstruct",
    "evaluate",
    "simulate",
    "report",
)
EXAMPLE = Path(__file__).parents[2] / "examples" / "architecture"
SMALL = (
    "--width",
    4,
    "--blocks",
    1,
    "--final-steps",
    1,
    "--batch",
    4,
    "--learning-rate",
    3e-3,
    "--overlap",
    1,
)
# What the runtime for MLServer takes from MLServer, which has an environment of its own.
MLSERVER = {
    "__init__.py": """
class MLModel:
    def __init__(self, settings):
        self._settings, self.name, self.version = settings, "model", "1"
    def decode(self, given, default_codec):
        return given.data
""",
    "codecs.py": """
class NumpyCodec:
    @staticmethod
    def encode_output(name, payload):
        return payload
""",
    "errors.py": "class InferenceError(Exception): pass",
    "types.py": """
from types import SimpleNamespace
class InferenceRequest(SimpleNamespace): pass
class InferenceResponse(SimpleNamespace): pass
class MetadataModelResponse(SimpleNamespace): pass
class Parameters(SimpleNamespace): pass
""",
    "utils.py": """
async def get_model_uri(settings):
    return settings.uri
""",
}
SERVED = """
import asyncio, json, sys
from importlib import import_module
from types import SimpleNamespace
import numpy as np
folder = sys.argv[1]
sys.path.insert(0, folder)
settings = json.load(open(f"{folder}/model-settings.json"))
module, name = settings["implementation"].rsplit(".", 1)
model = getattr(import_module(module), name)(SimpleNamespace(uri=f"{folder}/model.onnx", parameters=None))
assert asyncio.run(model.load())
patterns = SimpleNamespace(name="diffraction", data=np.ones((2, 1, 64, 64), np.float32))
answer = asyncio.run(model.predict(SimpleNamespace(inputs=[patterns])))
print(answer.outputs[0].shape)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of modules that raise when they are imported."""
    folder = tmp_path_factory.mktemp("traps")
    for name in TRAPS:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('the {name}.py of the user was imported')\n")
    return folder


def run(folder: Path, *command: object, path: Path | None = None, check: bool = True) -> str:
    """Run a command in the folder; `path` comes before everything else on PYTHONPATH."""
    ours = Path(ptychonnx.__file__).parents[1]
    paths = [*([path] if path else []), folder, ours]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def scan(folder: Path) -> Path:
    command = ("simulate", "lines", "--out", "data", "--train-grid", 2, "--test-grid", 4)
    run(folder, sys.executable, "-m", "ptychonnx", *command)
    return folder / "data" / "test.npz"


def test_the_traps_are_set(folder: Path) -> None:
    assert "the train.py of the user" in run(folder, sys.executable, "-c", "import train", check=False)


def test_the_console_command_evaluates_two_networks(folder: Path, scan: Path) -> None:
    command = shutil.which("ptychonnx", path=str(Path(sys.executable).parent))
    if command is None:
        pytest.skip("the command ptychonnx is not installed next to this Python")
    run(folder, command, "evaluate", "zoo:baseline", "zoo:pinn_fno", "--scan", scan, "--out", "report")
    rows = json.loads((folder / "report" / "metrics.json").read_text())["rows"]
    assert set(rows) == {"baseline", "pinn_fno"}
    assert rows["pinn_fno"]["phase"]["pearson"] > 0.9


def test_the_module_inspects_and_reconstructs(folder: Path, scan: Path) -> None:
    module = (sys.executable, "-m", "ptychonnx")
    artifact = ptychonnx.zoo.path("baseline")
    assert "baseline" in run(folder, *module, "inspect", artifact)
    run(folder, *module, "reconstruct", artifact, scan, "--out", "object.h5")
    assert (folder / "object.h5").is_file()


def test_the_face_imports(folder: Path) -> None:
    program = "import ptychonnx; print([bool(getattr(ptychonnx, name)) for name in ptychonnx.__all__])"
    assert "False" not in run(folder, sys.executable, "-c", program)


def test_the_processes_of_bench_start(folder: Path) -> None:
    artifact = ptychonnx.zoo.path("baseline")
    command = ("bench", artifact, "--rounds", 1, "--batch", 2, "--no-reduced", "--json", "bench.json")
    run(folder, sys.executable, "-m", "ptychonnx", *command)
    assert (folder / "bench.json").is_file()


def test_the_runtime_for_mlserver_loads(folder: Path) -> None:
    deployed = ("deploy", "mlserver", ptychonnx.zoo.path("baseline"), "--repository", "served")
    run(folder, sys.executable, "-m", "ptychonnx", *deployed)
    stand_in = folder / "stand_in"
    for name, text in MLSERVER.items():
        (stand_in / "mlserver").mkdir(parents=True, exist_ok=True)
        (stand_in / "mlserver" / name).write_text(text)
    (version,) = (folder / "served" / "baseline").glob("1")
    printed = run(folder, sys.executable, "-c", SERVED, version, path=stand_in)
    assert printed.strip().endswith("(2, 64, 64, 1, 2)")


def test_an_architecture_of_a_third_party_trains_and_exports(folder: Path) -> None:
    pytest.importorskip("lightning")
    installed = folder / "site"
    shutil.copytree(EXAMPLE / "ptychonnx_residual", installed / "ptychonnx_residual")
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    metadata = installed / "ptychonnx_residual-0.1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 0.1.0\n")
    entry_points = project["entry-points"]["ptychonnx.architectures"]
    lines = [f"{name} = {target}" for name, target in entry_points.items()]
    (metadata / "entry_points.txt").write_text("\n".join(["[ptychonnx.architectures]", *lines]))
    grids = ("--n", 32, "--step", 4, "--train-grid", 7, "--test-grid", 3)
    commands = (
        ("simulate", "lines", "--out", "small", *grids),
        ("train", "residual", "--data", "small", "--out", "run", "--epochs", 3, *SMALL),
        ("export", "run", "--out", "pinn_residual.onnx"),
    )
    arguments = [["ptychonnx", *map(str, command)] for command in commands]
    # One process for all of them: torch takes seconds to import.
    program = f"import sys\nfrom ptychonnx.harness.cli import main\nfor sys.argv in {arguments}: main()"
    run(folder, sys.executable, "-c", program, path=installed)
    assert (folder / "pinn_residual.onnx").is_file()
