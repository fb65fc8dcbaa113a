"""X.509 certificates: what we put into them and what we read from them.

A client certificate names a user (common name) and groups (organizations), as Kubernetes has it, and belongs to one
logical cluster. It says so with a URI subject alternative name (``urn:fleetplane:cluster:<uid>``), because that is a
standard field which other software ignores; without one it belongs to the root cluster.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetplane.model.environment import Environment

CLUSTER_URI_PREFIX: Final = "urn:fleetplane:cluster:"
AUTHORITY_LIFETIME: Final = timedelta(days=3650)
LEAF_LIFETIME: Final = timedelta(days=365)
CLOCK_SKEW: Final = timedelta(minutes=5)
"""Certificates start this much in the past: clocks of cars and kiosks are rarely right."""

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey


def _key_usage(*, authority: bool = False, key_encipherment: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=key_encipherment,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def key_pem(self) -> bytes:
        return private_pem(self.key)


@dataclass(frozen=True, slots=True)
class Subject:
    """What a certificate is to say. ``hosts`` are its names and addresses; ``cluster`` is whose it is, root's if empty."""

    name: str
    groups: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    cluster: str = ""
    usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,)
    key_encipherment: bool = False


def issue(
    issuer: Credential,
    subject: Subject,
    public_key: PublicKey,
    environment: Environment,
    *,
    lifetime: timedelta = LEAF_LIFETIME,
) -> x509.Certificate:
    """Sign a leaf certificate. It never outlives its issuer."""
    now = environment.now()
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in subject.groups]
    names.append(x509.NameAttribute(NameOID.COMMON_NAME, subject.name))
    alternatives = [_general_name(host) for host in subject.hosts]
    if subject.cluster:
        alternatives.append(x509.UniformResourceIdentifier(CLUSTER_URI_PREFIX + subject.cluster))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(issuer.certificate.subject)
        .public_key(public_key)
        .serial_number(_serial(environment))
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(now + lifetime, issuer.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(key_encipherment=subject.key_encipherment), critical=True)
        .add_extension(x509.ExtendedKeyUsage(subject.usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer.key, hashes.SHA256())


def make_authority(
    name: str, environment: Environment, *, renew: Credential | None = None, lifetime: timedelta = AUTHORITY_LIFETIME
) -> Credential:
    """A self-signed authority. ``renew`` keeps its key and subject, so that all it ever signed stays valid."""
    now = environment.now()
    if renew is not None:
        key, subject = renew.key, renew.certificate.subject
    else:  # the time keeps two planes' authorities apart where a client trusts both
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name}@{int(now.timestamp())}")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(_serial(environment))
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Credential(certificate, key)


def is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # any of several library errors means the same: not by this issuer
        return False
    return True


def hosts_of(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    return {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}


def cluster_of(certificate: x509.Certificate) -> str:
    """The uid of the logical cluster a client certificate belongs to; empty when it does not say (then: root)."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
        if uri.startswith(CLUSTER_URI_PREFIX):
            return uri.removeprefix(CLUSTER_URI_PREFIX)
    return ""


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _serial(environment: Environment) -> int:
    return environment.random.getrandbits(152) | 1 << 152  # positive, at most 20 octets (RFC 5280, 4.1.2.2)


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
