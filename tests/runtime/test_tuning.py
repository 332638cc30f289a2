"""Batch and threads found by trials, and remembered for one artifact on one machine."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.inference.tuning import _fastest, tuned
from ptychonnx.runtime.paths import cache_folder
from ptychonnx.runtime.scan import Scan
from tests.runtime.test_session import SIZE, contract, fix_batch, write_identity


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("PTYCHONNX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def artifact(tmp_path):
    return write_identity(tmp_path / "identity.onnx", contract())


@pytest.fixture
def scan() -> Scan:
    rng = np.random.default_rng(0)
    return Scan(rng.random((20, SIZE, SIZE), dtype=np.float32), rng.uniform(0, 9, (20, 2)), name="random")


def tune(session, scan, seconds=0.2):
    lines = []
    chosen, batch = tuned(session, scan, seconds=seconds, log=lines.append)
    return chosen, batch, lines


def test_the_least_time_wins_and_a_small_gain_is_no_reason_for_a_larger_batch():
    assert _fastest({(1, 1): 3.0, (1, 16): 1.2, (2, 16): 1.0, (2, 64): 1.1}) == (2, 16)
    assert _fastest({(1, 1): 3.0, (2, 16): 1.02, (1, 16): 1.01, (2, 64): 1.0}) == (1, 16)
    assert _fastest({(None, 1): 3.0, (None, 64): 1.0}) == (None, 64)


def test_a_choice_is_made_by_trials_and_remembered(artifact, scan, cache):
    session, batch, lines = tune(Session(artifact, "cpu"), scan)
    assert batch in (1, 4, 8, 16, 32, 64, 128)
    assert session.threads is not None
    assert "was fastest" in lines[0]
    (path,) = cache.rglob("*.json")
    content = json.loads(path.read_text())
    assert content["batch"] == batch
    assert content["threads"] == session.threads
    # What is remembered is believed, so no trial is made again.
    path.write_text(json.dumps(content | {"batch": 7, "threads": 1}))
    again, batch, lines = tune(Session(artifact, "cpu"), scan)
    assert (batch, again.threads) == (7, 1)
    assert str(path) in lines[0]
    np.testing.assert_array_equal(
        again.predict(scan.diffraction[:3, None]), session.predict(scan.diffraction[:3, None])
    )


def test_another_artifact_or_provider_has_a_choice_of_its_own(artifact, scan, cache, tmp_path):
    tune(Session(artifact, "cpu"), scan)
    copy = shutil.copy(artifact, tmp_path / "copy.onnx")
    tune(Session(copy, "cpu"), scan)
    assert len(list(cache.rglob("*.json"))) == 1
    other = write_identity(tmp_path / "other.onnx", contract(label="pinn_other"))
    tune(Session(other, "cpu"), scan)
    assert len(list(cache.rglob("*.json"))) == 2
    tune(Session(artifact, "cpu", threads=1), scan)
    assert len(list(cache.rglob("*.json"))) == 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[1, 2]",
        lambda text: text.replace('"batch": ', '"batch": -'),
        lambda text: text.replace('"version": 2', '"version": 1'),
        lambda text: text.replace('"cores": "', '"cores": "1'),
    ],
)
def test_a_file_that_is_not_understood_is_said_and_replaced(artifact, scan, cache, damage):
    tune(Session(artifact, "cpu"), scan)
    (path,) = cache.rglob("*.json")
    whole = path.read_text()
    damaged = damage(whole)
    assert damaged != whole
    path.write_text(damaged)
    _, batch, lines = tune(Session(artifact, "cpu"), scan)
    assert lines[0].startswith(f"warning: {path}: ")
    assert lines[0].endswith(", tuning again")
    assert json.loads(path.read_text())["batch"] == batch
    assert json.loads(path.read_text())["key"] == json.loads(whole)["key"]


def test_without_a_place_to_write_the_choice_is_used_but_not_remembered(artifact, scan, cache):
    cache.write_text("a file where a folder should be")
    _, batch, lines = tune(Session(artifact, "cpu"), scan)
    assert batch >= 1
    assert any("warning: the tuning is not cached" in line for line in lines)


def test_what_is_fixed_is_kept(artifact, scan):
    session, _, _ = tune(Session(artifact, "cpu", threads=2), scan)
    assert session.threads == 2
    fix_batch(artifact, 4, 4)
    session, batch, _ = tune(Session(artifact, "cpu"), scan)
    assert batch == session.contract.batch == 4


def test_a_slow_network_is_tried_in_the_smallest_batch_only(artifact, scan):
    _, batch, _ = tune(Session(artifact, "cpu"), scan, seconds=0.0)
    assert batch == 1


def test_a_scan_that_does_not_fit_is_refused(artifact):
    with pytest.raises(InputError, match="patterns are 8 x 8 pixels"):
        tune(Session(artifact, "cpu"), Scan(np.ones((5, 8, 8), np.float32), np.zeros((5, 2)), name="small"))


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has another folder")
def test_the_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("PTYCHONNX_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "ptychonnx"
    for unusable in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", unusable)
        assert cache_folder() == tmp_path / "home" / ".cache" / "ptychonnx"
