"""The certificates group: requests to be signed, trust bundles, certificates for pods."""

from __future__ import annotations

import binascii
from base64 import b64decode
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from fleetplane.apiserver.kinds.access import entries, number, section, text
from fleetplane.apiserver.kinds.behaviour import KindBehaviour, SubresourceRules
from fleetplane.apiserver.kinds.checks import Errors, collected, required, spec_of, status_of, supported, unchanged
from fleetplane.apiserver.kinds.columns import NONE, at, text_column, timed_column
from fleetplane.model import names
from fleetplane.model.errors import FieldError
from fleetplane.model.jsonvalue import copied
from fleetplane.model.objects import Object
from fleetplane.model.table import AGE, NAME, Cell, human_duration

USAGES: Final = (
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
)
_SHORTEST: Final = 600
_DECISIONS: Final = ("Approved", "Denied")
_MAX_BUNDLE: Final = 1024 * 1024


def _pem(value: str) -> bytes:
    try:
        return b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return b""


def signer_name(value: str, path: str) -> Errors:
    if not value:
        yield FieldError.required(path, "signerName must be provided")
        return
    domain, slash, rest = value.partition("/")
    if not slash or not rest or "/" in rest:
        detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        yield FieldError.invalid(path, value, detail)
        return
    if domain.count(".") < 1:
        yield FieldError.invalid(path, domain, "should be a domain with at least two segments separated by dots")
    for part in (domain, rest):
        for problem in names.dns1123_subdomain(part):
            yield FieldError.invalid(path, part, f"validating label {part!r}: {problem}")


def _validate(request: Object, old: Object | None) -> Errors:
    spec = spec_of(request)
    if old is not None:
        yield from unchanged(spec, spec_of(old), "spec")
        return
    if b"-----BEGIN CERTIFICATE REQUEST-----" not in _pem(text(spec, "request")):
        detail = "PEM block type must be CERTIFICATE REQUEST"
        yield FieldError.invalid("spec.request", "<certificate request>", detail)
    usages = spec.get("usages") or []
    if not usages:
        yield FieldError.required("spec.usages", "usages must be provided")
    for index, usage in enumerate(usages):
        yield from supported(usage, USAGES, f"spec.usages[{index}]")
        if usage in usages[:index]:
            yield FieldError.duplicate(f"spec.usages[{index}]", usage)
    yield from signer_name(text(spec, "signerName"), "spec.signerName")
    if text(spec, "signerName") == "kubernetes.io/legacy-unknown":
        detail = "the legacy signerName is not allowed via this API version"
        yield FieldError.invalid("spec.signerName", spec["signerName"], detail)
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SHORTEST:
        yield FieldError.invalid(
            "spec.expirationSeconds", seconds, "may not specify a duration less than 600 seconds (10 minutes)"
        )


def _conditions(request: Object) -> Errors:
    found = status_of(request).get("conditions") or []
    decided: set[str] = set()
    for index, condition in enumerate(found):
        path, kind = f"status.conditions[{index}]", text(condition, "type")
        yield from required(kind, f"{path}.type")
        if kind in ("Approved", "Denied", "Failed"):
            yield from supported(text(condition, "status"), ("True",), f"{path}.status")
        if kind in _DECISIONS:
            if decided - {kind}:
                detail = "Approved and Denied conditions are mutually exclusive"
                yield FieldError.invalid(f"{path}.type", kind, detail)
            decided.add(kind)
        if kind in [text(one, "type") for one in found[:index]]:
            yield FieldError.duplicate(f"{path}.type", kind)


def _decision(request: Object) -> list[Object]:
    return [one for one in status_of(request).get("conditions") or [] if one.get("type") in _DECISIONS]


def _validate_status(request: Object, old: Object | None) -> Errors:
    """Signers tell the certificate; they do not decide."""
    yield from _conditions(request)
    if old is not None and _decision(request) != _decision(old):
        detail = 'updates may not add, remove or modify a condition of type "Approved" or "Denied"'
        yield FieldError.forbidden("status.conditions", detail)
    new, before = status_of(request).get("certificate"), status_of(old or {}).get("certificate")
    if before and new != before:
        detail = "updates may not modify existing certificate content"
        yield FieldError.forbidden("status.certificate", detail)
    if new and b"-----BEGIN CERTIFICATE-----" not in _pem(new):
        detail = "expected CERTIFICATE PEM block"
        yield FieldError.invalid("status.certificate", "<certificate data>", detail)


def _prepare_approval(request: Object, old: Object) -> None:
    """Approvers decide; they change nothing else."""
    conditions = section(request, "status").get("conditions")
    request["spec"] = copied(spec_of(old))
    status = copied(status_of(old))
    status.pop("conditions", None)
    if conditions:
        status["conditions"] = conditions
    request["status"] = status


