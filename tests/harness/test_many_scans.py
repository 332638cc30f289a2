"""Many scans in one command: each to its own file, what is done is skipped, and what fails stops nothing."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess

import h5py
import numpy as np
import pytest

import ptychonnx
from ptychonnx.harness.campaign import scan_run
from ptychonnx.harness.report import scans_page
from ptychonnx.runtime.formats.readers.native import write_scan

NAMES = ("one", "two", "three")


@pytest.fixture
def night(tmp_path, lines_scan):
    """Three scans, of different rows of the same object."""
    folder = tmp_path / "night"
    folder.mkdir()
    for number, name in enumerate(NAMES):
        write_scan(folder / f"{name}.npz", lines_scan.subset(slice(8 * number, 8 * number + 40)))
    return [folder / f"{name}.npz" for name in NAMES]


@pytest.fixture
def opened(monkeypatch):
    """Sessions that were opened."""
    sessions = []

    class Counted(scan_run.Session):
        def __init__(self, *arguments):
            sessions.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(scan_run, "Session", Counted)
    return sessions


def records(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def object_of(path):
    with h5py.File(path) as file:
        return file["object"][()]


def test_each_scan_is_reconstructed_to_its_own_file(run, four_artifacts, night, tmp_path, opened):
    objects = tmp_path / "objects"
    code, out, error = run("reconstruct", four_artifacts[0], *night, "--out", objects)
    assert code == 0, error
    assert len(opened) == 1
    for path in night:
        single = ptychonnx.reconstruct(four_artifacts[0], path)
        np.testing.assert_array_equal(object_of(objects / f"{path.stem}.h5"), single.object)
    for name, record in zip(NAMES, records(objects), strict=True):
        assert record["result"] == f"{name}.h5"
        assert record["error"] is None
        assert record["patterns"] == 40
        assert record["shape"] == [45 - 12, 45]
        assert record["state"]["bytes"] == (tmp_path / "night" / f"{name}.npz").stat().st_size
        assert f"{name}.npz" in out
        assert f"{record['misfit']:.3f}" in out
        assert f"{record['scattered']:.3f}" in out


def test_a_corrupt_scan_stops_nothing_and_is_done_again(run, four_artifacts, night, tmp_path, lines_scan):
    objects, whole = tmp_path / "objects", night[1].read_bytes()
    night[1].write_bytes(whole[: len(whole) // 2])
    missing = tmp_path / "night" / "missing.npz"
    arguments = ["reconstruct", four_artifacts[0], *night, missing, "--out", objects]
    code, out, error = run(*arguments)
    assert code == 1
    assert "2 of 4 scans failed, the others are in" in error
    assert "two.npz" in out
    assert out.count("failed: ") == 2
    assert sorted(path.name for path in objects.glob("*.h5")) == ["one.h5", "three.h5"]
    assert [record["error"] is None for record in records(objects)] == [True, False, True, False]

    night[1].write_bytes(whole)
    write_scan(missing, lines_scan)
    code, out, error = run(*arguments)
    assert code == 0, error
    assert out.count("done before") == 2
    assert [record["result"] for record in records(objects)[4:]] == ["two.h5", "missing.h5"]


def test_what_is_done_is_skipped_and_what_changed_is_not(run, four_artifacts, night, tmp_path, lines_scan):
    objects = tmp_path / "objects"

    def redone(*more, model=four_artifacts[0]):
        before = len(records(objects)) if objects.is_dir() else 0
        code, _, error = run("reconstruct", model, *night, "--out", objects, *more)
        assert code == 0, error
        return [record["result"].removesuffix(".h5") for record in records(objects)[before:]]

    assert redone() == list(NAMES)
    assert redone() == []
    os.utime(night[0], ns=(1, 1))  # only the time differs
    assert redone() == []
    write_scan(night[0], lines_scan)
    (objects / "three.h5").unlink()
    assert redone() == ["one", "three"]
    assert redone("--weighting", "uniform") == list(NAMES)
    assert redone("--weighting", "uniform", model=four_artifacts[1]) == list(NAMES)
    assert redone("--weighting", "uniform", model=four_artifacts[1]) == []


def test_a_line_of_the_manifest_that_was_cut_short_costs_one_scan(run, four_artifacts, night, tmp_path):
    objects = tmp_path / "objects"
    arguments = ["reconstruct", four_artifacts[0], *night, "--out", objects]
    assert run(*arguments)[0] == 0
    manifest = objects / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    code, out, error = run(*arguments)
    assert code == 0
    assert "line 3 is damaged and was skipped" in error
    assert out.count("done before") == 2
    code, out, _ = run(*arguments)
    assert (code, out.count("done before")) == (0, 3)


def test_a_strict_command_writes_no_object_of_an_unknown_scan(run, four_artifacts, night, tmp_path):
    # The blank network explains none of the patterns.
    code, out, _ = run("reconstruct", four_artifacts[3], *night, "--out", tmp_path / "objects", "--strict")
    assert code == 1
    assert out.count("failed: --strict: ") == 3
    assert not list((tmp_path / "objects").glob("*.h5"))


def test_names_that_collide_are_refused_before_any_work(run, four_artifacts, night, tmp_path, lines_scan):
    other = tmp_path / "other"
    other.mkdir()
    write_scan(other / "one.npz", lines_scan)
    objects = tmp_path / "objects"
    code, _, error = run("reconstruct", four_artifacts[0], *night, other / "one.npz", "--out", objects)
    assert code == 2
    assert "one.h5, expected names that differ" in error
    assert not list(objects.glob("*"))
    assert run("reconstruct", four_artifacts[0], *night, "--out", objects)[0] == 0
    code, _, error = run("reconstruct", four_artifacts[0], other / "one.npz", "--out", objects)
    assert code == 2
    assert f"is the result of {night[0]}, expected another folder" in error


def test_a_file_that_is_no_object_is_not_replaced(run, four_artifacts, night, tmp_path):
    raw = night[0].with_suffix(".h5")
    with h5py.File(raw, "w") as file:
        file["entry_1/data_1/data"] = np.ones((2, 4, 4))
    before = raw.read_bytes()
    code, _, error = run("reconstruct", four_artifacts[0], *night, "--out", raw.parent)
    assert code == 2
    assert f"{raw}: is a file of yours" in error
    assert raw.read_bytes() == before
    raw.unlink()
    assert run("reconstruct", four_artifacts[0], night[0], "--out", raw.parent)[0] == 0
    # A command that was killed before its record was written leaves an object, which is replaced.
    (raw.parent / "manifest.jsonl").unlink()
    assert run("reconstruct", four_artifacts[0], night[0], "--out", raw.parent)[0] == 0
    code, _, error = run("reconstruct", four_artifacts[0], raw.parent, "--out", raw.parent, "--watch")
    assert code == 2
    assert "is the folder that is watched" in error


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "o.h5"], "o.h5: is a file, expected a folder for the objects of 3 scans"),
        (["--out", "objects", "--picture", "p.png"], "--picture: is for one scan"),
        (["--out", "objects", "--shard", "1/2"], "--shard: is for one scan"),
    ],
)
def test_what_is_for_one_scan_is_refused(run, four_artifacts, night, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    code, _, error = run("reconstruct", four_artifacts[0], *night, *options)
    assert code == 2
    assert message in error
    assert [path.name for path in tmp_path.iterdir()] == ["night"]


def test_the_page_shows_every_scan_and_loads_nothing(run, four_artifacts, night, tmp_path):
    objects = tmp_path / "objects"
    night[1].write_bytes(night[1].read_bytes()[:9000])
    assert run("reconstruct", four_artifacts[0], *night, "--out", objects)[0] == 1
    (objects / "three.h5").write_bytes(b"cut short")
    code, out, error = run("summary", objects)
    assert code == 0, error
    assert "3 scans, of which 2 failed" in out
    page = (objects / "summary.html").read_text()
    assert page.count("<img ") == page.count('src="data:image/png;base64,') == 2
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)
    rows = re.findall(r'<td class="name" data-name="(\w+)".*?</tr>', page, re.DOTALL)
    assert rows == ["one", "three", "two"]
    misfit = records(objects)[0]["misfit"]
    assert f'<td data-sort="{misfit}">{misfit:.3f}</td>' in page
    scattered = records(objects)[0]["scattered"]
    assert f'<td data-sort="{scattered}">{scattered:.3f}</td>' in page
    assert "failed: three.h5 cannot be read" in page
    assert re.search(r"failed: \S*two\.npz: truncated", page)


def test_a_thumbnail_is_the_mean_over_blocks_where_there_was_light(tmp_path):
    rng = np.random.default_rng(2)
    image = (rng.normal(size=(600, 450)) + 1j * rng.normal(size=(600, 450))).astype(np.complex64)
    weight = np.ones((600, 450), np.float32)
    weight[:, 440:] = 0
    with h5py.File(tmp_path / "o.h5", "w") as file:
        file["object"], file["weight"] = image, weight
        thumbnail = scans_page.thumbnail(file)
    assert thumbnail.shape == (150, 113)  # blocks of 4 x 4, the last of 2 columns
    np.testing.assert_allclose(thumbnail[7, 9], image[28:32, 36:40].mean(), rtol=1e-6)
    assert (np.isfinite(thumbnail) == (np.arange(113) < 110)).all()


@pytest.mark.browser
@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium on this machine")
def test_the_page_sorts_by_misfit(run, four_artifacts, night, tmp_path):
    objects = tmp_path / "objects"
    night[1].write_bytes(b"")
    # Blurred patches: the misfits of the scans differ.
    assert run("reconstruct", four_artifacts[1], *night, "--out", objects)[0] == 1
    misfits = {record["result"][:-3]: record["misfit"] for record in records(objects)}
    assert run("summary", objects)[0] == 0
    script = """
    <script>
    const names = () => [...document.querySelectorAll("#scans tbody .name")].map(cell => cell.innerText.trim());
    const head = [...document.querySelectorAll("#scans thead button")].find(button => button.innerText === "misfit");
    head.click(); const up = names(); head.click();
    document.title = JSON.stringify([up, names()]);
    </script></body>"""
    page = tmp_path / "page.html"
    page.write_text((objects / "summary.html").read_text().replace("</body>", script))
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
    ]
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    command = ["chromium", *flags, profile, "--dump-dom", page.as_uri()]
    dump = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    title = re.search("<title>(.*?)</title>", dump)
    assert title is not None
    ascending = sorted(("one", "three"), key=misfits.__getitem__)
    # What has no misfit stays last.
    assert json.loads(html.unescape(title[1])) == [[*ascending, "two"], [*ascending[::-1], "two"]]


@pytest.mark.parametrize("name", ["manifest.jsonl", "one.h5"])
def test_a_page_replaces_no_file_of_its_folder(run, tmp_path, name):
    path = tmp_path / name
    path.write_text("kept")
    code, _, error = run("summary", tmp_path, "--out", path)
    assert code == 2
    assert f"--out {path}: expected a name that ends in .html" in error
    assert path.read_text() == "kept"


def test_a_folder_without_a_manifest_is_no_night(run, tmp_path):
    code, _, error = run("summary", tmp_path)
    assert code == 2
    assert "manifest.jsonl: has no scans, expected a folder that `reconstruct` or `evaluate` wrote" in error
