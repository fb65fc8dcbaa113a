"""JSON Web Tokens, the small part that bearer tokens need: compact JWS with public keys (RFC 7515, 7517, 7518, 8037).

The algorithms a signature may have follow from the key, never from the token: a header can choose among what the key
allows and nothing else, so ``none``, an HMAC over a public key and their like have no way in. A token is bounded in
size before it is parsed, and nothing of it is believed before its signature is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from fleetplane.model.objects import Object

MAX_TOKEN_BYTES: Final = 16 * 1024

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey

_HASHES: Final[Mapping[str, type[hashes.HashAlgorithm]]] = {
    "256": hashes.SHA256,
    "384": hashes.SHA384,
    "512": hashes.SHA512,
}
_CURVES: Final[Mapping[str, tuple[str, type[ec.EllipticCurve]]]] = {
    "P-256": ("ES256", ec.SECP256R1),
    "P-384": ("ES384", ec.SECP384R1),
    "P-521": ("ES512", ec.SECP521R1),
}
_RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_MIN_RSA_BITS: Final = 2048


class InvalidToken(Exception):
    """The token is not to be believed. The message never contains any part of it."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """A public key, the id tokens name it by, and the only algorithms it verifies."""

    key_id: str
    key: PublicKey
    algorithms: tuple[str, ...]


class Unverified(NamedTuple):
    """A token taken apart. ``claims`` are hearsay until ``verify`` has accepted them."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes


# --- keys -----------------------------------------------------------------------------------------------------------


