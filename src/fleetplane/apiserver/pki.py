"""The plane's own public-key infrastructure: made on first start, renewed in place, kept in one directory.

Every credential is one PEM file that holds the certificate and its key, so that a renewal is a single rename and the
two can never disagree. All keys are P-256: small, fast to make, and accepted by every client. The certificate authority
outlives its leaves; when it grows old its certificate is issued again over the same key, so nothing it signed breaks.

Files are 0600 in a 0700 directory and are written by rename. Private keys are never logged and never leave the
directory, except for the administrator's own in ``admin.kubeconfig``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from fleetplane.apiserver.certificates import (
    Credential,
    Subject,
    hosts_of,
    is_issued_by,
    issue,
    make_authority,
    private_pem,
)
from fleetplane.model.environment import Environment
from fleetplane.model.user import MASTERS_GROUP

ADMIN_NAME: Final = "kubernetes-admin"
KUBELET_CLIENT_NAME: Final = "kube-apiserver-kubelet-client"
FRONT_PROXY_NAME: Final = "front-proxy-client"

SERVING_NAMES: Final = (
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "127.0.0.1",
    "::1",
)


class PkiError(Exception):
    """The directory holds something unusable; the message says which file and what to do."""


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
    admin_token: str = field(repr=False)

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
        admin=leaf("admin.pem", authority, Subject(ADMIN_NAME, groups=(MASTERS_GROUP,))),
        kubelet_client=leaf("kubelet-client.pem", authority, Subject(KUBELET_CLIENT_NAME)),
        front_proxy_client=leaf("front-proxy-client.pem", front, Subject(FRONT_PROXY_NAME)),
        service_account_key=_ensure_signing_key(directory / "service-account.pem"),
        admin_token=_ensure_token(directory / "admin.token", environment),
    )


def _ensure_authority(path: Path, name: str, environment: Environment) -> Credential:
    found = _load_credential(path)
    if found is not None and _is_fresh(found.certificate, environment.now()):
        return found
    made = make_authority(name, environment, renew=found)
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
        and is_issued_by(found.certificate, issuer.certificate)
        and set(subject.hosts) <= hosts_of(found.certificate)
    ):
        return found
    key = ec.generate_private_key(ec.SECP256R1())
    hosts = subject.hosts
    if found is not None and hosts:  # addresses come and go: keep those that old clients still use
        hosts = tuple(dict.fromkeys([*hosts, *sorted(hosts_of(found.certificate))]))[:100]
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
    """TLS 1.2 or newer; a client certificate is asked for, and must be ours if shown.

    ``client_authorities`` (PEM) vouch for clients as well, and so does the front proxy's authority; which of them
    vouches for what is decided at authentication.
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
