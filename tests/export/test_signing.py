"""A signature covers every byte of an artifact, and needs only a pair of keys."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess

import pytest

pytest.importorskip("model_signing", reason="needs the extra ptychonnx[signing]")
if shutil.which("openssl") is None:
    pytest.skip("needs openssl to make keys", allow_module_level=True)

import onnx

from ptychonnx.export.artifact.publication import publish
from ptychonnx.export.artifact.signing import sign, signature_path, verify_signature
from ptychonnx.runtime.errors import InputError, VerificationError
from tests.export.small_network import contract_of, small_network

# As `docs/how-to/sign.md` and `ptychonnx sign --help` tell to do it.
PRIVATE = "openssl ecparam -name prime256v1 -genkey -noout -out {}.pem"
PUBLIC = "openssl ec -in {0}.pem -pubout -out {0}.pub"


def make(folder, *commands):
    for command in commands:
        subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    for name in ("key", "other"):
        make(folder, PRIVATE.format(name), PUBLIC.format(name))
    make(folder, "openssl genrsa -out rsa.pem 2048", "openssl rsa -in rsa.pem -pubout -out rsa.pub")
    make(folder, "openssl ecparam -name secp256k1 -genkey -noout -out curve.pem")
    make(folder, "openssl ec -in key.pem -aes256 -passout pass:secret -out locked.pem")
    (folder / "text.pem").write_text("no key")
    return folder


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "small.onnx"
    publish(small_network(), contract_of("small"), path)
    return path


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    def refuse(*_):
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_a_signed_artifact_is_recognised_by_the_public_key(artifact, keys):
    assert sign(artifact, keys / "key.pem") == signature_path(artifact)
    assert sorted(path.name for path in artifact.parent.iterdir()) == ["small.onnx", "small.onnx.sig"]
    assert "small.onnx.sig is valid for this file" in verify_signature(artifact, keys / "key.pub")


def test_it_may_be_renamed_and_reached_through_a_link(artifact, keys):
    sign(artifact, keys / "key.pem")
    renamed = artifact.rename(artifact.with_name("renamed.onnx"))
    signature_path(artifact).rename(signature_path(renamed))
    link = artifact.parent / "link.onnx"
    link.symlink_to(renamed)
    shutil.copy(signature_path(renamed), signature_path(link))
    verify_signature(renamed, keys / "key.pub")
    verify_signature(link, keys / "key.pub")


@pytest.mark.parametrize("place", [10, -10])
def test_a_changed_file_is_refused(artifact, keys, place):
    sign(artifact, keys / "key.pem")
    body = bytearray(artifact.read_bytes())
    body[place] ^= 1
    artifact.write_bytes(body)
    with pytest.raises(VerificationError, match="the file was changed after it was signed") as error:
        verify_signature(artifact, keys / "key.pub")
    assert "\n" not in str(error.value)


def changed(**parts):
    def change(bundle):
        bundle["dsseEnvelope"].update(parts)
        return json.dumps(bundle)

    return change


def signed_otherwise(bundle):
    signature = bundle["dsseEnvelope"]["signatures"][0]
    signature["sig"] = signature["sig"][:20] + "AAAA" + signature["sig"][24:]
    return json.dumps(bundle)


@pytest.mark.parametrize(
    "change",
    [
        signed_otherwise,
        changed(payload="e30="),
        changed(signatures=[]),
        lambda _: "{}",
        lambda _: "",
        lambda _: "garbage",
    ],
)
def test_a_changed_signature_is_refused(artifact, keys, change):
    signature = sign(artifact, keys / "key.pem")
    signature.write_text(change(json.loads(signature.read_text())))
    with pytest.raises(
        VerificationError, match=r"small\.onnx\.sig: not a signature of small\.onnx by "
    ) as error:
        verify_signature(artifact, keys / "key.pub")
    assert "\n" not in str(error.value)


def test_the_signature_of_another_key_or_file_or_none_is_refused(artifact, keys):
    with pytest.raises(VerificationError, match=r"small\.onnx\.sig: no such file, expected the signature"):
        verify_signature(artifact, keys / "key.pub")
    sign(artifact, keys / "other.pem")
    with pytest.raises(VerificationError, match="Key mismatch"):
        verify_signature(artifact, keys / "key.pub")
    other = artifact.with_name("other.onnx")
    publish(small_network("outlier"), contract_of("other"), other)
    shutil.copy(sign(other, keys / "key.pem"), signature_path(artifact))
    with pytest.raises(VerificationError, match="changed after it was signed"):
        verify_signature(artifact, keys / "key.pub")


@pytest.mark.parametrize("name", ["rsa", "curve", "text", "locked", "absent"])
def test_other_keys_are_refused_in_one_line(artifact, keys, name):
    with pytest.raises(InputError, match=rf"{name}\.pem: not a usable private key .*P-256") as error:
        sign(artifact, keys / f"{name}.pem")
    assert "\n" not in str(error.value)
    assert not signature_path(artifact).exists()


@pytest.mark.parametrize("name", ["rsa.pub", "key.pem", "absent.pub"])
def test_other_public_keys_are_refused_in_one_line(artifact, keys, name):
    sign(artifact, keys / "key.pem")
    with pytest.raises(InputError, match=rf"{name}: not a usable public key .*P-256") as error:
        verify_signature(artifact, keys / name)
    assert "\n" not in str(error.value)


def test_an_artifact_in_several_files_is_not_signed(artifact, keys):
    model = onnx.load(artifact)
    onnx.save(model, artifact, save_as_external_data=True, location="w.data", size_threshold=100)
    with pytest.raises(InputError, match="has weights in other files"):
        sign(artifact, keys / "key.pem")
