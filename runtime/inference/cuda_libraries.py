"""What of CUDA this machine has: the driver and its version, devices, and the libraries that onnxruntime loads."""

from __future__ import annotations

import contextlib
import ctypes
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import onnxruntime as ort

__all__ = ["CudaState", "cuda_state"]

# Oldest driver for a major version of CUDA, from NVIDIA's release notes of the CUDA Toolkit.
_DRIVERS = {12: "525.60.13", 13: "580.65.06"}
# What onnxruntime's CUDA provider links to, and cuDNN, which it opens for convolutions.
_LIBRARIES = (
    "libcudart.so.{0}",
    "libcublasLt.so.{0}",
    "libcublas.so.{0}",
    "libcurand.so.10",
    "libcudnn.so.9",
)


@dataclass(frozen=True)
class CudaState:
    """What of CUDA a machine has."""

    # Version of CUDA that onnxruntime was built for, such as `13.0`; empty if it has no CUDA provider.
    needed: str
    driver: str | None = None  # version of the NVIDIA driver; None if none is loaded
    supported: tuple[int, int] | None = None  # newest version of CUDA that the driver runs
    devices: int = 0  # number of devices that this process may use
    # Path of each library; None if it is missing. Empty if they were not looked for.
    libraries: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def problem(self) -> str | None:
        """Why the CUDA provider cannot run, in a few words; None if nothing is amiss."""
        if not self.needed:
            return f"onnxruntime {ort.__version__} was built without CUDA"
        if self.driver is None:
            return "no NVIDIA driver is loaded"
        major = int(self.needed.partition(".")[0])
        if self.supported is not None and self.supported[0] < major:
            newest = ".".join(map(str, self.supported))
            return (
                f"the NVIDIA driver {self.driver} runs CUDA up to {newest}, onnxruntime {ort.__version__} is built for "
                f"CUDA {self.needed}, which needs driver {_DRIVERS.get(major, 'of that version')} or newer"
            )
        if not self.devices:
            return f"the NVIDIA driver {self.driver} shows no device to this process"
        if missing := [name for name, path in self.libraries.items() if path is None]:
            return f"{', '.join(missing)} cannot be loaded: pip install 'ptychonnx[cuda]'"
        return None


@cache
def cuda_state() -> CudaState:
    """Look at this machine; the libraries are loaded only if the driver shows a device."""
    needed = _built_for()
    supported, devices = _driver_reports()
    driver = _driver_version() or ("of unknown version" if supported else None)
    libraries = _load(int(needed.partition(".")[0])) if needed and devices else {}
    return CudaState(needed, driver, supported, devices, libraries)


def _built_for() -> str:
    try:
        from onnxruntime.capi.build_and_package_info import cuda_version
    except ImportError:  # the package for CPUs
        return ""
    return str(cuda_version or "")


def _driver_version() -> str | None:
    with contextlib.suppress(OSError):
        text = Path("/proc/driver/nvidia/version").read_text(encoding="utf-8")
        if match := re.search(r"\b\d+\.\d+(\.\d+)?\b", text):
            return match[0]
    return None


def _driver_reports() -> tuple[tuple[int, int] | None, int]:
    """Newest CUDA that the driver runs, and the number of visible devices."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None, 0
    version, devices = ctypes.c_int(), ctypes.c_int()
    if driver.cuDriverGetVersion(ctypes.byref(version)):
        return None, 0
    if not driver.cuInit(0):
        driver.cuDeviceGetCount(ctypes.byref(devices))
    return (version.value // 1000, version.value % 1000 // 10), devices.value


def _load(major: int) -> dict[str, str | None]:
    """Load the libraries as onnxruntime does: of the `nvidia` packages first, then those on the system's path."""
    with contextlib.redirect_stdout(None):
        ort.preload_dlls()
    names = [name.format(major) for name in _LIBRARIES]
    missing = set()
    for name in names:
        try:
            ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        except OSError:
            missing.add(name)
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    paths = {Path(path).name: path for path in re.findall(r"(/\S+\.so\S*)$", maps, re.MULTILINE)}
    # A library may be mapped under its full version, such as libcudart.so.13.0.96.
    loaded = {
        name: next((path for file, path in paths.items() if file.startswith(name)), "loaded")
        for name in names
    }
    return {name: None if name in missing else loaded[name] for name in names}
