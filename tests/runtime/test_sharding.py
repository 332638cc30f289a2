"""A scan in parts gives the object of one process, bit for bit, or is refused by name."""

from __future__ import annotations

import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_reference, read_scan, write_scan
from ptychonnx.runtime.formats.writers.reconstruction_file import write_reconstruction
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.reconstruction import reconstruct, segment_run
from ptychonnx.runtime.reconstruction.reconstruct_options import ReconstructOptions
from ptychonnx.runtime.reconstruction.segment_run import segments
from ptychonnx.runtime.scan import Scan
from ptychonnx.runtime.scan.amplitudes import LazyAmplitudes
from ptychonnx.runtime.sharding import Shard, merge_parts, part_file, reconstruct_shard
from tests.runtime.conftest import SIZE, gaussian_probe
from tests.runtime.test_session import contract, write_identity

PATTERNS = 90
SHARDS = 4
BATCH = 8
SKIP = ReconstructOptions(skip_invalid=True)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch):
    """Segments of 16 patterns."""
    monkeypatch.setattr(segment_run, "_SHORTEST", 2 * BATCH)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    return Session(write_identity(tmp_path_factory.mktemp("network") / "identity.onnx", contract()), "cpu", 1)


@pytest.fixture(scope="module")
def scan_file(tmp_path_factory):
    """Patterns at sub-pixel positions in random order, whose patches differ."""
    rng = np.random.default_rng(4)
    scan = Scan(
        rng.random((PATTERNS, SIZE, SIZE), dtype=np.float32),
        rng.uniform(8, 90, (PATTERNS, 2)),
        probe=gaussian_probe(),
        pixel_size=2e-8,
        wavelength=1.5e-10,
        name="random",
    )
    path = tmp_path_factory.mktemp("scan") / "scan.npz"
    write_scan(path, scan)
    return path


def unread(path) -> Scan:
    """The scan with its patterns still in their file and the power of its probe not yet known."""
    scan = read_scan(path)
    patterns = np.asarray(scan.diffraction)
    lazy = LazyAmplitudes(patterns.shape, lambda start, stop: patterns[start:stop].copy(), 5, scan.name)
    return replace(scan, diffraction=lazy, probe_estimated=True)


@pytest.fixture
def parts(session, scan_file, tmp_path):
    """Part files of all shards, each from a scan that was opened anew."""
    paths = [tmp_path / f"{number}.h5" for number in range(1, SHARDS + 1)]
    for number, path in enumerate(paths, 1):
        reconstruct_shard(session, read_scan(scan_file), Shard(number, SHARDS), path, batch=BATCH)
    return paths


@pytest.mark.parametrize("memory", [None, 1], ids=["in memory", "in tiles"])
@pytest.mark.parametrize("weighting", ["probe", "uniform"])
@pytest.mark.parametrize("placement", ["bilinear", "fourier"])
def test_parts_in_any_order_give_the_object_of_one_process(
    session, scan_file, tmp_path, memory, placement, weighting
):
    scan = unread(scan_file)
    stitching = ReconstructOptions(weighting=weighting, placement=placement)
    whole = reconstruct(session, scan, stitching, BATCH)
    paths = [tmp_path / f"{number}.h5" for number in range(1, SHARDS + 1)]
    for number, path in enumerate(paths, 1):
        reconstruct_shard(session, unread(scan_file), Shard(number, SHARDS), path, stitching, BATCH)
    merged = merge_parts([paths[number] for number in (2, 0, 3, 1)], canvas_memory=memory)
    write_reconstruction(tmp_path / "merged.h5", merged.reconstruction, merged.scan, merged.contract)
    write_reconstruction(tmp_path / "whole.h5", whole, scan, session.contract)
    with h5py.File(tmp_path / "merged.h5") as one, h5py.File(tmp_path / "whole.h5") as other:
        names: list[str] = []
        other.visit(names.append)
        assert {"object", "weight", "probe", "probe_position_x_m"} <= set(names)
        for name in names:
            # Merging reads no patterns, so nothing is known about the misfit.
            if isinstance(other[name], h5py.Dataset) and not name.startswith("entry/misfit"):
                np.testing.assert_array_equal(one[name][()], other[name][()], err_msg=name)
        assert dict(one.attrs) == dict(other.attrs)
    assert merged.reconstruction.agreement == whole.agreement
    assert whole.agreement is not None


