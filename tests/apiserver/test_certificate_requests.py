"""Signing requests: what is asked for is checked, what is signed says only what was checked."""

from __future__ import annotations

import base64
import ipaddress
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fleetplane.apiserver import certificate_requests as requests
from fleetplane.apiserver.authorization.attributes import NO_OPINION, Attributes, Decision, Verdict
from fleetplane.apiserver.authorization.defaults import default_objects
from fleetplane.apiserver.authorization.rbac import RbacIndex
from fleetplane.apiserver.certificates import Credential, cluster_of, hosts_of, is_issued_by, make_authority
from fleetplane.model.user import UserInfo

Obj = dict[str, Any]
KEY = ec.generate_private_key(ec.SECP256R1())


class Clock:
    def __init__(self) -> None:
        self.random = random.Random(5)

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0

    def uuid(self) -> str:
        return "0"


CLOCK = Clock()
AUTHORITY = make_authority("ca", CLOCK)


def pem(
    name: str = "ann", groups: tuple[str, ...] = (), names: list[x509.GeneralName] | None = None, key: Any = KEY
) -> str:
    subject = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, one) for one in groups]
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([*subject, x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else subject)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return base64.b64encode(builder.sign(key, digest).public_bytes(serialization.Encoding.PEM)).decode()


def asked(
    request: str, signer: str = requests.CLIENT, *, approved: bool = True, user: UserInfo | None = None, **spec: Any
) -> Obj:
    serving = signer == requests.KUBELET_SERVING
    usages = ["digital signature", "server auth" if serving else "client auth"]
    obj: Obj = {
        "metadata": {"name": "csr"},
        "spec": {"request": request, "signerName": signer, "usages": usages, **spec},
    }
    if user is not None:
        obj = requests.prepare(obj, user)
    return obj | {"status": {"conditions": [{"type": "Approved", "status": "True"}] if approved else []}}


def signed(obj: Obj, cluster: str = "root") -> x509.Certificate:
    patch = requests.sign(obj, AUTHORITY, CLOCK, cluster)
    assert patch is not None
    return x509.load_pem_x509_certificate(base64.b64decode(patch["status"]["certificate"]))


def failure(obj: Obj) -> str:
    patch = requests.sign(obj, AUTHORITY, CLOCK)
    assert patch is not None
    condition = patch["status"]["conditions"][-1]
    assert (condition["type"], condition["reason"]) == ("Failed", "SignerValidationFailure")
    return str(condition["message"])


NODE = ("system:node:n1", ("system:nodes",))
ADDRESS = [x509.DNSName("n1"), x509.IPAddress(ipaddress.ip_address("fd00::1"))]

# --- signing ----------------------------------------------------------------------------------------------------------


def test_an_approved_client_gets_its_certificate() -> None:
    certificate = signed(asked(pem("ann", ("dev", "ops"))))

    assert is_issued_by(certificate, AUTHORITY.certificate)
    assert certificate.subject.rfc4514_string() == "CN=ann,O=ops,O=dev"
    assert certificate.public_key() == KEY.public_key()
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_nobody_smuggles_a_logical_cluster_in() -> None:
    smuggled = [x509.UniformResourceIdentifier("urn:fleetplane:cluster:theirs"), x509.DNSName("kubernetes")]

    certificate = signed(asked(pem("ann", names=smuggled)), "mine")

    assert cluster_of(certificate) == "mine"
    assert hosts_of(certificate) == set()


def test_a_kubelet_gets_client_and_serving_certificates() -> None:
    assert (
        signed(asked(pem(*NODE), requests.KUBELET_CLIENT)).subject.rfc4514_string()
        == "CN=system:node:n1,O=system:nodes"
    )
    assert hosts_of(signed(asked(pem(*NODE, ADDRESS), requests.KUBELET_SERVING))) == {"n1", "fd00::1"}


@pytest.mark.parametrize(
    ("request_pem", "signer", "why"),
    [
        (pem("x", ("system:masters",)), requests.CLIENT, "system:masters"),
        (pem("", ("dev",)), requests.CLIENT, "common name"),
        (pem("system:node:n1"), requests.KUBELET_CLIENT, "organization"),
        (pem("system:node:n1", ("system:nodes", "system:masters")), requests.KUBELET_CLIENT, "organization"),
        (pem("ann", ("system:nodes",)), requests.KUBELET_CLIENT, "does not begin"),
        (pem("system:node:", ("system:nodes",)), requests.KUBELET_CLIENT, "does not begin"),
        (pem(*NODE, ADDRESS), requests.KUBELET_CLIENT, "not allowed"),
        (pem(*NODE), requests.KUBELET_SERVING, "required"),
        (pem(*NODE, [*ADDRESS, x509.RFC822Name("a@b.c")]), requests.KUBELET_SERVING, "not allowed"),
        ("cnViYmlzaA==", requests.CLIENT, "PKCS#10"),
        ("***", requests.CLIENT, "base64"),
    ],
)  # fmt: skip
def test_what_a_signer_does_not_sign_fails_with_the_reason(request_pem: str, signer: str, why: str) -> None:
    assert why in failure(asked(request_pem, signer))


@pytest.mark.parametrize(
    ("signer", "usages"),
    [
        (requests.CLIENT, ["client auth", "server auth"]),
        (requests.CLIENT, ["digital signature"]),
        (requests.CLIENT, ["client auth", "cert sign"]),
    ],
)
def test_usages_are_held_to_the_signer(signer: str, usages: list[str]) -> None:
    assert "usages" in failure(asked(pem(), signer, usages=usages))


def test_weak_keys_are_not_signed_and_all_usual_ones_are() -> None:
    assert "key must be" in failure(asked(pem(key=rsa.generate_private_key(65537, 1024))))
    for key in (
        rsa.generate_private_key(65537, 2048),
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP384R1()),
    ):
        assert signed(asked(pem(key=key))).public_key() == key.public_key()


