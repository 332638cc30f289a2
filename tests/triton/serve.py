"""A Triton server in the foreground: `python -m tests.triton.serve HOME REPOSITORY`, what `make serve-triton` runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.triton.server import command, environment

if __name__ == "__main__":
    home, repository = (Path(argument).resolve() for argument in sys.argv[1:])
    line = command(
        home, repository, (8000, 8001, 8002), ["--model-control-mode=poll", "--repository-poll-secs=5"]
    )
    os.execve(line[0], line, environment(home))