def test_parts_of_a_network_of_central_windows_give_its_object(scan_file, tmp_path):
    network = contract(stitching={"weighting": "probe", "window": 6})
    session = Session(write_identity(tmp_path / "central.onnx", network), "cpu", 1)
    whole = reconstruct(session, read_scan(scan_file), batch=BATCH)
    paths = [tmp_path / f"{number}.h5" for number in (1, 2)]
    for number, path in enumerate(paths, 1):
        reconstruct_shard(session, read_scan(scan_file), Shard(number, 2), path, batch=BATCH)
    merged = merge_parts(paths).reconstruction
    np.testing.assert_array_equal(merged.object, whole.object)
    np.testing.assert_array_equal(merged.stitched.weight, whole.stitched.weight)


class Rotating(Session):
    """Patches get a phase that depends on their pattern, as those of single patterns do."""

    def predict(self, *inputs, **beam):
        patches = super().predict(*inputs, **beam)
        return (patches * np.exp(40j * np.abs(patches).mean(axis=(1, 2), keepdims=True))).astype(np.complex64)


@pytest.mark.parametrize("memory", [None, 1], ids=["in memory", "in tiles"])
@pytest.mark.parametrize("placement", ["bilinear", "fourier"])
def test_synchronised_parts_give_the_object_of_one_process(
    session, scan_file, tmp_path, monkeypatch, memory, placement
):
    monkeypatch.setattr(part_file, "_READ", 7)
    rotating = Rotating(session.source, "cpu", 1)
    stitching = ReconstructOptions(placement=placement, synchronise=True)
    whole = reconstruct(rotating, read_scan(scan_file), stitching, BATCH)
    plain = reconstruct(rotating, read_scan(scan_file), ReconstructOptions(placement=placement), BATCH)
    assert not np.allclose(whole.object, plain.object, rtol=0.1)
    paths = [tmp_path / f"{number}.h5" for number in range(1, SHARDS + 1)]
    for number, path in enumerate(paths, 1):
        reconstruct_shard(rotating, read_scan(scan_file), Shard(number, SHARDS), path, stitching, BATCH)
    merged = merge_parts(paths[::-1], canvas_memory=memory)
    assert merged.reconstruction.synchronised
    write_reconstruction(tmp_path / "merged.h5", merged.reconstruction, merged.scan, merged.contract)
    with h5py.File(tmp_path / "merged.h5") as file:
        np.testing.assert_array_equal(file["object"][()], whole.object)
        np.testing.assert_array_equal(file["weight"][()], whole.stitched.weight.astype(np.float32))


def test_the_sum_of_segments_is_the_object_of_all_patterns_at_once(session, scan_file, monkeypatch):
    scan = read_scan(scan_file)
    groups = np.arange(PATTERNS)[:, None]
    assert [len(part) for part in segments(groups, BATCH)] == [16, 16, 16, 16, 16, 10]
    in_segments = reconstruct(session, scan, batch=BATCH)
    monkeypatch.setattr(segment_run, "_SHORTEST", PATTERNS)
    at_once = reconstruct(session, scan, batch=BATCH)
    np.testing.assert_allclose(in_segments.object, at_once.object, rtol=1e-6)
    np.testing.assert_allclose(in_segments.stitched.weight, at_once.stitched.weight, rtol=1e-12)


@pytest.mark.parametrize(("count", "batch"), [(1, 16), (1025, 16), (1040, 48), (5000, 7), (300_000, 64)])
def test_segments_are_whole_batches_and_hold_every_group_once(count, batch, monkeypatch):
    monkeypatch.setattr(segment_run, "_SHORTEST", 1024)
    groups = np.arange(count)[:, None]
    parts = segments(groups, batch)
    np.testing.assert_array_equal(np.concatenate(parts), groups)
    assert len(parts) <= 64
    assert all(len(part) % batch == 0 for part in parts[:-1])


def test_patterns_left_out_are_listed_after_the_merge(session, scan_file, tmp_path):
    scan = read_scan(scan_file)
    patterns = np.asarray(scan.diffraction).copy()
    patterns[[3, 70]] = np.finfo(
        np.float32
    ).max  # the identity network squares nothing, but the sums overflow
    scan = replace(scan, diffraction=patterns)
    patterns_of = {}

    class Broken(Session):
        def predict(self, *inputs, **beam):
            patches = super().predict(*inputs, **beam)
            return np.where(np.abs(patches) > 1e30, np.nan, patches).astype(np.complex64)

    broken = Broken(session.source, "cpu", 1)
    paths = []
    for number in (1, 2):
        paths.append(tmp_path / f"{number}.h5")
        run = reconstruct_shard(broken, scan, Shard(number, 2), paths[-1], SKIP, BATCH)
        patterns_of[number] = run.skipped
    assert patterns_of == {1: {3}, 2: {70}}
    merged = merge_parts(paths)
    assert merged.reconstruction.skipped == (3, 70)
    whole = reconstruct(broken, scan, SKIP, BATCH)
    np.testing.assert_array_equal(merged.reconstruction.object, whole.object)


