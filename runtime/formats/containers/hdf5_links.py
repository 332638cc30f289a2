"""HDF5 links, virtual datasets and external storage: followed to regular files in the scan's folder only.

An HDF5 file may name any other file as a part of itself, and HDF5 fills with zeros whatever it does not find. Links are
therefore followed here, one by one, and the storage of a dataset is checked before it is read.
"""

from __future__ import annotations

import stat
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin  # noqa: F401  (registers the compression filters of detectors)

from ptychonnx.runtime.errors import InputError

__all__ = ["LinkGuard", "check_storage", "dangling_target", "follow", "open_hdf5"]

_MAX_LINKS = 32
# Ends of selections without limits are larger.
_UNLIMITED = 2**62


@dataclass(frozen=True)
class LinkGuard:
    """Where links may lead."""

    folder: Path | None  # every file must be in it, after symbolic links are resolved; None allows any folder
    stack: ExitStack  # closes the files that links lead to

    def check(self, target: Path, origin: str) -> bool:
        """Whether a file exists.

        Raises InputError if it exists and is not a regular file in the folder; `origin` (file and key) begins the
        message.
        """
        if self.folder is not None and not target.resolve().is_relative_to(self.folder):
            raise InputError(
                f"{origin} leads to {target}, expected a file in {self.folder} (--external-links allows any folder)"
            )
        if not target.exists():
            return False
        if not target.is_file():
            raise InputError(f"{origin} leads to {target}, which is not a regular file, expected one")
        return True


def open_hdf5(path: Path, stack: ExitStack) -> h5py.File:
    """Open a file, which `stack` closes.

    Raises InputError if it is not a regular HDF5 file.
    """
    # Opening a FIFO would wait forever.
    if not stat.S_ISREG(path.stat().st_mode) or not h5py.is_hdf5(path):
        raise InputError(f"{path}: no HDF5 file, expected one")
    return stack.enter_context(h5py.File(path, "r"))


def follow(root: h5py.File, name: str, path: Path, guard: LinkGuard) -> h5py.Dataset | h5py.Group | None:
    """The object with a name, links followed; None if there is none, or if a link leads nowhere or to itself.

    Raises InputError if a link leads to something other than a regular file in the allowed folder.
    """
    here: h5py.Group = root
    parts = _parts(name)
    for _ in range(_MAX_LINKS + len(parts)):
        if not parts:
            return here
        if not isinstance(here, h5py.Group):
            return None
        part = parts.pop(0)
        link = here.get(part, getlink=True)
        if isinstance(link, h5py.SoftLink):
            parts = [*_parts(link.path), *parts]
            here = here.file if link.path.startswith("/") else here
        elif isinstance(link, h5py.ExternalLink):
            target = Path(here.file.filename).parent / link.filename
            if not guard.check(target, f"{path}: {name}"):
                return None
            here = open_hdf5(target, guard.stack)
            parts = [*_parts(link.path), *parts]
        elif link is None:
            return None
        else:
            here = here[part]
    return None


def dangling_target(root: h5py.File, name: str) -> str | None:
    """File, or path in the same file, that a link of this name leads to."""
    try:
        link = root.get(name, getlink=True)
    except (KeyError, RuntimeError):
        return None
    if isinstance(link, h5py.ExternalLink):
        return link.filename
    return link.path if isinstance(link, h5py.SoftLink) else None


def check_storage(
    dataset: h5py.Dataset, path: Path, guard: LinkGuard, outer: tuple[h5py.Dataset, ...] = ()
) -> None:
    """Refuse a dataset whose values are in files that are missing or out of bounds.

    Raises InputError if a file of a virtual dataset or of external raw storage is missing or outside the allowed
    folder, or a virtual dataset is a source of itself, which h5py would never release its lock after.

    `outer`: virtual datasets that have this one as a source.
    """
    where = f"{path}: {dataset.name}"
    _check_filters(dataset, where)
    folder = Path(dataset.file.filename).parent
    for file_name, _, _ in dataset.external or ():
        if not guard.check(folder / file_name, where):
            raise InputError(f"{where} is stored in {folder / file_name}, which is missing, expected it")
    # A scan may have a source for each frame, all in one dataset.
    parts: dict[tuple[str, str], h5py.Dataset] = {}
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        if "%b" in source.file_name and _is_endless(source.vspace):
            pattern = f"{source.file_name.replace('%b', '*')}:{source.dset_name}"
            raise InputError(
                f"{where} is a virtual dataset of any number of files, {source.file_name}, expected a known number: "
                f"--map patterns={pattern} reads them"
            )
        key = (source.file_name, source.dset_name)
        if key in parts:
            _refuse_short(parts[key], source, where)
            continue
        if source.file_name == ".":
            inner = dataset.file
        else:
            # A pattern of names, such as data_%b.h5, counts blocks from 0.
            target = folder / source.file_name.replace("%b", "0")
            if not guard.check(target, where):
                raise InputError(
                    f"{where} is a virtual dataset whose source {target} is missing, expected it: HDF5 would read zeros"
                )
            inner = open_hdf5(target, guard.stack)
        name = source.dset_name.replace("%b", "0")
        part = follow(inner, name, path, guard)
        if not isinstance(part, h5py.Dataset):
            raise InputError(
                f"{where} is a virtual dataset whose source {source.file_name}:{name} is missing, expected it"
            )
        _refuse_short(part, source, where)
        parts[key] = part
        inside = (*outer, dataset)
        if part in inside or len(inside) > _MAX_LINKS:
            raise InputError(f"{where} is a virtual dataset of itself, expected other data")
        check_storage(part, path, guard, inside)


def _check_filters(dataset: h5py.Dataset, where: str) -> None:
    """Refuse chunks in a compression that is not installed, of which HDF5 tells a folder of its own alone."""
    if not dataset.chunks or dataset.is_virtual or not dataset.id.get_num_chunks():
        return
    filters = dataset.id.get_create_plist()
    for place in range(filters.get_nfilters()):
        code, _, _, name = filters.get_filter(place)
        # A chunk may have been written without a filter.
        if h5py.h5z.filter_avail(code) or dataset.id.get_chunk_info(0).filter_mask >> place & 1:
            continue
        raise InputError(
            f"{where} is compressed with the HDF5 filter {code} ({name.decode('utf-8', 'replace')!r}), which is not "
            "installed, expected one of hdf5plugin or HDF5: h5repack rewrites the file"
        )


def _refuse_short(part: h5py.Dataset, source: Any, where: str) -> None:
    # HDF5 crashes where it reads behind the end of a source.
    if _too_short(part, source):
        name = f"{source.file_name}:{source.dset_name}"
        raise InputError(
            f"{where} is a virtual dataset whose source {name} has shape {part.shape}, which is too small, expected "
            "all of it: was the scan ended early?"
        )


def _is_endless(space: h5py.h5s.SpaceID) -> bool:
    """Whether a selection goes on as long as there are sources, so that HDF5 cannot count its points."""
    endless = h5py.h5s.UNLIMITED
    return space.is_regular_hyperslab() and endless in (*space.get_regular_hyperslab()[2], *space.shape)


def _too_short(part: h5py.Dataset, source: Any) -> bool:
    """Whether a virtual dataset takes more from a source than it has; selections without limits never do."""
    if source.src_space.get_select_type() == h5py.h5s.SEL_ALL:
        return part.size < source.vspace.get_select_npoints() < _UNLIMITED
    ends = source.src_space.get_select_bounds()[1]
    return any(have < end + 1 < _UNLIMITED for have, end in zip(part.shape, map(int, ends), strict=False))


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part and part != "."]
