"""Networking, roles, policies, storage, certificates and registration: a default and a refusal of each."""

from __future__ import annotations

import base64
import copy
from collections.abc import Callable
from typing import Any

import pytest

Object = dict[str, Any]
Create = Callable[[Object], tuple[Object, list[str]]]
Update = Callable[..., tuple[Object, list[str]]]
Stored = Callable[[Object], Object]

REQUEST = base64.b64encode(b"-----BEGIN CERTIFICATE REQUEST-----\n").decode()


def obj(api_version: str, kind: str, **fields: Any) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}} | fields


def ingress(**path: Any) -> Object:
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "s", "port": {"number": 80}}}} | path
    return obj(
        "networking.k8s.io/v1", "Ingress", spec={"rules": [{"host": "a.example.com", "http": {"paths": [path]}}]}
    )


def binding(**fields: Any) -> Object:
    return obj("rbac.authorization.k8s.io/v1", "RoleBinding", roleRef={"kind": "Role", "name": "r"}) | fields


def webhook(**fields: Any) -> Object:
    hook = {
        "name": "a.example.com",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"service": {"name": "s", "namespace": "n"}},
    } | fields
    return obj("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", webhooks=[hook])


def signing(**spec: Any) -> Object:
    spec = {"request": REQUEST, "usages": ["client auth"], "signerName": "example.com/s"} | spec
    return obj("certificates.k8s.io/v1", "CertificateSigningRequest", spec=spec)