def test_missing_and_doubled_parts_are_named(parts):
    with pytest.raises(
        InputError,
        match=r"2 of 6 segments of scan.npz are in none of the 3 parts: 0, 1; expected part 1/4 too$",
    ):
        merge_parts(parts[1:])
    with pytest.raises(
        InputError, match=r"again\.h5 \(part 1/4, written on .*\): segment 0 is also in .*1\.h5"
    ):
        merge_parts([*parts, shutil.copy(parts[0], parts[0].with_name("again.h5"))])
    with pytest.raises(InputError, match="no part is named"):
        merge_parts([])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weighting": "probe"}, "weighting is probe, expected uniform"),
        ({"placement": "fourier"}, "placement is fourier, expected bilinear"),
        ({"batch": 16}, "batch is 16, expected 8"),
        ({"synchronise": True}, "synchronise is True, expected False"),
    ],
)
def test_a_part_with_other_options_is_refused(session, scan_file, parts, change, message):
    batch = change.pop("batch", BATCH)
    stitching = ReconstructOptions(**change)
    reconstruct_shard(session, read_scan(scan_file), Shard(4, SHARDS), parts[3], stitching, batch)
    with pytest.raises(
        InputError,
        match=rf"4\.h5 \(part 4/4, .*\): not a part of the same reconstruction as .*1\.h5 \(.*\): {message}",
    ):
        merge_parts(parts)


def test_a_part_of_another_scan_on_the_same_positions_is_refused(session, scan_file, parts):
    scan = read_scan(scan_file)
    other = replace(scan, diffraction=np.asarray(scan.diffraction)[::-1].copy())
    reconstruct_shard(session, other, Shard(2, SHARDS), parts[1], batch=BATCH)
    with pytest.raises(
        InputError,
        match=r"2\.h5 \(part 2/4, .*\): not a part of the same reconstruction .*: scan sha256 differs",
    ):
        merge_parts(parts)


def test_damaged_parts_are_refused(parts, tmp_path):
    with parts[2].open("r+b") as file:
        file.truncate(parts[2].stat().st_size // 2)
    with pytest.raises(InputError, match=r"3\.h5 \(part 3/4, written on .*\): the part is damaged or cut"):
        merge_parts(parts)
    with (
        h5py.File(tmp_path / "other.h5", "w"),
        pytest.raises(InputError, match="not a part of a reconstruction"),
    ):
        merge_parts([tmp_path / "other.h5"])
    with pytest.raises(InputError, match=r"none\.h5: no such file"):
        merge_parts([tmp_path / "none.h5"])


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "weights",
            lambda values: values * 1j,
            "weights is complex128 .*, expected what --shard writes",
        ),
        ("values", lambda values: values * np.nan, "values holds NaN or infinity"),
        ("weights", lambda values: values[1:], "expected one"),
        ("corner", lambda values: values - 10**6, "sums lie outside the canvas"),
        ("corner", lambda values: values + 10**6, "sums lie outside the canvas"),
    ],
)
def test_sums_that_no_shard_writes_are_refused(parts, name, change, message):
    with h5py.File(parts[0], "a") as file:
        group = file["segments/0/0"]
        values = change(group[name][()])
        del group[name]
        group[name] = values
    with pytest.raises(InputError, match=message):
        merge_parts(parts)


@pytest.mark.parametrize("text", ["", "3", "0/4", "5/4", "a/b", "1/0", "-1/3", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(InputError, match="--shard"):
        Shard.parse(text)


def test_what_cannot_be_divided_is_refused(session, scan_file, tmp_path):
    scan = read_scan(scan_file)
    with pytest.raises(InputError, match=r"has 6 segments, expected at most 6 shards"):
        reconstruct_shard(session, scan, Shard(1, 7), tmp_path / "part.h5", batch=BATCH)
    assert not list(tmp_path.iterdir())


def test_a_merged_object_is_read_back(session, scan_file, parts, tmp_path):
    merged = merge_parts(parts)
    write_reconstruction(tmp_path / "object.h5", merged.reconstruction, merged.scan, merged.contract)
    reference = read_reference(tmp_path / "object.h5", read_scan(scan_file))
    np.testing.assert_array_equal(reference.object, merged.reconstruction.object)
