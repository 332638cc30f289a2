"""Frames as detectors send them, and broken ones."""

from __future__ import annotations

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError

from .live_streams import (
    received,
)

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
