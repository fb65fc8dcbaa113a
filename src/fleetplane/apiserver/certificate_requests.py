"""CertificateSigningRequests: who may ask for, approve and sign what (``certificates.k8s.io/v1``).

Pure functions from a request object to what should be written next; a controller reads, calls and writes. Rules are
those of Kubernetes' signers (https://kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests/).

Of a request only the key, the common name, the organizations and, for serving, names and addresses go into a
certificate. Everything else a requester might smuggle in, above all the URI that says which logical cluster a client
belongs to, is left out; the cluster is filled in by us.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetplane.apiserver.authorization.attributes import Attributes, Authorizer
from fleetplane.apiserver.authorization.node import NODES_GROUP
from fleetplane.apiserver.certificates import LEAF_LIFETIME, Credential, PublicKey, Subject, issue
from fleetplane.model import objects
from fleetplane.model.environment import Environment, timestamp
from fleetplane.model.errors import FieldError
from fleetplane.model.objects import Object
from fleetplane.model.user import MASTERS_GROUP, NODE_PREFIX, UserInfo

GROUP: Final = "certificates.k8s.io"
CLIENT: Final = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT: Final = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING: Final = "kubernetes.io/kubelet-serving"
SIGNERS: Final = (CLIENT, KUBELET_CLIENT, KUBELET_SERVING)
"""The signers we are. Requests to others wait for whoever signs those."""

MIN_SECONDS: Final = 600
_CLIENT_USAGES: Final = frozenset({"digital signature", "key encipherment", "client auth"})
_SERVING_USAGES: Final = frozenset({"digital signature", "key encipherment", "server auth"})
_MAX_NAME: Final = 64
_MAX_REQUEST_BYTES: Final = 64 * 1024


class BadRequest(Exception):
    """The signing request cannot be used; the message says why."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a PEM request asks for, as far as we look at it."""

    key: PublicKey
    name: str
    groups: tuple[str, ...]
    dns: tuple[str, ...]
    addresses: tuple[str, ...]
    others: bool
    """It also names e-mail addresses, URIs or anything else."""


# --- creating -------------------------------------------------------------------------------------------------------


def prepare(request: Object, user: UserInfo) -> Object:
    """A new request as it is stored: who asks is what authentication found, whatever the body claims."""
    spec = {k: v for k, v in (request.get("spec") or {}).items() if k not in {"username", "uid", "groups", "extra"}}
    shown = user.to_object()
    spec |= {key: shown[key] for key in ("username", "uid", "groups", "extra") if key in shown}
    return {**{k: v for k, v in request.items() if k != "status"}, "spec": spec}


def validate(request: Object) -> list[FieldError]:
    """What is wrong with the spec of a new request."""
    spec = request.get("spec") or {}
    found: list[FieldError] = []
    try:
        wanted: Wanted | None = read_request(spec)
    except BadRequest as error:
        wanted = None
        found.append(FieldError.invalid("spec.request", "<bytes>", str(error)))
    signer = str(spec.get("signerName") or "")
    domain, slash, path = signer.partition("/")
    if not signer:
        found.append(FieldError.required("spec.signerName"))
    elif not slash or not path or "." not in domain:
        found.append(
            FieldError.invalid(
                "spec.signerName",
                signer,
                "must be a fully qualified domain and path of the form 'example.com/signer-name'",
            )
        )
    usages = spec.get("usages")
    if not usages:
        found.append(FieldError.required("spec.usages"))
    elif len(set(usages)) != len(usages):
        found.append(FieldError.duplicate("spec.usages", usages))
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < MIN_SECONDS:
        found.append(
            FieldError.invalid(
                "spec.expirationSeconds", seconds, "may not specify a duration less than 600 seconds (10 minutes)"
            )
        )
    if wanted is not None and signer == CLIENT and MASTERS_GROUP in wanted.groups:
        detail = f"use of {CLIENT} signer with {MASTERS_GROUP} group is not allowed"
        found.append(FieldError.forbidden("spec.request", detail))
    return found


