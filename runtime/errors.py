"""Errors that ptychonnx raises on purpose, and the exit code of each.

| exit code | class | meaning |
| --- | --- | --- |
| 1 | `VerificationError` | a product failed its own check; nothing was written |
| 2 | `InputError`, `UnsupportedError` | the user can mend it: a file, an option, a missing package |
| 3 | `ServerError`, `DeviceError`, `EnvironmentFailure` | a server, a device or the machine failed |
| 4 | `InternalError` | a fault in ptychonnx itself |
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "DeviceError",
    "EnvironmentFailure",
    "InputError",
    "InternalError",
    "PtychonnxError",
    "ServerError",
    "UnsupportedError",
    "VerificationError",
    "first_line",
]


class PtychonnxError(Exception):
    """Base of all errors that ptychonnx raises on purpose. The message is one line: what, where, what was expected.

    Attributes
    ----------
    exit_code
        Exit code of the command line, which prints the message without a traceback.

    Examples
    --------
    >>> import ptychonnx
    >>> try:
    ...     ptychonnx.Session("missing.onnx")
    ... except ptychonnx.PtychonnxError as error:
    ...     print(error.exit_code)
    2
    """

    exit_code: ClassVar[int] = 4


class InputError(PtychonnxError, ValueError):
    """Input that cannot be used: a file, an option, an argument, or a package that is not installed.

    Examples
    --------
    >>> import ptychonnx
    >>> try:
    ...     ptychonnx.zoo.path("pinn_vit")
    ... except ptychonnx.InputError as error:
    ...     print(str(error).partition(",")[0])
    zoo: no network is named 'pinn_vit'
    """

    exit_code = 2


class UnsupportedError(InputError):
    """Valid input that ptychonnx does not handle, such as a layer that cannot be lowered.

    Examples
    --------
    >>> import ptychonnx
    >>> issubclass(ptychonnx.UnsupportedError, ptychonnx.InputError)
    True
    """


class VerificationError(PtychonnxError, RuntimeError):
    """A product that failed its own check, so that nothing was written; also a training that diverged.

    Examples
    --------
    >>> import ptychonnx
    >>> try:
    ...     ptychonnx.adopt("theirs.onnx", "theirs.yaml", "strict.onnx", tolerance=1e-12)
    ... except ptychonnx.VerificationError as error:
    ...     print(error.exit_code)
    1
    """

    exit_code = 1


class ServerError(PtychonnxError, RuntimeError):
    """An inference server that is unreachable, refuses, or answers something else than its contract says.

    Examples
    --------
    >>> import ptychonnx
    >>> ptychonnx.ServerError.exit_code
    3
    """

    exit_code = 3


class DeviceError(PtychonnxError, RuntimeError):
    """A GPU or another device that is missing, too old, out of memory, or lost.

    Examples
    --------
    >>> import ptychonnx
    >>> ptychonnx.DeviceError.exit_code
    3
    """

    exit_code = 3


class EnvironmentFailure(PtychonnxError, RuntimeError):
    """The machine failed: a full disk, too little memory, a process that was killed.

    Examples
    --------
    >>> import ptychonnx
    >>> ptychonnx.EnvironmentFailure.exit_code
    3
    """

    exit_code = 3


class InternalError(PtychonnxError, RuntimeError):
    """A fault in ptychonnx itself, which should be reported together with the output of `ptychonnx info`.

    Examples
    --------
    >>> import ptychonnx
    >>> ptychonnx.InternalError.exit_code
    4
    """

    exit_code = 4


def first_line(error: BaseException) -> str:
    """First line of the message of an exception of another library; its class if the message is empty."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
