"""A folder that installs ptychonnx on a machine without internet and checks its GPU: `make bundle`.

`python -m ptychonnx.harness.gpu.bundle WHEEL --out FOLDER` downloads the wheels that ptychonnx needs, for this
version of Python. No file is larger than a limit: larger wheels are divided, and `install.sh` joins them.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ptychonnx.harness.simulate.lines_dataset import LinesConfig, build_lines
from ptychonnx.runtime.errors import EnvironmentFailure, InputError
from ptychonnx.runtime.paths import file_sha256

__all__ = ["divide_files", "make_bundle"]

_PART_BYTES = 60_000_000
_INSTALL = """#!/usr/bin/env bash
# Installs ptychonnx from this folder without a network, then checks the device: ./install.sh [options of gpu-check]
set -euo pipefail
cd "$(dirname "$0")"
fail() {{ echo "install.sh: $*" >&2; exit 1; }}
PYTHON=${{PYTHON:-python{python}}}
VENV=${{VENV:-venv}}
"$PYTHON" -c 'import sys; sys.exit(sys.version.startswith("{python}.") is False)' 2> /dev/null ||
    fail "$PYTHON is not Python {python}, for which the wheels are: set PYTHON"
broken=$(sha256sum --check SHA256SUMS 2> /dev/null | grep -v ': OK$' | cut -d : -f 1 | head -n 1 || true)
[ -z "$broken" ] || fail "$broken is missing or damaged: copy it again"
mkdir -p joined
for first in wheels/*.part-000; do
    [ -e "$first" ] || continue
    name=$(basename "${{first%.part-000}}")
    cat "${{first%000}}"* > "joined/$name"
done
broken=$(sha256sum --check JOINED 2> /dev/null | grep -v ': OK$' | cut -d : -f 1 | head -n 1 || true)
[ -z "$broken" ] || fail "$broken was not joined correctly: is the disk full?"
"$PYTHON" -m venv "$VENV"
"$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-index \\
    --find-links wheels --find-links joined {requirements}
rm -rf joined
"$VENV/bin/ptychonnx" info
exec "$VENV/bin/ptychonnx" gpu-check --out check "$@"
"""


def make_bundle(
    wheel: Path,
    out: Path,
    extras: Sequence[str] = (),
    also: Sequence[str] = (),
    constraints: Path | None = None,
) -> list[Path]:
    """Collect wheels, a simulated scan, checksums and `install.sh` in a folder.

    Raises InputError if the wheel is missing, or the folder holds something. Raises EnvironmentFailure if pip cannot
    download a wheel.

    * `wheel`: wheel of ptychonnx, which contains the networks of the zoo.
    * `out`: new or empty folder.
    * `extras`: such as ``cuda``.
    * `also`: further packages to install, such as a plugin provider.
    * `constraints`: file with the versions to take.

    Returns all files of the bundle.
    """
    if not wheel.is_file():
        raise InputError(f"{wheel}: no such file, expected the wheel of ptychonnx")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: is not empty, expected a new folder")
    wheels = out / "wheels"
    wheels.mkdir(parents=True)
    extra = ",".join(extras)
    requirement = f"{wheel.resolve()}[{extra}]" if extra else str(wheel.resolve())
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:"]
    command += ["--dest", str(wheels)]
    command += [] if constraints is None else ["--constraint", str(constraints)]
    answer = subprocess.run([*command, requirement, *also], stderr=subprocess.PIPE, text=True, check=False)
    if answer.returncode:
        raise EnvironmentFailure(
            f"{out}: pip cannot download the wheels: {answer.stderr.strip().splitlines()[-1]}"
        )
    build_lines(LinesConfig(train_grid=2), out / "data")
    joined = divide_files(wheels, _PART_BYTES)
    name, version = wheel.name.split("-")[:2]
    (out / "install.sh").write_text(
        _INSTALL.format(
            python=f"{sys.version_info.major}.{sys.version_info.minor}",
            requirements=shlex.join([f"{name}{f'[{extra}]' if extra else ''}=={version}", *also]),
        )
    )
    (out / "install.sh").chmod(0o755)
    (out / "JOINED").write_text("".join(f"{digest}  joined/{file}\n" for file, digest in joined.items()))
    files = sorted(path for path in out.rglob("*") if path.is_file())
    lines = [f"{file_sha256(path)}  {path.relative_to(out).as_posix()}\n" for path in files]
    (out / "SHA256SUMS").write_text("".join(lines))
    return [*files, out / "SHA256SUMS"]


def divide_files(folder: Path, limit: int) -> dict[str, str]:
    """Replace each file of a folder that is larger than `limit` bytes by parts; return the hash of each by its name."""
    digests = {}
    for path in sorted(folder.iterdir()):
        if path.stat().st_size <= limit:
            continue
        digest = hashlib.sha256()
        with path.open("rb") as file:
            number = 0
            while part := file.read(limit):
                digest.update(part)
                path.with_name(f"{path.name}.part-{number:03}").write_bytes(part)
                number += 1
        digests[path.name] = digest.hexdigest()
        path.unlink()
    return digests


def _main() -> None:
    parser = argparse.ArgumentParser(description="Make a bundle that installs ptychonnx without internet.")
    parser.add_argument("wheel", type=Path, help="wheel of ptychonnx, from `make package`")
    parser.add_argument("--out", type=Path, required=True, help="new folder")
    parser.add_argument(
        "--extra", action="append", default=[], help="extra to include, such as cuda; repeatable"
    )
    parser.add_argument(
        "--also", action="append", default=[], help="further package, such as a plugin provider"
    )
    parser.add_argument("--constraints", type=Path, help="file with the versions to take")
    arguments = parser.parse_args()
    try:
        files = make_bundle(
            arguments.wheel, arguments.out, arguments.extra, arguments.also, arguments.constraints
        )
    except (InputError, EnvironmentFailure) as error:
        sys.exit(f"Error: {error}")
    total, largest = sum(path.stat().st_size for path in files), max(path.stat().st_size for path in files)
    print(f"{arguments.out}: {len(files)} files, {total / 1e6:.0f} MB, the largest {largest / 1e6:.0f} MB")


if __name__ == "__main__":
    _main()