def verification_key(key: PublicKey, key_id: str = "", algorithm: str = "") -> VerificationKey:
    """``key_id`` defaults to the digest of the key (as Kubernetes derives it); ``algorithm`` narrows what it verifies.

    Raises:
        ValueError: the key is too weak, of an unsupported kind, or never used with ``algorithm``.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        possible = tuple(name for name, curve in _CURVES.values() if isinstance(key.curve, curve))
    elif isinstance(key, rsa.RSAPublicKey):
        possible = _RSA_ALGORITHMS if key.key_size >= _MIN_RSA_BITS else ()
    else:
        possible = ("EdDSA",)
    if algorithm:
        possible = tuple(one for one in possible if one == algorithm)
    if not possible:
        raise ValueError("the key is too small, or of a kind that verifies no supported algorithm")
    return VerificationKey(key_id or derive_key_id(key), key, possible)


def derive_key_id(key: PublicKey) -> str:
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _encode(hashlib.sha256(der).digest())


def from_jwk(jwk: Mapping[str, Any]) -> VerificationKey:
    """A key of a JWK set (RFC 7517). Raises ValueError for those we cannot or may not use."""
    if jwk.get("use", "sig") != "sig":
        raise ValueError("the key is not for signatures")
    kind, key_id, algorithm = jwk.get("kty"), str(jwk.get("kid") or ""), str(jwk.get("alg") or "")
    key: PublicKey
    try:
        if kind == "EC":
            _, curve = _CURVES[str(jwk.get("crv"))]
            key = ec.EllipticCurvePublicNumbers(_number(jwk["x"]), _number(jwk["y"]), curve()).public_key()
        elif kind == "RSA":
            key = rsa.RSAPublicNumbers(_number(jwk["e"]), _number(jwk["n"])).public_key()
        elif kind == "OKP" and jwk.get("crv") == "Ed25519":
            key = ed25519.Ed25519PublicKey.from_public_bytes(_decode(jwk["x"]))
        else:
            raise ValueError(f"keys of type {str(kind)[:20]!r} are not supported")
    except (KeyError, TypeError, InvalidToken) as error:
        raise ValueError("the key is malformed") from error
    return verification_key(key, key_id, algorithm)


def to_jwk(one: VerificationKey) -> Object:
    """The published form of one of our own keys (P-256)."""
    if not isinstance(one.key, ec.EllipticCurvePublicKey):
        raise TypeError("only elliptic curve keys are published")
    numbers, size = one.key.public_numbers(), (one.key.key_size + 7) // 8
    curve = next(name for name, (algorithm, _) in _CURVES.items() if algorithm == one.algorithms[0])
    return {
        "use": "sig",
        "kty": "EC",
        "kid": one.key_id,
        "crv": curve,
        "alg": one.algorithms[0],
        "x": _encode(numbers.x.to_bytes(size, "big")),
        "y": _encode(numbers.y.to_bytes(size, "big")),
    }


# --- tokens ---------------------------------------------------------------------------------------------------------


def sign(claims: Mapping[str, Any], key: ec.EllipticCurvePrivateKey, key_id: str) -> str:
    """A compact JWS, ES256."""
    header = orjson.dumps({"alg": "ES256", "kid": key_id})
    signed = f"{_encode(header)}.{_encode(orjson.dumps(claims))}"
    r, s = decode_dss_signature(key.sign(signed.encode("ascii"), ec.ECDSA(hashes.SHA256())))
    return f"{signed}.{_encode(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


def looks_like_token(token: str) -> bool:
    return token.count(".") == 2 and token.startswith("ey")


def take_apart(token: str) -> Unverified:
    """Raises InvalidToken when it is not a well-formed compact JWS with a JSON object inside."""
    if len(token) > MAX_TOKEN_BYTES:
        raise InvalidToken("the token is too large")
    parts = token.split(".")
    if len(parts) != 3:
        raise InvalidToken("the token does not have three parts")
    header, claims = _json_object(parts[0]), _json_object(parts[1])
    if "crit" in header:
        raise InvalidToken("the token demands extensions that are not supported")
    return Unverified(header, claims, f"{parts[0]}.{parts[1]}".encode("ascii"), _decode(parts[2]))


def verify(token: Unverified, keys: Iterable[VerificationKey]) -> Mapping[str, Any]:
    """The claims, now believed. Raises InvalidToken when none of the keys made the signature.

    A token that names its key is checked with keys of that id only.
    """
    algorithm, key_id = token.header.get("alg"), token.header.get("kid")
    for one in keys:
        if algorithm not in one.algorithms or (key_id and one.key_id != key_id):
            continue
        if _is_signed_by(one.key, str(algorithm), token.signed, token.signature):
            return token.claims
    raise InvalidToken("the token's signature is not by a key we trust")


def check_times(claims: Mapping[str, Any], now: datetime, *, leeway: float = 0.0, must_expire: bool = True) -> None:
    """``exp`` and ``nbf`` against the clock; ``leeway`` is in seconds. Raises InvalidToken."""
    moment = now.timestamp()
    expires, begins = claims.get("exp"), claims.get("nbf")
    if expires is None and must_expire:
        raise InvalidToken("the token never expires")
    if expires is not None and moment >= _seconds(expires) + leeway:
        raise InvalidToken("the token has expired")
    if begins is not None and moment < _seconds(begins) - max(leeway, 60.0):
        raise InvalidToken("the token is not valid yet")


def audiences(claims: Mapping[str, Any]) -> tuple[str, ...]:
    found = claims.get("aud")
    if isinstance(found, str):
        return (found,)
    return tuple(one for one in found if isinstance(one, str)) if isinstance(found, list) else ()


def _is_signed_by(key: PublicKey, algorithm: str, signed: bytes, signature: bytes) -> bool:
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            size = (key.key_size + 7) // 8
            if len(signature) != 2 * size:
                return False
            r, s = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
            key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(_HASHES[algorithm[2:]]()))
        elif isinstance(key, rsa.RSAPublicKey):
            digest = _HASHES[algorithm[2:]]()
            if algorithm.startswith("PS"):
                key.verify(signature, signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
            else:
                key.verify(signature, signed, padding.PKCS1v15(), digest)
        else:
            key.verify(signature, signed)
    except InvalidSignature:
        return False
    return True


def _json_object(part: str) -> Mapping[str, Any]:
    try:
        found = orjson.loads(_decode(part))
    except ValueError as error:
        raise InvalidToken("the token does not hold JSON") from error
    if not isinstance(found, dict):
        raise InvalidToken("the token does not hold a JSON object")
    return found


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidToken("the token has a time that is not a number")
    return float(value)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(text: Any) -> bytes:
    if not isinstance(text, str) or "=" in text or "+" in text or "/" in text:
        raise InvalidToken("the token is not base64url")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidToken("the token is not base64url") from error


def _number(text: Any) -> int:
    return int.from_bytes(_decode(text), "big")
