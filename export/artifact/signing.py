"""Signatures of artifacts: `model-signing` of the OpenSSF with a local key, without an online service."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from ptychonnx.runtime.atomic import atomic_path
from ptychonnx.runtime.contract.integrity import check_model_file, external_tensors
from ptychonnx.runtime.errors import InputError, VerificationError
from ptychonnx.runtime.paths import check_file

__all__ = ["sign", "signature_path", "verify_signature"]

_KEYS = "expected PEM of an elliptic curve key: P-256, P-384 or P-521, not encrypted"


def signature_path(artifact: Path) -> Path:
    """Path of the signature of an artifact: ``<artifact>.sig``."""
    return artifact.with_name(f"{artifact.name}.sig")


def sign(artifact: Path, private_key: Path) -> Path:
    """Sign every byte of an artifact, including its contract; the file may be renamed afterwards.

    Raises InputError if model-signing is not installed, the key is invalid, or the artifact is unsafe or in several
    files.

    `private_key`: PEM file, such as ``openssl ecparam -name prime256v1 -genkey -noout -out key.pem`` writes.
    Returns the signature, a Sigstore bundle.
    """
    package = _package()
    if any(True for _ in external_tensors(check_model_file(artifact))):
        raise InputError(
            f"{artifact}: has weights in other files, expected all weights in the file to be signed"
        )
    try:
        config = package.signing.Config().use_elliptic_key_signer(private_key=private_key)
    except Exception as error:  # any of five types, depending on what is wrong with the key
        raise InputError(f"{private_key}: not a usable private key ({_reason(error)}), {_KEYS}") from error
    with atomic_path(signature_path(artifact)) as partial:
        config.sign(artifact.resolve(), partial)
    return signature_path(artifact)


def verify_signature(artifact: Path, public_key: Path) -> str:
    """Check the signature of an artifact before the artifact itself is read.

    Raises InputError if model-signing is not installed, the artifact is missing, or the key is invalid. Raises
    VerificationError if there is no signature, or it does not match these bytes and this key.

    Returns the outcome in words.
    """
    package = _package()
    check_file(artifact, "an ONNX artifact")
    try:
        config = package.verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    except Exception as error:  # as above
        raise InputError(f"{public_key}: not a usable public key ({_reason(error)}), {_KEYS}") from error
    signature = signature_path(artifact)
    if not signature.is_file():
        raise VerificationError(f"{signature}: no such file, expected the signature of {artifact.name}")
    try:
        config.verify(artifact.resolve(), signature)
    except Exception as error:  # ValueError, InvalidSignature, and whatever parsing a broken bundle raises
        raise VerificationError(
            f"{signature}: not a signature of {artifact.name} by {public_key} ({_reason(error)})"
        ) from error
    return f"{signature.name} is valid for this file and {public_key}"


def _package() -> ModuleType:
    try:
        import model_signing
    except ImportError as error:
        raise InputError("model-signing is not installed: pip install 'ptychonnx[signing]'") from error
    return model_signing


def _reason(error: Exception) -> str:
    """One short line; the message about a hash mismatch would print unreadable bytes."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, AttributeError):
        return "of another kind"
    if text.startswith("Signature mismatch"):
        return "the file was changed after it was signed"
    return text.splitlines()[0].rstrip(". ")