def _validate_approval(request: Object, old: Object | None) -> Errors:
    yield from _conditions(request)
    kept = [one.get("type") for one in _decision(request)]
    for one in _decision(old or {}):
        if one.get("type") not in kept:
            detail = f'updates may not remove a condition of type "{one.get("type")}"'
            yield FieldError.forbidden("status.conditions", detail)


def _state(request: Mapping[str, Any]) -> str:
    kinds = {text(one, "type") for one in entries(section(request, "status"), "conditions")}
    word = "Denied" if "Denied" in kinds else "Approved" if "Approved" in kinds else "Pending"
    if "Failed" in kinds:
        word += ",Failed"
    return word + ",Issued" if section(request, "status").get("certificate") else word


def _wanted_life(request: Mapping[str, Any], now: datetime) -> Cell:
    seconds = number(section(request, "spec"), "expirationSeconds")
    return human_duration(timedelta(seconds=seconds)) if seconds else NONE


CERTIFICATE_SIGNING_REQUESTS: Final = KindBehaviour(
    validate=collected(_validate),
    validate_status=collected(_validate_status),
    columns=(
        NAME,
        AGE,
        text_column("SignerName", "Who shall sign.", at("spec", "signerName", default=NONE)),
        text_column("Requestor", "Who asks.", at("spec", "username")),
        timed_column("RequestedDuration", "How long it shall be valid.", _wanted_life),
        text_column("Condition", "What became of it.", _state),
    ),
    fields={"spec.signerName": lambda obj: text(section(obj, "spec"), "signerName")},
    subresources={"approval": SubresourceRules(_prepare_approval, collected(_validate_approval))},
    has_generation=False,
)


def _validate_bundle(bundle: Object, old: Object | None) -> Errors:
    spec, name = spec_of(bundle), text(bundle["metadata"], "name")
    signer, trust = text(spec, "signerName"), text(spec, "trustBundle")
    if signer:
        yield from signer_name(signer, "spec.signerName")
        prefix = signer.replace("/", ":") + ":"
        if not name.startswith(prefix):
            yield FieldError.invalid(
                "metadata.name", name, f"ClusterTrustBundle for signerName {signer} must be named with prefix {prefix}"
            )
    elif ":" in name:
        detail = 'ClusterTrustBundle without signer name must not have ":" in its name'
        yield FieldError.invalid("metadata.name", name, detail)
    if not trust.strip():
        yield FieldError.invalid(
            "spec.trustBundle", "<value omitted>", "trust bundle must contain at least one certificate"
        )
    elif len(trust) > _MAX_BUNDLE:
        yield FieldError.too_long("spec.trustBundle", _MAX_BUNDLE)
    elif "-----BEGIN CERTIFICATE-----" not in trust:
        yield FieldError.invalid("spec.trustBundle", "<value omitted>", "must hold PEM blocks of type CERTIFICATE")
    if old is not None:
        yield from unchanged(signer, text(spec_of(old), "signerName"), "spec.signerName")


CLUSTER_TRUST_BUNDLES: Final = KindBehaviour(
    validate=collected(_validate_bundle),
    validate_name=names.path_segment,
    columns=(NAME, text_column("SignerName", "Whose bundle it is.", at("spec", "signerName", default=NONE)), AGE),
    fields={"spec.signerName": lambda obj: text(section(obj, "spec"), "signerName")},
    unconditional_update=False,
)

_POD_FIELDS: Final = ("podName", "podUID", "serviceAccountName", "serviceAccountUID", "nodeName", "nodeUID")


def _validate_pod_request(request: Object, old: Object | None) -> Errors:
    spec = spec_of(request)
    yield from signer_name(text(spec, "signerName"), "spec.signerName")
    for key in _POD_FIELDS:
        yield from required(spec.get(key), f"spec.{key}")
    if old is not None:
        yield from unchanged(spec, spec_of(old), "spec")


POD_CERTIFICATE_REQUESTS: Final = KindBehaviour(
    validate=collected(_validate_pod_request),
    columns=(
        NAME,
        text_column("PodName", "The pod it is for.", at("spec", "podName")),
        text_column("ServiceAccountName", "The account of the pod.", at("spec", "serviceAccountName")),
        text_column("NodeName", "The node of the pod.", at("spec", "nodeName")),
        text_column("SignerName", "Who shall sign.", at("spec", "signerName")),
        text_column("State", "What became of it.", _state),
        AGE,
    ),
    fields={
        "spec.signerName": lambda obj: text(section(obj, "spec"), "signerName"),
        "spec.podName": lambda obj: text(section(obj, "spec"), "podName"),
        "spec.nodeName": lambda obj: text(section(obj, "spec"), "nodeName"),
    },
    unconditional_update=False,
)
