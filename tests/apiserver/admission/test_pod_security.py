from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleetplane.apiserver.admission.pod_security.checks import detail_of, evaluate
from fleetplane.apiserver.admission.pod_security.levels import read_policy
from fleetplane.model.objects import Object
from fleetplane.testing.plane import TestServer

SECURED: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED = (
    'allowPrivilegeEscalation != false (container "c" must set securityContext.allowPrivilegeEscalation=false), '
    'unrestricted capabilities (container "c" must set securityContext.capabilities.drop=["ALL"]), '
    'runAsNonRoot != true (pod or container "c" must set securityContext.runAsNonRoot=true), '
    'seccompProfile (pod or container "c" must set securityContext.seccompProfile.type to '
    '"RuntimeDefault" or "Localhost")'
)


def pod(*contexts: Object, annotations: Object | None = None, **spec: Any) -> Object:
    names = "abcdef"
    containers = [{"name": names[index], "securityContext": one} for index, one in enumerate(contexts or ({},))]
    return {"metadata": {"annotations": annotations or {}}, "spec": {"containers": containers, **spec}}


def test_a_secured_pod_is_fine() -> None:
    assert evaluate("restricted", pod(SECURED, volumes=[{"name": "v", "emptyDir": {}}])) == []
    assert evaluate("baseline", pod({})) == []
    assert evaluate("privileged", pod({"privileged": True})) == []


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (pod(hostNetwork=True, hostPID=True), "host namespaces (hostNetwork=true, hostPID=true)"),
        (pod({"privileged": True}, {"privileged": True}), 'privileged (containers "a", "b" must not set securityContext.privileged=true)'),
        (pod({"capabilities": {"add": ["NET_ADMIN", "KILL"]}}), 'non-default capabilities (container "a" must not include "NET_ADMIN" in securityContext.capabilities.add)'),
        (pod(volumes=[{"name": "v", "hostPath": {"path": "/"}}]), 'hostPath volumes (volume "v")'),
        (pod({"procMount": "Unmasked"}), 'procMount (container "a" must not set securityContext.procMount to "Unmasked")'),
        (pod(securityContext={"seLinuxOptions": {"type": "x_t", "user": "u"}}), 'seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type "x_t"; user may not be set)'),
        (pod(securityContext={"sysctls": [{"name": "kernel.msgmax"}]}), "forbidden sysctls (kernel.msgmax)"),
        (pod({"seccompProfile": {"type": "Unconfined"}}, securityContext={"seccompProfile": {"type": "Unconfined"}}), 'seccompProfile (pod and container "a" must not set securityContext.seccompProfile.type to "Unconfined")'),
        (pod({"appArmorProfile": {"type": "Unconfined"}}), 'forbidden AppArmor profile (container "a" must not set AppArmor profile type to "Unconfined")'),
        (pod({"windowsOptions": {"hostProcess": True}}), 'hostProcess (container "a" must not set securityContext.windowsOptions.hostProcess=true)'),
    ],
)  # fmt: skip
def test_what_the_baseline_forbids(bad: Object, told: str) -> None:
    assert detail_of(evaluate("baseline", bad)) == told


def test_ports_and_probes_of_the_host() -> None:
    bad = pod({})
    bad["spec"]["containers"][0] |= {
        "ports": [{"containerPort": 1, "hostPort": 80}, {"containerPort": 2, "hostPort": 443}],
        "livenessProbe": {"httpGet": {"host": "10.0.0.1"}},
    }

    assert detail_of(evaluate("baseline", bad)) == (
        'hostPort (container "a" uses hostPorts 443, 80), '
        'probe or lifecycle host (container "a" uses probe or lifecycle host "10.0.0.1")'
    )


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (pod({**SECURED, "runAsUser": 0}), 'runAsUser=0 (container "a" must not set runAsUser=0)'),
        (pod({**SECURED, "runAsNonRoot": False}), 'runAsNonRoot != true (container "a" must not set securityContext.runAsNonRoot=false)'),
        (pod(SECURED, volumes=[{"name": "v", "hostPath": {}}, {"name": "w", "nfs": {}}]), 'restricted volume types (volumes "v", "w" use restricted volume types "hostPath", "nfs")'),
        (pod({**SECURED, "capabilities": {"drop": ["ALL"], "add": ["CHOWN", "NET_BIND_SERVICE"]}}), 'unrestricted capabilities (container "a" must not include "CHOWN" in securityContext.capabilities.add)'),
    ],
)  # fmt: skip
def test_what_only_the_restricted_level_forbids(bad: Object, told: str) -> None:
    assert detail_of(evaluate("restricted", bad)) == told


def test_a_user_namespace_makes_root_harmless() -> None:
    harmless = {key: value for key, value in SECURED.items() if key != "runAsNonRoot"}

    assert evaluate("restricted", pod({**harmless, "runAsUser": 0}, hostUsers=False)) == []


def test_labels_that_cannot_be_read_are_the_strictest() -> None:
    policy, problems = read_policy({"pod-security.kubernetes.io/enforce": "strict"})

    assert policy.enforce.name == "restricted"
    assert str(problems[0]) == (
        'metadata.labels[pod-security.kubernetes.io/enforce]: Invalid value: "strict": '
        "must be one of privileged, baseline, restricted"
    )


# -- on the server ---------------------------------------------------------------------------------------------------


async def namespace(api: TestServer, **levels: str) -> tuple[int, Object]:
    labels = {f"pod-security.kubernetes.io/{mode}": level for mode, level in levels.items()}
    return await api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "s", "labels": labels}})


async def test_a_namespace_enforces_its_level(api: TestServer, pod: Callable[..., Object]) -> None:
    await namespace(api, enforce="restricted")

    code, status = await api.call("POST", "/api/v1/namespaces/s/pods", pod())
    secured = pod(securityContext={"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}})
    secured["spec"]["containers"][0]["securityContext"] = SECURED
    fine, _ = await api.call("POST", "/api/v1/namespaces/s/pods", secured)

    assert (code, fine) == (403, 201)
    assert status["message"] == f'pods "web" is forbidden: violates PodSecurity "restricted:latest": {RESTRICTED}'


async def test_templates_are_warned_about(api: TestServer, pod: Callable[..., Object]) -> None:
    await namespace(api, enforce="restricted")
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod()["spec"]}
    deployment = {
        "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template},
    }

    response = await api.respond("POST", "/apis/apps/v1/namespaces/s/deployments", deployment)

    assert response.status == 201
    quoted = RESTRICTED.replace('"', '\\"')
    assert response.headers["Warning"] == f'299 - "would violate PodSecurity \\"restricted:latest\\": {quoted}"'


async def test_wrong_labels_are_refused_and_new_ones_tell_of_old_pods(
    api: TestServer, pod: Callable[..., Object]
) -> None:
    wrong, status = await namespace(api, enforce="strict")
    await namespace(api)
    for name in ("a", "b", "c"):
        await api.call("POST", "/api/v1/namespaces/s/pods", pod(name, hostNetwork=True))
    labels = {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}}
    merge = {"content-type": "application/merge-patch+json"}

    response = await api.respond("PATCH", "/api/v1/namespaces/s", labels, headers=merge)

    assert (wrong, status["reason"]) == (422, "Invalid")
    assert response.status == 200
    assert 'existing pods in namespace \\"s\\" violate the new PodSecurity enforce level' in response.headers["Warning"]
    assert "a (and 2 other pods): host namespaces" in response.headers["Warning"]
