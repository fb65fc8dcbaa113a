"""Who vouches for a package: signatures of digests, by keys that are files, checked where the digest is believed.

Two things are signed, by the same key and with the same form of payload. The package as it travels (the digest of its OCI
manifest, and so every manifest and image in it) is checked by ``package verify`` and ``unpack``. The application as the
server sees it (the digest of its microservices) carries its signatures in ``spec.signatures`` and is checked at admission,
see ``trust``. The payload is that of cosign's simple signing; applications have a type of their own in it, so that neither
signature can stand for the other. The name is part of it: what was signed as one application is not taken for another.

A signature says who, not when: an older application that was signed once stays signed. Images that are named by a tag
are covered in a package only, where they are inside.

Sources: cosign's signature specification (simple signing), RFC 8032 (Ed25519), FIPS 186 (ECDSA).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

RULE: Final = "package-signature"
PACKAGE: Final = "cosign container image signature"
APPLICATION: Final = "fleetplane vehicle application signature"
_LONGEST: Final = 16 * 1024


class SigningError(ValueError):
    """The key cannot be used; the message is one sentence for people, and never holds the key."""


Private = Ed25519PrivateKey | ec.EllipticCurvePrivateKey
Public = Ed25519PublicKey | ec.EllipticCurvePublicKey


def payload(kind: str, called: str, digest: str) -> bytes:
    """What is signed: the digest, as what, and under which name."""
    critical = {
        "identity": {"docker-reference": called},
        "image": {"docker-manifest-digest": digest},
        "type": kind,
    }
    return orjson.dumps({"critical": critical, "optional": None}, option=orjson.OPT_SORT_KEYS)


def private_key(pem: bytes) -> Private:
    """An Ed25519 or ECDSA P-256 key (PKCS #8, PEM, not encrypted). Raises SigningError."""
    try:
        found = serialization.load_pem_private_key(pem[:_LONGEST], password=None)
    except TypeError:
        raise SigningError("the key is encrypted; decrypt it with `openssl pkey` and give that") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SigningError("the key is no private key in PEM; `openssl genpkey -algorithm ed25519` makes one") from None
    if isinstance(found, Ed25519PrivateKey) or (
        isinstance(found, ec.EllipticCurvePrivateKey) and isinstance(found.curve, ec.SECP256R1)
    ):
        return found
    raise SigningError("the key is neither Ed25519 nor ECDSA P-256")


def public_key(pem: str | bytes) -> Public:
    """Raises SigningError."""
    data = pem.encode() if isinstance(pem, str) else pem
    try:
        found = serialization.load_pem_public_key(data[:_LONGEST])
    except (ValueError, UnsupportedAlgorithm):
        raise SigningError(
            "the key is no public key in PEM; `openssl pkey -pubout` makes it of the private one"
        ) from None
    if isinstance(found, Ed25519PublicKey) or (
        isinstance(found, ec.EllipticCurvePublicKey) and isinstance(found.curve, ec.SECP256R1)
    ):
        return found
    raise SigningError("the key is neither Ed25519 nor ECDSA P-256")


def fingerprint(pem: str | bytes) -> str:
    """By which people tell keys apart. Raises SigningError."""
    encoded = public_key(pem).public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "sha256:" + hashlib.sha256(encoded).hexdigest()


def keys_of(app_type: Mapping[str, Any] | None) -> list[str]:
    """Whom a class trusts (an AppType, if there is one); where this is empty nothing needs a signature."""
    return [str(one) for one in ((app_type or {}).get("spec") or {}).get("trustedKeys") or ()]


def is_signed_class(app_type: Mapping[str, Any] | None) -> bool:
    """Whether only signed applications may run in this class."""
    return bool(keys_of(app_type))


def sign(key: Private, data: bytes) -> str:
    """Base64."""
    made = key.sign(data) if isinstance(key, Ed25519PrivateKey) else key.sign(data, ec.ECDSA(hashes.SHA256()))
    return base64.b64encode(made).decode()


def is_signed(data: bytes, signatures: Iterable[str], trusted: Sequence[str]) -> bool:
    """Whether one of these signatures is by one of these keys (PEM). Keys and signatures that cannot be read are by nobody."""
    keys = []
    for pem in trusted:
        try:
            keys.append(public_key(pem))
        except SigningError:
            continue
    for text in signatures:
        try:
            signature = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            continue
        if any(_verifies(key, signature, data) for key in keys):
            return True
    return False


def _verifies(key: Public, signature: bytes, data: bytes) -> bool:
    try:
        if isinstance(key, Ed25519PublicKey):
            key.verify(signature, data)
        else:
            key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True
