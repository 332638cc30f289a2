"""Frames as detectors send them, and broken ones."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from ptychonnx.harness.replay.detectors import open_detector
from ptychonnx.harness.replay.replay import ReplayOptions
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.live.events import Frame, SeriesBegin, SeriesEnd
from ptychonnx.runtime.live.sources import open_frames

from .live_streams import free_port, received, received_all

pytest.importorskip("bitshuffle")


@pytest.mark.parametrize("suffix", ["lz4", "none", "big-endian"])
def test_every_encoding_of_stream_v1_is_read(suffix: str) -> None:
    import lz4.block

    image = np.random.default_rng(0).integers(0, 60000, (12, 20)).astype(np.uint16)
    encoding, data = {
        "lz4": ("lz4<", lz4.block.compress(image.tobytes(), store_size=False)),
        "none": ("<", image.tobytes()),
        "big-endian": (">", image.astype(">u2").tobytes()),
    }[suffix]
    (event,) = received(
        {"htype": "dimage-1.0", "series": 3, "frame": 7},
        {"htype": "dimage_d-1.0", "shape": [20, 12], "type": "uint16", "encoding": encoding},
        data,
    )
    assert (event.series, event.number) == (3, 7)
    np.testing.assert_array_equal(event.image, image)


@pytest.mark.parametrize(
    ("changes", "data", "reason"),
    [
        ({"shape": [2**16, 2**16]}, b"", "expected at most"),
        ({}, (2**40).to_bytes(8, "big") + bytes(4), "declares 1099511627776 bytes, expected 512"),
        ({}, (512).to_bytes(8, "big") + bytes(12), "damaged bslz4 data"),
        ({}, (512).to_bytes(8, "big") + bytes(4) + b"\x7f\xff\xff\xff" + bytes(9), "a block is cut off"),
        ({}, bytes(12), "a block is cut off"),
        ({}, (512).to_bytes(8, "big") + (3).to_bytes(4, "big"), "blocks of 3 bytes"),
        ({"type": "complex64"}, b"", "is complex64"),
        ({"encoding": "bs32-lz4<"}, b"", "expected bs16-lz4<"),
    ],
)
def test_a_broken_frame_is_reported_by_number_and_ends_nothing(
    changes: dict, data: bytes, reason: str
) -> None:
    description = {"shape": [16, 16], "type": "uint16", "encoding": "bs16-lz4<", **changes}
    (event,) = received({"htype": "dimage-1.0", "series": 1, "frame": 5}, description, data)
    assert event.number == 5
    assert reason in event.reason


def test_headers_in_several_messages_and_without_sizes_are_read() -> None:
    """As libertem-dectris 0.3.2 simulates a detector: its messages, with a frame of ours."""
    import bitshuffle

    image = np.arange(16 * 24, dtype=np.uint16).reshape(16, 24)
    frame = [
        {"frame": 0, "hash": "", "htype": "dimage-1.0", "series": 34},
        {"encoding": "bs16-lz4<", "htype": "dimage_d-1.0", "shape": [24, 16], "size": 0, "type": "uint16"},
        bytes(12) + bitshuffle.compress_lz4(image.reshape(-1)).tobytes(),
        {"htype": "dconfig-1.0", "real_time": 500000},
    ]
    events = received_all(
        [{"header_detail": "basic", "htype": "dheader-1.0", "series": 34}],
        [{"bit_depth_image": 16, "compression": "bslz4", "nimages": 1, "ntrigger": 30}],
        frame,
        [{"htype": "dseries_end-1.0", "series": 34}],
    )
    assert events[0] == SeriesBegin(34, None)
    assert events[1] == SeriesBegin(34, 30)
    np.testing.assert_array_equal(events[2].image, image)
    assert events[3] == SeriesEnd(34)


def test_what_is_no_stream_is_refused() -> None:
    with pytest.raises(InputError, match="expected DECTRIS Stream v1"):
        received(b"\x00\x01 not json")


def test_stream2_with_zstandard_and_without_compression_is_read() -> None:
    import bitshuffle
    import cbor2

    image = np.random.default_rng(0).integers(0, 60000, (12, 20)).astype(np.uint16)
    header = image.nbytes.to_bytes(8, "big") + (2048).to_bytes(4, "big")
    for content in (
        image.tobytes(),
        ["bszstd", 2, header + bitshuffle.compress_zstd(image.reshape(-1), 1024).tobytes()],
    ):
        message = {
            "type": "image",
            "series_id": 2,
            "image_id": 9,
            "data": {"threshold_1": [[12, 20], cbor2.CBORTag(69, content)]},
        }
        (event,) = received(cbor2.dumps(message), scheme="stream2")
        assert (event.series, event.number) == (2, 9)
        np.testing.assert_array_equal(event.image, image)
    message["data"] = {"threshold_1": [[2**14, 2**14], cbor2.CBORTag(69, ["bslz4", 2, b""])]}
    (event,) = received(cbor2.dumps(message), scheme="stream2")
    assert "expected at most" in event.reason
    with pytest.raises(InputError, match="expected Stream2"):
        received(b"\xff\xff", scheme="stream2")


def test_every_codec_of_pv_access_is_read_and_others_are_refused_by_name() -> None:
    """p4p's own server; it does not compress, so the test does."""
    import bitshuffle
    import blosc
    import lz4.block
    from p4p.nt import NTNDArray
    from p4p.server import Server
    from p4p.server.thread import SharedPV

    image = np.random.default_rng(0).integers(0, 250, (12, 20)).astype(np.uint16)
    small, jpeg = np.full((12, 20), 77, np.uint8), io.BytesIO()
    Image.fromarray(small).save(jpeg, "JPEG")
    packed = blosc.compress(image.tobytes(), typesize=2)
    bomb = packed[:4] + (2**31 - 1).to_bytes(4, "little") + packed[8:]
    sent = [
        ("", 0, b""),
        ("lz4", 6, lz4.block.compress(image.tobytes(), store_size=False)),
        ("bslz4", 6, bitshuffle.compress_lz4(image.reshape(-1)).tobytes()),
        ("blosc", 6, packed),
        ("jpeg", 5, jpeg.getvalue()),
        ("blosc", 6, bomb),
        ("jpeg", 5, jpeg.getvalue()[:300]),
        ("zfp", 6, b"1234"),
    ]
    connected = threading.Event()

    class Connected:
        def onFirstConnect(self, pv: SharedPV) -> None:
            connected.set()

    kind, port = NTNDArray(), free_port()
    pv = SharedPV(handler=Connected(), initial=kind.wrap(image))
    settings = {"EPICS_PVAS_INTF_ADDR_LIST": "127.0.0.1", "EPICS_PVAS_SERVER_PORT": str(port)}
    settings["EPICS_PVAS_AUTO_BEACON_ADDR_LIST"] = "NO"
    with Server(providers=[{"image": pv}], conf=settings, useenv=False):
        source = open_frames(f"pva://127.0.0.1:{port}/image?first=1")
        assert connected.wait(30)
        assert source.receive(0.5) is None
        for number, (codec, parameter, data) in enumerate(sent, 1):
            value = kind.wrap(image)
            value["uniqueId"] = number
            if codec:
                value["value"] = ("ubyteValue", np.frombuffer(data, np.uint8))
                value["codec"] = {"name": codec, "parameters": parameter}
            pv.post(value)
        events = [source.receive(10) for _ in range(len(sent) + 1)]
        source.close()
    assert events[0] == SeriesBegin(1, None)
    for event in events[1:5]:
        np.testing.assert_array_equal(event.image, image)
    np.testing.assert_array_equal(events[5].image, small)
    assert "damaged blosc data (declares 2147483647 bytes" in events[6].reason
    assert "damaged jpeg data" in events[7].reason
    assert "compressed with zfp" in events[8].reason
    assert "expected lz4, bslz4, blosc, jpeg" in events[8].reason