def test_policies_apply_to_what_they_mention(stored: Stored) -> None:
    one = stored(obj("networking.k8s.io/v1", "NetworkPolicy", spec={"podSelector": {}}))
    two = stored(obj("networking.k8s.io/v1", "NetworkPolicy", spec={"podSelector": {}, "egress": [{}]}))

    assert one["spec"]["policyTypes"] == ["Ingress"]
    assert two["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_subjects_and_roles_belong_to_their_group(stored: Stored) -> None:
    made = stored(binding(subjects=[{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "s"}]))

    assert made["roleRef"]["apiGroup"] == "rbac.authorization.k8s.io"
    assert [one.get("apiGroup") for one in made["subjects"]] == ["rbac.authorization.k8s.io", None]


def test_a_binding_grants_one_role_for_good(stored: Stored, update: Update) -> None:
    old = stored(binding())

    assert update(binding(roleRef={"kind": "Role", "name": "s"}), old)[1] == [
        'roleRef: Invalid value: {"kind": "Role", "name": "s", "apiGroup": "rbac.authorization.k8s.io"}: cannot change roleRef'
    ]


def test_a_webhook_gets_its_defaults(stored: Stored) -> None:
    hook = stored(webhook(rules=[{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}]))[
        "webhooks"
    ][0]

    assert (hook["failurePolicy"], hook["matchPolicy"], hook["timeoutSeconds"]) == ("Fail", "Equivalent", 10)
    assert hook["rules"][0]["scope"] == "*"
    assert hook["clientConfig"]["service"]["port"] == 443
    assert hook["namespaceSelector"] == {}


def test_a_definition_gets_its_names(stored: Stored) -> None:
    spec = {"group": "example.com", "names": {"plural": "cars", "kind": "Car"}, "scope": "Namespaced", "versions": []}
    made = stored(obj("apiextensions.k8s.io/v1", "CustomResourceDefinition", spec=spec))

    assert made["spec"]["names"] == {"plural": "cars", "kind": "Car", "singular": "car", "listKind": "CarList"}
    assert made["spec"]["conversion"] == {"strategy": "None"}


def test_deciding_and_signing_are_apart(stored: Stored, update: Update) -> None:
    old = stored(signing())
    approved = copy.deepcopy(old)
    approved["status"] = {"conditions": [{"type": "Approved", "status": "True", "reason": "ok"}], "certificate": "eA=="}

    made, problems = update(approved, old, "approval")

    assert problems == []
    assert "certificate" not in made["status"]
    assert any("Approved" in one for one in update(approved, old, "status")[1])


def test_a_decision_is_not_taken_back(stored: Stored, update: Update) -> None:
    old = stored(signing())
    old["status"]["conditions"] = [{"type": "Approved", "status": "True"}]
    new = copy.deepcopy(old)
    new["status"] = {}

    assert update(new, old, "approval")[1] == [
        'status.conditions: Forbidden: updates may not remove a condition of type "Approved"'
    ]


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (ingress(pathType=None), "pathType must be specified"),
        (ingress(path="x"), "must be an absolute path"),
        (ingress(path="/a/../b"), "must not contain '/../'"),
        (ingress(backend={}), "resource or service backend is required"),
        (obj("networking.k8s.io/v1", "Ingress", spec={}), "either `defaultBackend` or `rules` must be specified"),
        (obj("networking.k8s.io/v1", "IPAddress", spec={}), "spec.parentRef: Required value"),
        (
            obj("networking.k8s.io/v1", "ServiceCIDR", spec={"cidrs": ["10.0.0.0/8", "11.0.0.0/8"]}),
            "no more than one IP",
        ),
        (obj("policy/v1", "PodDisruptionBudget", spec={"minAvailable": 1, "maxUnavailable": 1}), "cannot be both set"),
        (obj("policy/v1", "PodDisruptionBudget", spec={"minAvailable": "half"}), "a valid percent string"),
        (obj("rbac.authorization.k8s.io/v1", "Role", rules=[{"verbs": ["get"]}]), "at least one api group"),
        (
            obj("rbac.authorization.k8s.io/v1", "Role", rules=[{"verbs": ["get"], "nonResourceURLs": ["/x"]}]),
            "namespaced rules cannot apply to non-resource URLs",
        ),
        (binding(roleRef={"kind": "Car", "name": "x"}), "roleRef.kind: Unsupported value"),
        (obj("scheduling.k8s.io/v1", "PriorityClass", value=2_000_000_000), "maximum allowed value"),
        (obj("storage.k8s.io/v1", "StorageClass"), "provisioner: Required value"),
        (obj("coordination.k8s.io/v1", "Lease", spec={"leaseDurationSeconds": 0}), "must be greater than 0"),
        (obj("node.k8s.io/v1", "RuntimeClass", handler="A"), "handler: Invalid value"),
        (
            obj("discovery.k8s.io/v1", "EndpointSlice", addressType="IPv6", endpoints=[{"addresses": ["1.2.3.4"]}]),
            "valid IPv6",
        ),
        (webhook(name="short"), "at least three segments"),
        (webhook(sideEffects=None), "must specify one of None, NoneOnDryRun"),
        (webhook(clientConfig={}), "exactly one of url or service is required"),
        (webhook(clientConfig={"url": "http://a"}), "'https' is the only allowed URL scheme"),
        (webhook(admissionReviewVersions=["v9"]), "must include at least one of v1, v1beta1"),
        (signing(request=""), "PEM block type must be CERTIFICATE REQUEST"),
        (signing(usages=["fun"]), "spec.usages[0]: Unsupported value"),
        (signing(signerName="me"), "must be a fully qualified domain and path"),
        (
            obj("apiregistration.k8s.io/v1", "APIService", spec={"group": "x.y", "version": "v1"}),
            "must be positive and less than 20000",
        ),
        (
            obj("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", spec={"type": "Limited"}),
            "must not be empty when type is Limited",
        ),
        (
            obj("resource.k8s.io/v1", "ResourceClaim", spec={"devices": {"requests": [{"name": "r"}]}}),
            "exactly one of `exactly` or `firstAvailable` is required",
        ),
    ],
)
def test_what_cannot_be_is_refused(create: Create, made: Object, problem: str) -> None:
    made = {key: value for key, value in made.items() if value is not None}
    for rule in made.get("spec", {}).get("rules", []):
        for path in rule.get("http", {}).get("paths", []):
            if path.get("pathType") is None:
                del path["pathType"]
    for hook in made.get("webhooks", []):
        if hook.get("sideEffects") is None:
            del hook["sideEffects"]

    _, problems = create(made)

    assert any(problem in one for one in problems), problems
