"""The two ways in which a command can fail on purpose."""

from __future__ import annotations

__all__ = ["InputError", "VerificationError"]


class InputError(ValueError):
    """Input that cannot be used. The message is one line: what, where, what was expected.

    The command line prints it without a traceback and exits with code 2.
    """


class VerificationError(RuntimeError):
    """A product that failed its own check, so that nothing was written. Exit code 1."""
