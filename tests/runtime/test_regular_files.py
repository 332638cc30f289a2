"""Small files are read only if they are regular files of UTF-8 text; a FIFO would wait for a writer for ever."""

from __future__ import annotations

import os

import numpy as np
import pytest

from ptychonnx.export.deploy.openvino import _document
from ptychonnx.harness.campaign.manifest import MANIFEST, FileState, Manifest
from ptychonnx.harness.simulate.manifest import is_current
from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.formats import read_scan
from ptychonnx.runtime.formats.readers.objects import read_object
from ptychonnx.runtime.inference import Session
from ptychonnx.runtime.live.growing_object import GrowingObject
from ptychonnx.runtime.paths import file_sha256, read_text
from ptychonnx.runtime.sharding.part_file import opened_part
from ptychonnx.train.run import CONFIG_NAME, read_run
from ptychonnx.train.training_plan import PLAN_NAME, read_plan

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs"),
    pytest.mark.timeout(60),
]


@pytest.fixture
def fifo(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    return tmp_path / "fifo"


@pytest.mark.parametrize("reader", [read_text, file_sha256, FileState.of])
def test_a_fifo_is_no_file_to_read(fifo, reader):
    with pytest.raises(OSError, match="not a regular file"):
        reader(fifo)


def test_what_is_no_file_is_named(fifo, tmp_path):
    for path, kind in (
        (tmp_path, "is a folder"),
        (fifo, "not a regular file"),
        (tmp_path / "a", "no such file"),
    ):
        with pytest.raises(InputError, match=f"{path}: {kind}, expected an ONNX artifact"):
            Session(path, "cpu")
        with pytest.raises(InputError, match=f"{kind}, expected a scan file"):
            read_scan(path)
        with pytest.raises(InputError, match=f"{kind}, expected an object"):
            read_object(path)


def test_a_fifo_is_no_part_no_configuration_and_no_manifest(fifo, tmp_path):
    with pytest.raises(InputError, match="no HDF5 file"), opened_part(fifo):
        pass
    with pytest.raises(InputError, match="expected a configuration of OpenVINO"):
        _document(fifo)
    assert not is_current(fifo, {}, [])
    fifo.rename(tmp_path / MANIFEST)
    with pytest.raises(InputError, match="cannot be read as a manifest"):
        Manifest(tmp_path)


def test_text_that_is_not_utf8_is_refused(tmp_path):
    for name, reader in ((CONFIG_NAME, read_run), (PLAN_NAME, read_plan)):
        (tmp_path / name).write_bytes(b'{"a": "\xff"}')
        with pytest.raises(InputError, match=r"byte 7 is not UTF-8|cannot be read"):
            reader(tmp_path)


def test_json_of_any_depth_is_refused(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("[" * 100_000)
    with pytest.raises(InputError, match="expected a configuration of OpenVINO"):
        _document(path)
    assert not is_current(path, {}, [])


def test_a_damaged_line_of_a_manifest_is_skipped(tmp_path, caplog):
    record = '{"scan": "s", "settings": {}, "result": "%s", "version": "1", "finished": "", "host": ""'
    record += ', "verdict": %s}\n'
    lines = [record % ("s.h5", '"good"'), record % ("s.h5", '"better"'), record % ("../s.h5", '"good"')]
    (tmp_path / MANIFEST).write_text("".join(lines) + "[" * 100_000)
    records = Manifest(tmp_path).records
    assert [record.verdict for record in records.values()] == ["good"]
    assert caplog.text.count("is damaged and was skipped") == 3


@pytest.mark.parametrize("place", [1e20, -1e300, np.nan])
def test_a_position_beyond_any_canvas_does_not_overflow(place):
    growing = GrowingObject(np.ones((4, 4)), synchronise=False)
    with pytest.raises(InputError, match="are unit and pixel size right"):
        growing.add(np.ones((1, 4, 4), np.complex64), np.array([[0.0, place]]))
