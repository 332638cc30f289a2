"""Frames as detectors send them, and broken ones."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.live.events import SeriesBegin, SeriesEnd

from .live_streams import received, received_all

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