def read_request(spec: Mapping[str, Any]) -> Wanted:
    """Parse ``spec.request`` (base64 of PEM) and check that whoever made it holds the key. Raises BadRequest."""
    try:
        pem = base64.b64decode(str(spec.get("request") or ""), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest("it must be a base64-encoded PEM block") from None
    if len(pem) > _MAX_REQUEST_BYTES:
        raise BadRequest("it is too large")
    try:
        found = x509.load_pem_x509_csr(pem)
        if not found.is_signature_valid:
            raise BadRequest("its signature does not fit its key")
        key = _usable(found)
        dns, addresses, others = _alternatives(found)
        return Wanted(
            key,
            next(iter(_values(found, NameOID.COMMON_NAME)), ""),
            _values(found, NameOID.ORGANIZATION_NAME),
            dns,
            addresses,
            others,
        )
    except BadRequest:
        raise
    except Exception:  # the library has many ways to say that bytes are no request; none is to reach a client
        raise BadRequest("it is not a PEM-encoded PKCS#10 certificate request") from None


def _usable(request: x509.CertificateSigningRequest) -> PublicKey:
    key = request.public_key()
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1 | ec.SECP521R1):
        return key
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise BadRequest("its key must be RSA of 2048 bits or more, P-256, P-384, P-521, or Ed25519")


def _values(request: x509.CertificateSigningRequest, oid: x509.ObjectIdentifier) -> tuple[str, ...]:
    return tuple(str(one.value) for one in request.subject.get_attributes_for_oid(oid))


def _alternatives(request: x509.CertificateSigningRequest) -> tuple[tuple[str, ...], tuple[str, ...], bool]:
    try:
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return (), (), False
    dns = tuple(names.get_values_for_type(x509.DNSName))
    addresses = tuple(map(str, names.get_values_for_type(x509.IPAddress)))
    return dns, addresses, len(names) > len(dns) + len(addresses)


# --- approving ------------------------------------------------------------------------------------------------------


def may_use_signer(user: UserInfo, verb: str, signer: str, authorize: Authorizer, cluster: str = "root") -> bool:
    """Whether a user may ``approve`` or ``sign`` for a signer: by its name, or for its whole domain (``domain/*``)."""
    domain = signer.partition("/")[0]
    return any(
        authorize(Attributes(user, verb, GROUP, "*", "signers", name=name, cluster=cluster)).allowed
        for name in (signer, f"{domain}/*")
    )


def approval_objection(
    user: UserInfo, request: Object, authorize: Authorizer, cluster: str = "root", verb: str = "approve"
) -> str | None:
    """Why a write to ``approval`` (``approve``) or of a certificate to ``status`` (``sign``) is refused, or None."""
    signer = str((request.get("spec") or {}).get("signerName") or "")
    if may_use_signer(user, verb, signer, authorize, cluster):
        return None
    return f'user not permitted to {verb} requests with signerName "{signer}"'


def auto_approval(
    request: Object, authorize: Authorizer, environment: Environment, cluster: str = "root"
) -> Object | None:
    """The Approved condition for a node's client certificate whose requester may have it, None otherwise.

    A node may renew its own (``selfnodeclient``); a machine with a bootstrap token may ask for its first
    (``nodeclient``).
    """
    spec = request.get("spec") or {}
    if (
        spec.get("signerName") != KUBELET_CLIENT
        or _conditions(request)
        or (request.get("status") or {}).get("certificate")
    ):
        return None
    try:
        wanted = read_request(spec)
    except BadRequest:
        return None
    if _objection(KUBELET_CLIENT, wanted, spec) is not None:
        return None
    user = UserInfo.from_object(spec)
    kinds = ["nodeclient"]
    if wanted.name == user.name:
        kinds.insert(0, "selfnodeclient")
    for kind in kinds:
        asked = Attributes(
            user, "create", GROUP, "*", "certificatesigningrequests", kind, name=objects.name(request), cluster=cluster
        )
        if authorize(asked).allowed:
            which = "self kubelet client" if kind == "selfnodeclient" else "kubelet client"
            message = f"Auto approving {which} certificate after SubjectAccessReview."
            return _condition("Approved", "AutoApproved", message, environment.now())
    return None


# --- signing --------------------------------------------------------------------------------------------------------


