"""Decompression of detector frames; every declared size is compared with the shape before anything is allocated."""

from __future__ import annotations

import io
import struct

import bitshuffle
import lz4.block
import numpy as np
from numpy.typing import NDArray

from ptychonnx.runtime.errors import InputError

__all__ = ["CODECS", "decoded"]

CODECS = ("none", "lz4", "bslz4", "bszstd", "blosc", "jpeg")
# Bytes of uncompressed data, big-endian, and of one block: the header of HDF5's filters, which detectors use.
_HEADER = struct.Struct(">QI")
_LARGEST_FRAME = 2**25


def decoded(data: bytes, codec: str, shape: tuple[int, int], dtype: np.dtype, where: str) -> NDArray:
    """Decompress one frame.

    Raises InputError if the sizes disagree, or the data are damaged.

    * `codec`: one of `CODECS`: raw bytes; LZ4, as one block or with the header of the HDF5 filter; bitshuffle with LZ4
      or Zstandard, with the header of the HDF5 filter; Blosc; JPEG of 8 bits.
    * `shape`: (rows, columns).
    * `dtype`: with the byte order of the sender.
    * `where`: source and frame, at the beginning of error messages.

    Returns [rows, columns] in native byte order.
    """
    rows, columns = shape
    if min(shape) < 1 or rows * columns > _LARGEST_FRAME:
        raise InputError(f"{where}: {rows} x {columns} pixels, expected at most {_LARGEST_FRAME} pixels")
    size = rows * columns * dtype.itemsize
    try:
        values = _decompressed(data, codec, shape, dtype, where)
    except InputError:
        raise
    except Exception as error:  # the codecs raise types of their own
        raise InputError(f"{where}: damaged {codec} data ({error}), expected {size} bytes") from error
    if values.nbytes != size:
        raise InputError(f"{where}: {values.nbytes} bytes, expected {size} for {rows} x {columns} {dtype}")
    return np.ascontiguousarray(values.view(dtype).reshape(shape), dtype=dtype.newbyteorder("="))


def _decompressed(data: bytes, codec: str, shape: tuple[int, int], dtype: np.dtype, where: str) -> NDArray:
    pixels = shape[0] * shape[1]
    size = pixels * dtype.itemsize
    if codec == "none":
        return np.frombuffer(data, np.uint8)
    declared, block = _HEADER.unpack_from(data) if len(data) >= _HEADER.size else (0, 0)
    if codec == "lz4":
        if declared == size:
            return np.frombuffer(_lz4_blocks(data, size, block), np.uint8)
        return np.frombuffer(lz4.block.decompress(data, uncompressed_size=size), np.uint8)
    if codec == "blosc":
        return _blosc(data, size)
    if codec == "jpeg":
        return _jpeg(data, shape)
    if codec not in CODECS:
        raise InputError(f"{where}: compressed with {codec}, expected one of {', '.join(CODECS)}")
    # Some senders leave the header empty: the shape states the size.
    if declared not in (0, size):
        raise InputError(f"{where}: declares {declared} bytes, expected {size}")
    if block % (8 * dtype.itemsize) or not 0 <= block <= 2**24:
        raise InputError(f"{where}: declares blocks of {block} bytes, expected a multiple of eight pixels")
    # bitshuffle does not know where its input ends. Pixels beyond a multiple of eight follow uncompressed.
    _blocks(data, pixels // 8 * 8, block // dtype.itemsize or _default_block(dtype))
    decompress = bitshuffle.decompress_lz4 if codec == "bslz4" else bitshuffle.decompress_zstd
    payload = np.frombuffer(data, np.uint8, offset=_HEADER.size)
    return decompress(payload, (pixels,), dtype, block // dtype.itemsize).view(np.uint8)


def _blosc(data: bytes, size: int) -> NDArray:
    """Decompress Blosc, whose header states the size of the result and of the data."""
    import blosc  # few detectors need it

    declared, length = struct.unpack_from("<I4xI", data, 4)
    if (declared, length) != (size, len(data)):
        raise ValueError(f"declares {declared} bytes in {length}, there are {len(data)}")
    return np.frombuffer(blosc.decompress(data), np.uint8)


def _jpeg(data: bytes, shape: tuple[int, int]) -> NDArray:
    """Decompress a grey JPEG; its header states the size before anything is decoded."""
    from PIL import Image  # slow to import

    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        if image.mode != "L" or (image.height, image.width) != shape:
            raise ValueError(f"{image.width} x {image.height} pixels of mode {image.mode}")
        return np.asarray(image).reshape(-1)


def _default_block(dtype: np.dtype) -> int:
    """Pixels of a block whose size is not stated, as bitshuffle chooses it."""
    return max(128, 8192 // dtype.itemsize // 8 * 8)


def _blocks(data: bytes, size: int, block: int) -> list[memoryview]:
    """Compressed blocks of `block` each of `size` uncompressed units, each of which has its length before it."""
    blocks, place, view = [], _HEADER.size, memoryview(data)
    for _ in range(0, size, block):
        length = int.from_bytes(view[place : place + 4], "big")
        place += 4 + length
        if place > len(data):
            raise ValueError("a block is cut off")
        blocks.append(view[place - length : place])
    return blocks


def _lz4_blocks(data: bytes, size: int, block: int) -> bytes:
    """The content of blocks of HDF5's LZ4 filter; a block that did not shrink is stored as it is."""
    parts = []
    for start, part in zip(range(0, size, block), _blocks(data, size, block), strict=True):
        whole = min(block, size - start)
        parts.append(part if len(part) == whole else lz4.block.decompress(part, uncompressed_size=whole))
    return b"".join(parts)
