"""The plane's own public-key infrastructure: made on first start, renewed in place, kept in one directory.

Every credential is one PEM file that holds the certificate and its key, so that a renewal is a single rename and the two
can never disagree. All keys are P-256: small, fast to make, and accepted by every client. The certificate authority
outlives its leaves; when it grows old its certificate is issued again over the same key, so nothing it signed breaks.

A client certificate belongs to one logical cluster. It says so with a URI subject alternative name
(``urn:fleetplane:cluster:<uid>``), because that is a standard field which other software ignores.

Files are 0600 in a 0700 directory and are written by rename. Private keys are never logged and never leave the directory,
except for the administrator's own in ``admin.kubeconfig``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import os
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetplane.model.environment import Environment

CLUSTER_URI_PREFIX: Final = "urn:fleetplane:cluster:"
ADMIN_NAME: Final = "kubernetes-admin"
ADMIN_GROUP: Final = "system:masters"
KUBELET_CLIENT_NAME: Final = "kube-apiserver-kubelet-client"
FRONT_PROXY_NAME: Final = "front-proxy-client"

AUTHORITY_LIFETIME: Final = timedelta(days=3650)
LEAF_LIFETIME: Final = timedelta(days=365)
CLOCK_SKEW: Final = timedelta(minutes=5)
"""Certificates start this much in the past: clocks of cars and kiosks are rarely right."""

SERVING_NAMES: Final = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "127.0.0.1",
    "::1",
)

PublicKey = ec.EllipticCurvePublicKey
_KEY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)
_AUTHORITY_USAGE = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


class PkiError(Exception):
    """The directory holds something unusable; the message says which file and what to do."""


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
    """What a certificate is to say. ``hosts`` makes it a serving certificate, otherwise it is for clients."""

    name: str
    groups: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    cluster: str = ""
    usages: tuple[x509.ObjectIdentifier, ...] = (ExtendedKeyUsageOID.CLIENT_AUTH,)


@dataclass(frozen=True, slots=True)
class Pki:
    """Everything the plane signs with and shows; the same files load to an equal value."""

    directory: Path
    authority: Credential
    front_proxy_authority: Credential
    serving: Credential
    admin: Credential
    kubelet_client: Credential
    front_proxy_client: Credential
    service_account_key: ec.EllipticCurvePrivateKey
    admin_token: str

    @property
    def authority_pem(self) -> bytes:
        """What clients trust: goes into kubeconfigs and the ``kube-root-ca.crt`` ConfigMaps."""
        return self.authority.certificate_pem

    def is_admin_token(self, token: str) -> bool:
        """Compared by digest, so that the time taken tells nothing about the token."""
        shown = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        return hmac.compare_digest(shown, hashlib.sha256(self.admin_token.encode()).digest())


# --- making ---------------------------------------------------------------------------------------------------------


def ensure_pki(directory: Path, environment: Environment, *, hosts: Iterable[str] = ()) -> Pki:
    """Load the PKI, making what is missing and renewing what grows old or lacks one of ``hosts`` (names or addresses).

    Call it at start and once a day; it changes nothing when there is nothing to do.

    Raises:
        PkiError: an authority or key file exists but cannot be read; it is never silently replaced.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    wanted_hosts = tuple(dict.fromkeys([*SERVING_NAMES, *(h for h in hosts if h)]))
    authority = _ensure_authority(directory / "ca.pem", "fleetplane-ca", environment)
    front = _ensure_authority(directory / "front-proxy-ca.pem", "fleetplane-front-proxy-ca", environment)
    if _read(directory / "ca.crt") != authority.certificate_pem:
        write_private(directory / "ca.crt", authority.certificate_pem)

    def leaf(file: str, issuer: Credential, subject: Subject) -> Credential:
        return _ensure_leaf(directory / file, issuer, subject, environment)

    serving = Subject("kube-apiserver", hosts=wanted_hosts, usages=(ExtendedKeyUsageOID.SERVER_AUTH,))
    return Pki(
        directory=directory,
        authority=authority,
        front_proxy_authority=front,
        serving=leaf("serving.pem", authority, serving),
        admin=leaf("admin.pem", authority, Subject(ADMIN_NAME, groups=(ADMIN_GROUP,))),
        kubelet_client=leaf("kubelet-client.pem", authority, Subject(KUBELET_CLIENT_NAME)),
        front_proxy_client=leaf("front-proxy-client.pem", front, Subject(FRONT_PROXY_NAME)),
        service_account_key=_ensure_signing_key(directory / "service-account.pem"),
        admin_token=_ensure_token(directory / "admin.token", environment),
    )