def sign(request: Object, authority: Credential, environment: Environment, cluster: str = "root") -> Object | None:
    """The status to patch onto a request: a certificate, or a Failed condition; None when there is nothing to do.

    Signs what is approved, not denied or failed, has no certificate yet, and names one of ``SIGNERS``. A client
    certificate is good in ``cluster`` only.
    """
    spec, status = request.get("spec") or {}, request.get("status") or {}
    signer = str(spec.get("signerName") or "")
    conditions = _conditions(request)
    if signer not in SIGNERS or "Approved" not in conditions or conditions & {"Denied", "Failed"}:
        return None
    if status.get("certificate"):
        return None
    try:
        wanted = read_request(spec)
        objection = _objection(signer, wanted, spec)
    except BadRequest as error:
        wanted, objection = None, str(error)
    if wanted is None or objection is not None:
        failed = _condition("Failed", "SignerValidationFailure", str(objection), environment.now())
        return {"status": {"conditions": [*(status.get("conditions") or ()), failed]}}
    serving = signer == KUBELET_SERVING
    subject = Subject(
        wanted.name,
        tuple(sorted(set(wanted.groups))),
        hosts=(*wanted.dns, *wanted.addresses) if serving else (),
        cluster="" if serving or cluster == "root" else cluster,
        usages=(ExtendedKeyUsageOID.SERVER_AUTH if serving else ExtendedKeyUsageOID.CLIENT_AUTH,),
        key_encipherment="key encipherment" in (spec.get("usages") or ()),
    )
    certificate = issue(authority, subject, wanted.key, environment, lifetime=_lifetime(spec))
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    return {"status": {"certificate": base64.b64encode(pem).decode()}}


def _lifetime(spec: Mapping[str, Any]) -> timedelta:
    seconds = spec.get("expirationSeconds")
    if isinstance(seconds, int) and not isinstance(seconds, bool) and seconds >= MIN_SECONDS:
        return min(timedelta(seconds=seconds), LEAF_LIFETIME)
    return LEAF_LIFETIME


def _objection(signer: str, wanted: Wanted, spec: Mapping[str, Any]) -> str | None:
    """Why a signer refuses a request; None when it signs it."""
    usages = frozenset(spec.get("usages") or ())
    if not wanted.name:
        return "subject common name is required"
    if any(not 0 < len(one) <= _MAX_NAME for one in (wanted.name, *wanted.groups)):
        return f"subject names must have 1 to {_MAX_NAME} characters (RFC 5280)"
    if signer == CLIENT:
        if MASTERS_GROUP in wanted.groups:
            return f"subject organization {MASTERS_GROUP} is not allowed"
        return _usage_objection(usages, _CLIENT_USAGES, "client auth")
    if wanted.groups != (NODES_GROUP,):
        return f"subject organization is not {NODES_GROUP}"
    if not wanted.name.startswith(NODE_PREFIX) or wanted.name == NODE_PREFIX:
        return f"subject common name does not begin with {NODE_PREFIX}"
    if signer == KUBELET_CLIENT:
        if wanted.dns or wanted.addresses or wanted.others:
            return "DNS, email, IP and URI subjectAltNames are not allowed"
        return _usage_objection(usages, _CLIENT_USAGES, "client auth")
    if not wanted.dns and not wanted.addresses:
        return "DNS or IP subjectAltName is required"
    if wanted.others:
        return "email and URI subjectAltNames are not allowed"
    return _usage_objection(usages, _SERVING_USAGES, "server auth")


def _usage_objection(usages: frozenset[str], allowed: frozenset[str], required: str) -> str | None:
    if usages <= allowed and required in usages:
        return None
    return f"usages did not match {_listed(sorted(allowed))}: {required} is required and nothing else is allowed"


def _listed(values: Sequence[str]) -> str:
    return "[" + " ".join(f'"{one}"' for one in values) + "]"


def _conditions(request: Object) -> set[str]:
    listed = (request.get("status") or {}).get("conditions") or ()
    return {str(one.get("type")) for one in listed if one.get("status", "True") == "True"}


def _condition(kind: str, reason: str, message: str, now: datetime) -> Object:
    moment = timestamp(now)
    return {
        "type": kind,
        "status": "True",
        "reason": reason,
        "message": message,
        "lastUpdateTime": moment,
        "lastTransitionTime": moment,
    }