def test_a_request_that_was_tampered_with_is_not_signed() -> None:
    der = bytearray(base64.b64decode("".join(base64.b64decode(pem("ann")).decode().split("-----")[2].split())))
    at = bytes(der).index(b"ann")
    der[at : at + 3] = b"bob"
    block = (
        b"-----BEGIN CERTIFICATE REQUEST-----\n"
        + base64.encodebytes(bytes(der))
        + b"-----END CERTIFICATE REQUEST-----\n"
    )

    assert "signature" in failure(asked(base64.b64encode(block).decode()))


@pytest.mark.parametrize(
    ("change", "spec"),
    [
        ({"conditions": []}, {}),
        ({"conditions": [{"type": "Approved"}, {"type": "Denied"}]}, {}),
        ({"conditions": [{"type": "Approved"}, {"type": "Failed"}]}, {}),
        ({"conditions": [{"type": "Approved"}], "certificate": "x"}, {}),
        ({"conditions": [{"type": "Approved"}]}, {"signerName": "acme.com/signer"}),
    ],
)
def test_only_approved_open_requests_to_our_signers_are_touched(change: Obj, spec: Obj) -> None:
    obj = asked(pem(), **spec)
    obj["status"] = change

    assert requests.sign(obj, AUTHORITY, CLOCK) is None


def test_durations_are_honoured_within_limits() -> None:
    def lifetime(authority: Credential, **spec: Any) -> timedelta:
        patch = requests.sign(asked(pem(), **spec), authority, CLOCK)
        assert patch is not None
        found = x509.load_pem_x509_certificate(base64.b64decode(patch["status"]["certificate"]))
        return found.not_valid_after_utc - CLOCK.now()

    assert lifetime(AUTHORITY, expirationSeconds=3600) == timedelta(hours=1)
    assert lifetime(AUTHORITY) == lifetime(AUTHORITY, expirationSeconds=10**9) == timedelta(days=365)
    dying = make_authority("ca", CLOCK, lifetime=timedelta(hours=2))
    assert lifetime(dying) == timedelta(hours=2)


# --- creating and approving -------------------------------------------------------------------------------------------


def test_the_requester_is_who_asked_whatever_the_body_says() -> None:
    made = requests.prepare(
        {"spec": {"username": "root", "groups": ["system:masters"], "signerName": "s"}, "status": {"certificate": "x"}},
        UserInfo("ann", groups=("dev",)),
    )

    assert made == {"spec": {"username": "ann", "groups": ["dev"], "signerName": "s"}}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"request": "x"}, "spec.request"),
        ({"request": pem("x", ("system:masters",))}, "spec.request"),
        ({"signerName": ""}, "spec.signerName"),
        ({"signerName": "mine"}, "spec.signerName"),
        ({"usages": []}, "spec.usages"),
        ({"usages": ["client auth", "client auth"]}, "spec.usages"),
        ({"expirationSeconds": 599}, "spec.expirationSeconds"),
    ],
)
def test_bad_requests_are_named_by_field(spec: Obj, field: str) -> None:
    good = asked(pem())
    assert requests.validate(good) == []

    assert [one.field for one in requests.validate({"spec": {**good["spec"], **spec}})] == [field]


def test_approving_needs_the_signer_or_its_domain() -> None:
    def allow(name: str) -> Any:
        def authorize(a: Attributes) -> Decision:
            assert (a.verb, a.resource, a.group) == ("approve", "signers", "certificates.k8s.io")
            return Decision(Verdict.ALLOW) if a.name == name else NO_OPINION

        return authorize

    ann, obj = UserInfo("ann"), asked(pem())
    assert requests.approval_objection(ann, obj, allow(requests.CLIENT)) is None
    assert requests.approval_objection(ann, obj, allow("kubernetes.io/*")) is None
    assert requests.approval_objection(ann, obj, allow("acme.com/*")) == (
        'user not permitted to approve requests with signerName "kubernetes.io/kube-apiserver-client"'
    )


def test_a_bootstrapping_machine_and_a_renewing_node_are_approved() -> None:
    authorize = RbacIndex(default_objects()).authorize
    joining = UserInfo("system:bootstrap:abcdef", groups=("system:bootstrappers", "system:authenticated"))
    node = UserInfo("system:node:n1", groups=("system:nodes", "system:authenticated"))
    other = UserInfo("system:node:n2", groups=("system:nodes", "system:authenticated"))

    def approved(user: UserInfo, request: str = pem(*NODE), signer: str = requests.KUBELET_CLIENT, **more: Any) -> bool:
        found = requests.auto_approval(asked(request, signer, approved=False, user=user, **more), authorize, CLOCK)
        assert found is None or (found["type"], found["reason"]) == ("Approved", "AutoApproved")
        return found is not None

    assert approved(joining)
    assert approved(node)
    assert not approved(other)
    assert not approved(UserInfo("ann"))
    assert not approved(joining, signer=requests.CLIENT)
    assert not approved(joining, pem("ann", ("system:nodes",)))
