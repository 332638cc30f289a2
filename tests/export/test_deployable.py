"""Artifacts that are refused before they are deployed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from ptychonnx.export.deploy.deploy_options import DeployOptions
from ptychonnx.export.deploy.deployable import read_artifacts, read_stamp
from ptychonnx.runtime.errors import InputError, VerificationError
from tests.export.deployed import artifact, deployable, fixed_artifact
from tests.export.small_network import contract_of, set_weights, small_network, write_artifact


def test_the_bytes_that_were_checked_are_the_ones_deployed(tmp_path):
    path = artifact(tmp_path / "small.onnx")
    (found,) = read_artifacts([path])
    assert (found.name, found.data) == ("small", path.read_bytes())
    assert found.contract == contract_of("small")


@pytest.mark.parametrize(
    "name",
    ["two words.onnx", "-dash.onnx", "a..b.onnx", "ä.onnx", f"{'a' * 101}.onnx", "small.pb", "a$.onnx"],
)
def test_names_that_a_server_would_not_take_are_refused(tmp_path, name):
    path = write_artifact(tmp_path / name, small_network(), contract_of("small"))
    with pytest.raises(InputError, match=r"its name becomes that of the model"):
        read_artifacts([path])


def test_two_artifacts_of_one_name_are_refused(tmp_path):
    paths = [artifact(tmp_path / "a" / "small.onnx"), artifact(tmp_path / "b" / "Small.onnx")]
    with pytest.raises(InputError, match=r"would both be the model 'Small'"):
        read_artifacts(paths)


def test_no_artifact_is_refused():
    with pytest.raises(InputError, match="at least one"):
        read_artifacts([])


def test_a_file_without_a_contract_is_refused(tmp_path):
    onnx.save(small_network(), tmp_path / "bare.onnx")
    with pytest.raises(InputError, match=r"no ptychonnx\.contract"):
        read_artifacts([tmp_path / "bare.onnx"])


def test_a_graph_that_breaks_its_contract_is_refused(tmp_path):
    path = write_artifact(tmp_path / "small.onnx", small_network(), contract_of("small", n=32))
    with pytest.raises(InputError, match="contract promises"):
        read_artifacts([path])


def test_a_changed_graph_is_refused(tmp_path):
    path = artifact(tmp_path / "small.onnx", graph_sha256="0" * 64)
    with pytest.raises(VerificationError, match="graph: was changed"):
        read_artifacts([path])


def test_weights_in_other_files_are_refused(tmp_path):
    model = small_network()
    set_weights(model, "second.weight", np.zeros((4, 4, 3, 3), np.float32))
    path = write_artifact(tmp_path / "small.onnx", model)
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="small.data", size_threshold=0)
    with pytest.raises(InputError, match="weights in other files"):
        read_artifacts([path])


def test_the_interface_lists_inputs_and_output(tmp_path):
    assert (
        str(deployable(tmp_path / "a.onnx").interface) == "diffraction: amplitude float32 [batch, 1, 16, 16]"
    )
    (fixed,) = read_artifacts([fixed_artifact(tmp_path / "b.onnx", 4)])
    assert str(fixed.interface) == "diffraction: amplitude float32 [4, 1, 16, 16]"


def test_an_unreadable_earlier_version_has_no_contract(tmp_path):
    assert read_stamp(tmp_path / "missing.onnx") is None
    (tmp_path / "broken.onnx").write_bytes(b"half a fi")
    assert read_stamp(tmp_path / "broken.onnx") is None
    found = read_stamp(artifact(tmp_path / "small.onnx"))
    assert found is not None
    assert (found.contract, found.text) == (contract_of("small"), contract_of("small").to_json())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"preferred_batch": (8, 32)}, "--preferred-batch 32 is larger than --max-batch 16"),
        ({"accelerator": "cuda"}, "expected --device gpu"),
        ({"engine_cache": "/cache", "device": "gpu"}, "expected --accelerator tensorrt"),
        (
            {"engine_cache": "/cache", "device": "gpu", "accelerator": "tensorrt", "serve": 2},
            "expected --serve 1",
        ),
        ({"threads": 2, "device": "gpu"}, "expected --device cpu"),
        ({"prune": 2}, "expected --append-version"),
        ({"prune": 1, "serve": 2, "append_version": True}, "fewer versions than --serve 2"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, reason):
    with pytest.raises(InputError, match=reason):
        DeployOptions(**options).check()
