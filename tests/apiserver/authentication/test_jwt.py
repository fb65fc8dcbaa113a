"""A token is believed when a key we trust signed it, in the way that key signs, and for no other reason."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from fleetplane.apiserver.authentication import jwt

KEY = ec.generate_private_key(ec.SECP256R1())
OURS = jwt.verification_key(KEY.public_key())
CLAIMS = {"iss": "us", "sub": "ann"}
TOKEN = jwt.sign(CLAIMS, KEY, OURS.key_id)


def encoded(value: Any) -> str:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def believed(token: str, *keys: jwt.VerificationKey) -> dict[str, Any]:
    return dict(jwt.verify(jwt.take_apart(token), keys or (OURS,)))


def test_what_we_sign_we_believe() -> None:
    assert believed(TOKEN) == CLAIMS


def test_alg_none_is_never_believed() -> None:
    for algorithm in ("none", "None", ""):
        with pytest.raises(jwt.InvalidToken):
            believed(f"{encoded({'alg': algorithm})}.{encoded(CLAIMS)}.")


def test_a_public_key_is_never_an_hmac_secret() -> None:
    pem = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signed = f"{encoded({'alg': 'HS256', 'kid': OURS.key_id})}.{encoded(CLAIMS)}"
    mac = hmac.digest(pem, signed.encode(), hashlib.sha256)

    with pytest.raises(jwt.InvalidToken):
        believed(f"{signed}.{encoded(mac)}")


def test_another_key_is_not_believed_even_under_our_id() -> None:
    other = ec.generate_private_key(ec.SECP256R1())

    with pytest.raises(jwt.InvalidToken, match="signature"):
        believed(jwt.sign(CLAIMS, other, OURS.key_id))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, len(TOKEN) - 1), st.sampled_from("AQgw_-.=é "))
def test_a_changed_token_is_not_believed(position: int, character: str) -> None:
    changed = TOKEN[:position] + character + TOKEN[position + 1 :]
    last_character_has_spare_bits = position == len(TOKEN) - 1 or TOKEN[position + 1 : position + 2] == "."
    if changed == TOKEN or last_character_has_spare_bits:
        return

    with pytest.raises(jwt.InvalidToken):
        believed(changed)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=60), st.binary(max_size=40).map(lambda b: f"{encoded(b)}.{encoded(b)}.{encoded(b)}")))
def test_rubbish_is_refused_and_never_an_accident(token: str) -> None:
    with pytest.raises(jwt.InvalidToken):
        believed(token)


def test_size_and_extensions_are_bounded() -> None:
    with pytest.raises(jwt.InvalidToken, match="large"):
        jwt.take_apart("e" * (jwt.MAX_TOKEN_BYTES + 1))
    with pytest.raises(jwt.InvalidToken, match="extensions"):
        jwt.take_apart(f"{encoded({'alg': 'ES256', 'crit': ['b64']})}.{encoded({})}.AAAA")


@pytest.mark.parametrize(
    ("claims", "why"),
    [
        ({"exp": 1000}, "expired"),
        ({"exp": 999}, "expired"),
        ({}, "never expires"),
        ({"exp": 2000, "nbf": 1061}, "not valid yet"),
        ({"exp": "2000"}, "number"),
        ({"exp": True}, "number"),
    ],
)
def test_times_are_checked(claims: dict[str, Any], why: str) -> None:
    now = datetime.fromtimestamp(1000, UTC)
    jwt.check_times({"exp": 1001, "nbf": 1050}, now)

    with pytest.raises(jwt.InvalidToken, match=why):
        jwt.check_times(claims, now)


RSA = rsa.generate_private_key(65537, 2048)
SIGNERS: dict[str, Any] = {
    "ES256": KEY,
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "RS256": RSA,
    "RS512": RSA,
    "PS384": RSA,
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}


@pytest.mark.parametrize("algorithm", SIGNERS)
def test_other_peoples_tokens_verify_with_their_published_keys(algorithm: str) -> None:
    pyjwt = pytest.importorskip("jwt", reason="PyJWT is the oracle")
    key = SIGNERS[algorithm]
    make_jwk = pyjwt.get_algorithm_by_name(algorithm).to_jwk
    published = jwt.from_jwk(json.loads(make_jwk(key.public_key())) | {"kid": "k1", "alg": algorithm})

    token = pyjwt.encode(CLAIMS, key, algorithm=algorithm, headers={"kid": "k1"})

    assert believed(token, published) == CLAIMS


def test_others_verify_our_tokens_with_our_published_key() -> None:
    pyjwt = pytest.importorskip("jwt", reason="PyJWT is the oracle")

    key = pyjwt.PyJWK(jwt.to_jwk(OURS))

    assert pyjwt.decode(TOKEN, key, algorithms=["ES256"]) == CLAIMS


def test_a_key_signs_only_in_its_declared_way() -> None:
    pyjwt = pytest.importorskip("jwt", reason="PyJWT is the oracle")
    only_ps = jwt.verification_key(RSA.public_key(), "k", "PS256")

    with pytest.raises(jwt.InvalidToken):
        believed(pyjwt.encode(CLAIMS, RSA, algorithm="RS256", headers={"kid": "k"}), only_ps)


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "k": "c2VjcmV0"},
        {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "RSA", "n": encoded(b"\x0f" * 64), "e": "AQAB"},
        {"kty": "EC", "use": "enc"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA"},
        {},
    ],
)
def test_unusable_keys_are_refused(jwk: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="key"):
        jwt.from_jwk(jwk)
