"""PodSecurity in admission: pods are refused, templates warned about, labels checked when they are set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.apiserver.admission.namespaces import NamespaceView
from fleetplane.apiserver.admission.pod_security.checks import detail_of, evaluate, reason_of
from fleetplane.apiserver.admission.pod_security.levels import LEVELS, Level, Policy, read_policy
from fleetplane.apiserver.admission.refusals import forbid
from fleetplane.apiserver.admission.views import ClusterId
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    allowed,
    refused,
)
from fleetplane.model.builtin.types import PODS
from fleetplane.model.objects import Object, labels, name

_TEMPLATES: Final[Mapping[str, tuple[str, ...]]] = {
    "replicationcontrollers": ("spec", "template"),
    "podtemplates": ("template",),
    "deployments.apps": ("spec", "template"),
    "replicasets.apps": ("spec", "template"),
    "statefulsets.apps": ("spec", "template"),
    "daemonsets.apps": ("spec", "template"),
    "jobs.batch": ("spec", "template"),
    "cronjobs.batch": ("spec", "jobTemplate", "spec", "template"),
}
"""Where the kinds that make pods keep their template."""
_MAX_PODS: Final = 3000
_AUDIT: Final = "pod-security.kubernetes.io/"


def pod_security_plugins(namespaces: NamespaceView, cluster_id: ClusterId) -> list[AdmissionPlugin]:
    def policy_for(request: AdmissionRequest) -> Policy:
        found = namespaces.labels_for(cluster_id(request.cluster), request)
        return read_policy(found or {})[0]

    async def check_pod(request: AdmissionRequest, _reader: Reader) -> Decision:
        policy = policy_for(request)
        if policy.demands_nothing or request.new is None:
            return ALLOWED
        if request.old is not None and not _matters(request.new, request.old):
            return ALLOWED
        return _judged(request, policy, request.new, enforce=True)

    async def check_template(request: AdmissionRequest, _reader: Reader) -> Decision:
        policy = policy_for(request)
        if (policy.warn.demands_nothing and policy.audit.demands_nothing) or request.new is None:
            return ALLOWED
        template: Any = request.new
        for key in _TEMPLATES[request.resource.qualified]:
            template = template.get(key) or {}
        return _judged(request, policy, template, enforce=False) if template else ALLOWED

    async def check_namespace(request: AdmissionRequest, reader: Reader) -> Decision:
        if request.new is None:
            return ALLOWED
        policy, problems = read_policy(labels(request.new))
        before, old_problems = read_policy(labels(request.old or {}))
        if problems and problems != old_problems:
            return refused(request, problems)
        if request.old is None or not _is_stricter(policy.enforce, before.enforce):
            return ALLOWED
        pods = await reader.list(PODS, name(request.new))
        return allowed(*_warnings(pods, name(request.new), policy.enforce))

    return [
        AdmissionPlugin(
            "podsecurity.fleetplane.io",
            "validate",
            [AdmissionRule(["pods"]), AdmissionRule(["pods"], ["UPDATE"], ["ephemeralcontainers", "resize"])],
            check_pod,
            order=140,
        ),
        AdmissionPlugin(
            "templates.podsecurity.fleetplane.io",
            "validate",
            [AdmissionRule(list(_TEMPLATES))],
            check_template,
            order=140,
        ),
        AdmissionPlugin(
            "labels.podsecurity.fleetplane.io", "validate", [AdmissionRule(["namespaces"])], check_namespace, order=140
        ),
    ]


def _matters(new: Mapping[str, Any], old: Mapping[str, Any]) -> bool:
    """Whether an update changes anything the checks look at; most of a pod cannot change anyway."""
    marks = [(one.get("metadata") or {}).get("annotations") for one in (new, old)]
    return bool(new.get("spec") != old.get("spec") or marks[0] != marks[1])


def _judged(request: AdmissionRequest, policy: Policy, pod: Mapping[str, Any], *, enforce: bool) -> Decision:
    annotations: list[tuple[str, str]] = []
    if not policy.audit.demands_nothing and (found := evaluate(policy.audit.name, pod)):
        told = f'would violate PodSecurity "{policy.audit}": {detail_of(found)}'
        annotations.append((f"{_AUDIT}audit-violations", told))
    if enforce:
        annotations.append((f"{_AUDIT}enforce-policy", str(policy.enforce)))
        if found := evaluate(policy.enforce.name, pod):
            told = f'violates PodSecurity "{policy.enforce}": {detail_of(found)}'
            return Decision(denial=forbid(request, told), audit_annotations=tuple(annotations))
    warnings: tuple[str, ...] = ()
    if found := evaluate(policy.warn.name, pod):
        warnings = (f'would violate PodSecurity "{policy.warn}": {detail_of(found)}',)
    return Decision(warnings=warnings, audit_annotations=tuple(annotations))


def _is_stricter(new: Level, old: Level) -> bool:
    if new == old or new.demands_nothing:
        return False
    return new.version != old.version or LEVELS.index(new.name) > LEVELS.index(old.name)


def _warnings(pods: Sequence[Object], namespace: str, level: Level) -> list[str]:
    """What is told of pods that are there already: they stay, but could not be made again."""
    found: dict[str, list[str]] = {}
    for pod in pods[:_MAX_PODS]:
        violations = evaluate(level.name, pod)
        if violations:
            found.setdefault(reason_of(violations), []).append(name(pod))
    told = []
    if len(pods) > _MAX_PODS:
        told.append(
            f"new PodSecurity enforce level only checked against the first {_MAX_PODS} of {len(pods)} existing pods"
        )
    if found:
        told.append(f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{level}"')
    return told + sorted(f"{_and_others(sorted(names))}: {reason}" for reason, names in found.items())


def _and_others(names: Sequence[str]) -> str:
    if len(names) == 1:
        return names[0]
    return f"{names[0]} (and {len(names) - 1} other {'pod' if len(names) == 2 else 'pods'})"