def issue(
    issuer: Credential,
    subject: Subject,
    public_key: PublicKey | x509.CertificateSigningRequest,
    environment: Environment,
    *,
    lifetime: timedelta = LEAF_LIFETIME,
) -> x509.Certificate:
    """Sign a leaf certificate. It never outlives its issuer."""
    now = environment.now()
    key = public_key if isinstance(public_key, ec.EllipticCurvePublicKey) else public_key.public_key()
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in subject.groups]
    names.append(x509.NameAttribute(NameOID.COMMON_NAME, subject.name))
    alternatives = [_general_name(host) for host in subject.hosts]
    if subject.cluster:
        alternatives.append(x509.UniformResourceIdentifier(CLUSTER_URI_PREFIX + subject.cluster))
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(names))
        .issuer_name(issuer.certificate.subject)
        .public_key(key)  # type: ignore[arg-type]  # the caller vetted a request's key type
        .serial_number(_serial(environment))
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(now + lifetime, issuer.certificate.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_KEY_USAGE, critical=True)
        .add_extension(x509.ExtendedKeyUsage(subject.usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    )
    if alternatives:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    return builder.sign(issuer.key, hashes.SHA256())


def _ensure_authority(path: Path, name: str, environment: Environment) -> Credential:
    found = _load_credential(path)
    if found is not None and _is_fresh(found.certificate, environment.now()):
        return found
    key = found.key if found is not None else ec.generate_private_key(ec.SECP256R1())
    now = environment.now()
    subject = (
        found.certificate.subject
        if found is not None
        else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name}@{int(now.timestamp())}")])
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(_serial(environment))
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + AUTHORITY_LIFETIME)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_AUTHORITY_USAGE, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    made = Credential(certificate, key)
    write_private(path, made.certificate_pem + made.key_pem)
    return made


def _ensure_leaf(path: Path, issuer: Credential, subject: Subject, environment: Environment) -> Credential:
    try:
        found = _load_credential(path)
    except PkiError:
        found = None  # a leaf costs nothing to make again
    if (
        found is not None
        and _is_fresh(found.certificate, environment.now())
        and _is_issued_by(found.certificate, issuer.certificate)
        and set(subject.hosts) <= _hosts_of(found.certificate)
    ):
        return found
    key = ec.generate_private_key(ec.SECP256R1())
    hosts = subject.hosts
    if found is not None and hosts:  # addresses come and go: keep those that old clients still use
        hosts = tuple(dict.fromkeys([*hosts, *sorted(_hosts_of(found.certificate))]))[:100]
    wanted = Subject(subject.name, subject.groups, hosts, subject.cluster, subject.usages)
    made = Credential(issue(issuer, wanted, key.public_key(), environment), key)
    write_private(path, made.certificate_pem + made.key_pem)
    return made


def _ensure_signing_key(path: Path) -> ec.EllipticCurvePrivateKey:
    pem = _read(path)
    if pem is not None:
        return _load_key(path, pem)
    key = ec.generate_private_key(ec.SECP256R1())
    write_private(path, private_pem(key))
    return key


def _ensure_token(path: Path, environment: Environment) -> str:
    found = (_read(path) or b"").decode("ascii", "replace").strip()
    if len(found) >= 32:
        return found
    token = base64.urlsafe_b64encode(environment.random.randbytes(32)).rstrip(b"=").decode()
    write_private(path, token.encode() + b"\n")
    return token


# --- reading --------------------------------------------------------------------------------------------------------


def _is_fresh(certificate: x509.Certificate, now: datetime) -> bool:
    """More than a fifth of its life is left."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return begin <= now < end - (end - begin) / 5


def _is_issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except Exception:  # any of several library errors means the same: not by this issuer
        return False
    return True


def _hosts_of(certificate: x509.Certificate) -> set[str]:
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


def _load_credential(path: Path) -> Credential | None:
    pem = _read(path)
    if pem is None:
        return None
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as error:
        raise PkiError(f"{path} is not a PEM certificate; restore it from a backup or remove it") from error
    start = pem.find(b"-----BEGIN PRIVATE KEY")
    return Credential(certificate, _load_key(path, pem[start:] if start >= 0 else b""))


def _load_key(path: Path, pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise PkiError(f"{path} holds no readable private key; restore it from a backup or remove it") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise PkiError(f"{path} holds a key that is not P-256; restore it from a backup or remove it")
    return key


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


# --- files and contexts ---------------------------------------------------------------------------------------------


def write_private(path: Path, data: bytes) -> None:
    """Replace a file in one step; it is 0600 from its first byte and on disk before it has its name."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_admin_kubeconfig(path: Path, url: str, pki: Pki, *, context: str = "fleetplane") -> None:
    """A kubeconfig that needs no other file: inline authority, client certificate with key, and a bearer token too."""
    quoted = json.dumps
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(
        path,
        f"""\
apiVersion: v1
kind: Config
clusters:
- name: {quoted(context)}
  cluster:
    server: {quoted(url)}
    certificate-authority-data: {_base64(pki.authority_pem)}
users:
- name: {quoted(ADMIN_NAME)}
  user:
    client-certificate-data: {_base64(pki.admin.certificate_pem)}
    client-key-data: {_base64(pki.admin.key_pem)}
    token: {quoted(pki.admin_token)}
contexts:
- name: {quoted(context)}
  context:
    cluster: {quoted(context)}
    user: {quoted(ADMIN_NAME)}
current-context: {quoted(context)}
""".encode(),
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def server_context(pki: Pki, *, client_authorities: Sequence[bytes] = ()) -> ssl.SSLContext:
    """TLS 1.2 or newer; a client certificate is asked for, and must be ours (or of ``client_authorities``, PEM) if shown.

    The front proxy's authority is trusted here too; which authority vouches for what is decided at authentication.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE+AESGCM:ECDHE+CHACHA20")
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    context.verify_mode = ssl.CERT_OPTIONAL
    trusted = [pki.authority.certificate_pem, pki.front_proxy_authority.certificate_pem, *client_authorities]
    context.load_verify_locations(cadata=b"".join(trusted).decode("ascii"))
    reload_context(context, pki)
    return context


def reload_context(context: ssl.SSLContext, pki: Pki) -> None:
    """Show a renewed serving certificate to every connection from now on."""
    context.load_cert_chain(pki.directory / "serving.pem")
