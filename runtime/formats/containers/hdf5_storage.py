"""Parts of HDF5 datasets that were never written, which HDF5 reads as zeros."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

__all__ = ["unwritten"]


def unwritten(dataset: h5py.Dataset, leading: int) -> NDArray[np.bool_]:
    """True for each slice along the `leading` first axes that was not written completely.

    A contiguous dataset is written as a whole, a chunked one chunk by chunk, and a virtual one by its sources.
    """
    shape = dataset.shape[:leading]
    if not dataset.size:
        return np.zeros(shape, dtype=bool)
    if dataset.is_virtual:
        return _unwritten_sources(dataset, leading)
    if dataset.chunks is None:
        return np.full(shape, dataset.id.get_storage_size() == 0)
    grid = [-(-length // chunk) for length, chunk in zip(dataset.shape, dataset.chunks, strict=True)]
    count = dataset.id.get_num_chunks()
    if count == int(np.prod(grid)):
        return np.zeros(shape, dtype=bool)
    if count == 0:
        return np.ones(shape, dtype=bool)
    written = np.zeros(grid[:leading], dtype=np.int64)

    def mark(info: Any) -> None:
        place = tuple(
            offset // chunk for offset, chunk in zip(info.chunk_offset, dataset.chunks, strict=True)
        )
        written[place[:leading]] += 1

    dataset.id.chunk_iter(mark)
    missing = written < int(np.prod(grid[leading:]))
    for axis in range(leading):
        missing = np.repeat(missing, dataset.chunks[axis], axis=axis)
    return missing[tuple(slice(length) for length in shape)]


def _unwritten_sources(dataset: h5py.Dataset, leading: int) -> NDArray[np.bool_]:
    """The same for a virtual dataset, whose sources exist.

    Slices that a source lacks, or that sources fill to a smaller part than others: several sources may each hold a
    part of all slices, as the modules of a detector do.
    """
    lacking, filled = np.zeros(dataset.shape[0], dtype=bool), np.zeros(dataset.shape[0], dtype=np.int64)
    folder = Path(dataset.file.filename).parent
    # A scan may have a source for each frame, all in one dataset.
    known: dict[tuple[str, str], NDArray[np.bool_]] = {}
    for source in dataset.virtual_sources():
        slices = _slices(source.vspace, dataset.shape[0])
        key = (source.file_name, source.dset_name)
        if key not in known:
            with ExitStack() as stack:
                file = dataset.file
                if source.file_name != ".":
                    file = stack.enter_context(h5py.File(folder / source.file_name.replace("%b", "0"), "r"))
                known[key] = unwritten(file[source.dset_name.replace("%b", "0")], 1)
        missing = known[key][_slices(source.src_space, len(known[key]))]
        lacking[slices] |= missing if len(missing) == len(slices) else missing.any()
        filled[slices] += source.vspace.get_select_npoints() // max(1, len(slices))
    incomplete = lacking | (filled < filled.max(initial=1))
    return np.broadcast_to(incomplete.reshape(-1, *(1,) * (leading - 1)), dataset.shape[:leading]).copy()


def _slices(space: h5py.h5s.SpaceID, length: int) -> NDArray[np.intp]:
    """Indices along the first axis that a selection takes, of `length` if it takes all."""
    if space.get_select_type() == h5py.h5s.SEL_ALL:
        return np.arange(length)
    if space.is_regular_hyperslab():
        start, stride, count, block = (int(values[0]) for values in space.get_regular_hyperslab())
        if start + stride * (count - 1) + block <= max(length, int(space.shape[0])):
            return (start + stride * np.arange(count)[:, None] + np.arange(block)).ravel()
    first, last = (int(bound[0]) for bound in space.get_select_bounds())
    return np.arange(first, last + 1)
