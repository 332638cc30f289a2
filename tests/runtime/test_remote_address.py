from __future__ import annotations

import os
import threading

import pytest

from ptychonnx.runtime.errors import InputError
from ptychonnx.runtime.inference.remote import authentication
from ptychonnx.runtime.inference.remote.address import Address
from ptychonnx.runtime.inference.remote.authentication import TOKEN_VARIABLE, Credentials, read_token
from tests.certificates import make_certificates


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("grpc://beam.line:8001/pinn_fno", Address("grpc", "beam.line", 8001, "pinn_fno")),
        ("https://10.0.0.1:443/a.b-c/12", Address("https", "10.0.0.1", 443, "a.b-c", "12")),
        ("http://[::1]:8000/m", Address("http", "::1", 8000, "m")),
        ("grpcs://h:1/m", Address("grpcs", "h", 1, "m")),
    ],
)
def test_a_url_is_taken_apart_and_put_together(url, address):
    assert Address.parse(url) == address
    assert str(address) == url
    assert address.encrypted == url.split(":")[0].endswith("s")


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h:1/m", "h:1/m", "grpc://h/m", "grpc://h:1", "grpc://h:1/", "grpc://h:1/m/1/x", "grpc://:1/m",
        "grpc://h:0/m", "grpc://h:99999/m", "grpc://h:x/m", "http://h:1/m?token=x", "http://h:1/m#x", "http://h:1/a b",
        "http://h:1/../m", "", "grpc://[::1/m",
    ],
)  # fmt: skip
def test_what_is_no_url_of_a_model_is_refused(url):
    with pytest.raises(InputError, match="expected grpc://host:port/model"):
        Address.parse(url)


def test_a_password_in_a_url_is_refused_and_not_repeated():
    with pytest.raises(InputError) as caught:
        Address.parse("http://me:hunter2@h:1/m")
    assert "hunter2" not in str(caught.value)


def test_a_token_does_not_cross_a_network_in_the_clear():
    access = Credentials(token="word")
    for url in ("http://h:1/m", "grpc://10.0.0.1:1/m"):
        with pytest.raises(InputError, match="would send the token unencrypted"):
            access.check(Address.parse(url))
    for url in (
        "https://h:1/m",
        "grpcs://h:1/m",
        "http://127.0.0.1:1/m",
        "grpc://localhost:1/m",
        "http://[::1]:1/m",
    ):
        access.check(Address.parse(url))


def test_tls_files_must_be_there_and_of_use(tmp_path):
    folder = make_certificates(tmp_path)
    file = folder / "client.pem"
    secure, plain = Address.parse("grpcs://h:1/m"), Address.parse("grpc://h:1/m")
    Credentials(ca=folder / "authority.pem", certificate=file, key=folder / "client.key").check(secure)
    with pytest.raises(InputError, match="cannot be used"):
        Credentials(certificate=file, key=folder / "server.key").check(secure)
    with pytest.raises(InputError, match=r"absent\.pem: no such file, expected the TLS CA"):
        Credentials(ca=tmp_path / "absent.pem").check(secure)
    with pytest.raises(InputError, match="expected both"):
        Credentials(certificate=file).check(secure)
    with pytest.raises(InputError, match="without TLS"):
        Credentials(ca=file).check(plain)


def test_a_token_comes_from_a_file_or_the_environment(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token() is None
    monkeypatch.setenv(TOKEN_VARIABLE, "from-environment")
    assert read_token() == "from-environment"
    file = tmp_path / "token"
    file.write_text("from-file\n")
    assert read_token(file) == "from-file"
    for bad in ("", "two words", "line\nbreak", "bell\x07"):
        file.write_text(bad)
        with pytest.raises(InputError, match="contains no token") as caught:
            read_token(file)
        assert "words" not in str(caught.value)
        assert "break" not in str(caught.value)
    file.write_bytes(b"caf\xc3\xa9")
    with pytest.raises(InputError, match="cannot be read as a token"):
        read_token(file)
    with pytest.raises(InputError, match="cannot be read as a token"):
        read_token(tmp_path / "absent")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with a name")
def test_a_token_comes_through_a_pipe_or_is_not_waited_for(tmp_path, monkeypatch):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    # The reader is there before the writer, as with a program that takes its time.
    writer = threading.Timer(0.3, lambda: pipe.write_text("from-pipe\n"))
    writer.start()
    assert read_token(pipe) == "from-pipe"
    writer.join()
    monkeypatch.setattr(authentication, "_PATIENCE", 0.2)
    with pytest.raises(InputError, match=r"nothing was written into it for 0\.2 s, expected a token"):
        read_token(pipe)
    with pytest.raises(InputError, match="longer than 65536 bytes, expected a token"):
        read_token("/dev/zero")