@pytest.mark.timeout(60)
def test_a_growing_file_that_was_cut_short_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("d", data=np.ones((20, 16, 16), np.uint32), chunks=(1, 16, 16))
    path.write_bytes(path.read_bytes()[:592])
    frames = open_frames(f"swmr+file://{path}?data=/d&frames=20")
    # HDF5 would read the metadata that are missing a hundred times, each after twice the time before.
    assert isinstance(frames.receive(0.5), SeriesBegin)
    with pytest.raises(InputError, match=r"damaged or unreadable \("):
        frames.receive(0.5)
    frames.close()


def test_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9):
        with h5py.File(tmp_path / f"scan_{number}.h5", "w", libver="latest") as file:
            file.create_dataset("d", data=np.full((1, 4, 4), number, np.uint32), chunks=(1, 4, 4))
    frames = open_frames(f"swmr+file://{tmp_path}/scan_*.h5?data=/d&frames=2")
    events = [frames.receive(2) for _ in range(4)]
    assert [event.image[0, 0] for event in events if isinstance(event, Frame)] == [9, 10]
    frames.close()


def test_silx_reads_the_file_that_grows(tmp_path: Path) -> None:
    """A reader that is not ours, while the replay writes."""
    h5py_utils = pytest.importorskip("silx.io.h5py_utils")
    image = np.random.default_rng(0).integers(0, 60000, (12, 20)).astype(np.uint16)
    writer = open_detector("swmr", str(tmp_path / "grows.h5"), ReplayOptions(), 1)
    for number in range(3):
        writer.send(number, image + number)
        # silx takes a process of its own: HDF5 shares open files inside one.
        seen = subprocess.run(
            [sys.executable, "-c", SILX, tmp_path / "grows.h5"], capture_output=True, text=True, check=True
        ).stdout.split()
        assert seen == [str(number + 1), str(int((image + number).sum()))]
    assert h5py_utils is not None
    writer.close()


SILX = """
import sys
import hdf5plugin
from silx.io.h5py_utils import File
with File(sys.argv[1], mode="r", swmr=True, libver="latest") as file:
    data = file["/entry/data/data"]
    print(len(data), int(data[-1].sum()))
"""


@pytest.mark.parametrize("port", [0, 65536, 99999])
def test_a_port_that_does_not_exist_is_refused(port):
    with pytest.raises(InputError, match="expected HOST:PORT with a port from 1 to 65535"):
        open_detector("zmq", f"127.0.0.1:{port}", ReplayOptions(), 1.0)


@pytest.mark.parametrize("values", [{"rate": 1e-300}, {"samples": 10**11}])
def test_a_replay_that_would_never_end_is_refused(values):
    with pytest.raises(ValueError, match=next(iter(values))):
        ReplayOptions(**values)
