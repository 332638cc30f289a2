"""Artifacts by path or, for those that ptychonnx ships, by name: `zoo:pinn_hybrid`."""

from __future__ import annotations

from pathlib import Path

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.paths import StrPath

__all__ = ["artifact_path", "run_path", "zoo_names", "zoo_path"]

_PREFIX = "zoo:"
# Package data of `ptychonnx`, next to this package.
_ZOO = Path(__file__).parents[2] / "zoo"


def artifact_path(artifact: StrPath) -> Path:
    """Resolve ``zoo:NAME`` to the file of that network; return any other path unchanged.

    The prefix keeps a misspelt file name from being taken for a network, and a network from hiding a file.

    Raises InputError if the zoo has no network of that name.
    """
    text = str(artifact)
    return zoo_path(text.removeprefix(_PREFIX)) if text.startswith(_PREFIX) else Path(artifact)


def run_path(run: StrPath) -> Path:
    """Resolve ``zoo:NAME`` to the run folder of that network; return any other path unchanged.

    Raises InputError if the zoo has no run of that name.
    """
    text = str(run)
    if not text.startswith(_PREFIX):
        return Path(run)
    name = text.removeprefix(_PREFIX)
    names = sorted(path.parent.name for path in _ZOO.glob("*/config.json"))
    if name not in names:
        raise InputError(f"zoo: no run is named {name!r}, expected one of {', '.join(names)}")
    return _ZOO / name


def zoo_names() -> list[str]:
    """Return the names of the trained networks that come with ptychonnx, in alphabetical order.

    Examples
    --------
    >>> import ptychonnx
    >>> ptychonnx.zoo.names()[:4]
    ['any_128', 'any_128_grid2', 'any_256', 'any_256_grid2']
    """
    return sorted(path.stem for path in _ZOO.glob("*.onnx"))


def zoo_path(name: str) -> Path:
    """Return the path of a trained network that comes with ptychonnx.

    Parameters
    ----------
    name
        One of `zoo_names`, such as ``pinn_hybrid``.

    Raises
    ------
    InputError
        If the zoo has no network of that name.

    Examples
    --------
    >>> import ptychonnx
    >>> ptychonnx.zoo.path("pinn_hybrid").name
    'pinn_hybrid.onnx'
    """
    if name not in zoo_names():
        raise InputError(f"zoo: no network is named {name!r}, expected one of {', '.join(zoo_names())}")
    return _ZOO / f"{name}.onnx"
