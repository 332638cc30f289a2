"""Sources by the scheme of a URL: our own, and those that other packages add through entry points."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.live.events import FrameSource, PositionSource

__all__ = ["FRAME_SOURCES", "POSITION_SOURCES", "check_apart", "open_frames", "open_positions"]

# Module and class or function of each scheme, imported when it is used: protocols need packages of the extra [live].
FRAME_SOURCES = {
    "zmq": "frames.dectris_stream1:DectrisStream1",
    "zmq+sub": "frames.dectris_stream1:DectrisStream1",
    "stream2": "frames.stream2:Stream2",
    "stream2+sub": "frames.stream2:Stream2",
    "swmr+file": "frames.growing_hdf5:GrowingHDF5",
    "pva": "frames.pv_access:PVAccess",
}
POSITION_SOURCES = {
    "zmq": "positions.json_messages:JsonMessages",
    "zmq+sub": "positions.json_messages:JsonMessages",
    "csv": "positions.growing_table:GrowingTable",
    "swmr+file": "positions.growing_datasets:GrowingDatasets",
    "pva": "positions.pv_table:PVTable",
    "raster": "positions.planned_raster:PlannedRaster",
}
_FILES = {".csv": "csv", ".txt": "csv", ".dat": "csv"}


def check_apart(frames: str, positions: str) -> None:
    """Refuse one address for frames and positions: each would take messages of the other. One file may hold both.

    Raises InputError.
    """
    detector, encoder = urlsplit(frames), urlsplit(positions)
    same = (detector.netloc, detector.path) == (encoder.netloc, encoder.path)
    if same and detector.netloc and detector.scheme != "swmr+file":
        raise InputError(
            f"--positions {positions}: is the address of --frames, expected that of the encoders"
        )


def open_frames(url: str) -> FrameSource:
    """Connect to the frames at a URL.

    Raises InputError if the URL has no known scheme, or the source cannot be opened.
    """
    return _open(url, urlsplit(url).scheme, FRAME_SOURCES, "ptychonnx.live.frames", "--frames")


def open_positions(url: str) -> PositionSource:
    """Connect to the positions at a URL, or in a file.

    Raises InputError if the URL has no known scheme, or the source cannot be opened.
    """
    scheme = urlsplit(url).scheme
    if "://" not in url:
        scheme = _FILES.get(Path(url).suffix.lower(), "")
    return _open(url, scheme, POSITION_SOURCES, "ptychonnx.live.positions", "--positions")


def _open(url: str, scheme: str, own: Mapping[str, str], group: str, option: str) -> Any:
    added = {point.name: point for point in entry_points(group=group)}
    if scheme in own:
        return _imported(own[scheme], scheme)(url)
    if scheme in added:
        return added[scheme].load()(url)
    known = ", ".join(f"{name}://" for name in (*own, *added))
    raise InputError(f"{option} {url}: unknown kind of source, expected one of {known}")


def _imported(target: str, scheme: str) -> Callable[[str], Any]:
    module, function = target.split(":")
    try:
        return getattr(import_module(f"ptychonnx.runtime.live.{module}"), function)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{scheme}://: needs the package {error.name}, expected: pip install 'ptychonnx[live]'"
        ) from error
