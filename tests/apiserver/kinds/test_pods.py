from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

Object = dict[str, Any]
Create = Callable[[Object], tuple[Object, list[str]]]
Update = Callable[..., tuple[Object, list[str]]]
Stored = Callable[[Object], Object]


def pod(container: Object | None = None, **spec: Any) -> Object:
    containers = [{"name": "c", "image": "nginx:1"} | (container or {})]
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": containers} | spec}


def test_a_pod_gets_its_defaults(stored: Stored) -> None:
    made = stored(pod({"ports": [{"containerPort": 80}], "readinessProbe": {"httpGet": {"port": 80}}}))

    assert made["spec"] == {
        "containers": [
            {
                "name": "c",
                "image": "nginx:1",
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "readinessProbe": {
                    "httpGet": {"path": "/", "port": 80, "scheme": "HTTP"},
                    "timeoutSeconds": 1,
                    "periodSeconds": 10,
                    "successThreshold": 1,
                    "failureThreshold": 3,
                },
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
        "tolerations": [
            {
                "key": f"node.kubernetes.io/{trouble}",
                "operator": "Exists",
                "effect": "NoExecute",
                "tolerationSeconds": 300,
            }
            for trouble in ("not-ready", "unreachable")
        ],
    }
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("nginx", "Always"),
        ("nginx:latest", "Always"),
        ("host:5000/nginx", "Always"),
        ("host:5000/nginx:1", "IfNotPresent"),
        ("nginx@sha256:abc", "IfNotPresent"),
    ],
)
def test_images_that_may_change_are_always_pulled(stored: Stored, image: str, policy: str) -> None:
    assert stored(pod({"image": image}))["spec"]["containers"][0]["imagePullPolicy"] == policy


@pytest.mark.parametrize(
    ("resources", "quality"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
        ({"limits": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"ephemeral-storage": "1Gi"}}, "BestEffort"),
    ],
)
def test_quality_of_service_follows_from_resources(stored: Stored, resources: Object, quality: str) -> None:
    assert stored(pod({"resources": resources}))["status"]["qosClass"] == quality


def test_requests_are_what_the_limits_are(stored: Stored) -> None:
    made = stored(pod({"resources": {"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "1"}}}))

    assert made["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1", "memory": "1Gi"}


def test_on_the_hosts_network_ports_are_the_hosts(stored: Stored) -> None:
    made = stored(pod({"ports": [{"containerPort": 80}]}, hostNetwork=True))

    assert made["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]


def test_a_volume_without_a_source_is_an_empty_directory(stored: Stored) -> None:
    made = stored(pod(volumes=[{"name": "v"}, {"name": "s", "secret": {"secretName": "x"}}]))

    assert made["spec"]["volumes"] == [
        {"name": "v", "emptyDir": {}},
        {"name": "s", "secret": {"secretName": "x", "defaultMode": 0o644}},
    ]


def test_a_gated_pod_says_so(stored: Stored) -> None:
    made = stored(pod(schedulingGates=[{"name": "example.com/wait"}]))

    assert made["status"]["conditions"][0]["reason"] == "SchedulingGated"


@pytest.mark.parametrize(
    ("container", "spec", "problem"),
    [
        ({"name": ""}, {}, "spec.containers[0].name: Required value"),
        ({"name": "A"}, {}, 'spec.containers[0].name: Invalid value: "A"'),
        ({"image": ""}, {}, "spec.containers[0].image: Required value"),
        ({"image": " x"}, {}, "must not have leading or trailing whitespace"),
        ({"imagePullPolicy": "Maybe"}, {}, 'spec.containers[0].imagePullPolicy: Unsupported value: "Maybe"'),
        ({"ports": [{}]}, {}, "spec.containers[0].ports[0].containerPort: Required value"),
        ({"ports": [{"containerPort": 70000}]}, {}, "must be between 1 and 65535, inclusive"),
        (
            {"ports": [{"containerPort": 1, "protocol": "X"}]},
            {},
            "spec.containers[0].ports[0].protocol: Unsupported value",
        ),
        ({"env": [{"name": "a=b"}]}, {}, "spec.containers[0].env[0].name: Invalid value"),
        (
            {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
            {},
            'spec.containers[0].env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty',
        ),
        (
            {"env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]},
            {},
            "spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: Unsupported value",
        ),
        (
            {"volumeMounts": [{"name": "v", "mountPath": "/x"}]},
            {},
            'spec.containers[0].volumeMounts[0].name: Not found: "v"',
        ),
        (
            {"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}},
            {},
            'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
        ),
        ({"resources": {"limits": {"cpus": "1"}}}, {}, "must be a standard resource for containers"),
        ({"resources": {"limits": {"cpu": "-1"}}}, {}, "must be greater than or equal to 0"),
        (
            {"resources": {"requests": {"example.com/gpu": "1"}}},
            {},
            "Limit must be set for non overcommitable resources",
        ),
        ({"resources": {"limits": {"example.com/gpu": "500m"}}}, {}, "must be an integer"),
        ({"livenessProbe": {}}, {}, "spec.containers[0].livenessProbe: Required value: must specify a handler type"),
        (
            {"livenessProbe": {"exec": {"command": ["x"]}, "successThreshold": 2}},
            {},
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        ({}, {"restartPolicy": "Sometimes"}, 'spec.restartPolicy: Unsupported value: "Sometimes"'),
        ({}, {"dnsPolicy": "None"}, "spec.dnsConfig: Required value"),
        ({}, {"containers": []}, "spec.containers: Required value"),
        ({}, {"volumes": [{"name": "v"}, {"name": "v"}]}, 'spec.volumes[1].name: Duplicate value: "v"'),
        (
            {},
            {"volumes": [{"name": "v", "emptyDir": {}, "hostPath": {"path": "/"}}]},
            "may not specify more than 1 volume type",
        ),
        ({}, {"volumes": [{"name": "v", "nfs": {"server": "s", "path": "x"}}]}, "must be an absolute path"),
        ({}, {"tolerations": [{"operator": "Equal"}]}, "operator must be Exists when `key` is empty"),
        (
            {},
            {"activeDeadlineSeconds": 0},
            "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647",
        ),
        ({}, {"nodeSelector": {"a/b/c": "x"}}, "spec.nodeSelector"),
        ({}, {"initContainers": [{"name": "c", "image": "x"}]}, 'spec.initContainers[0].name: Duplicate value: "c"'),
        (
            {},
            {"initContainers": [{"name": "i", "image": "x", "readinessProbe": {"exec": {"command": ["x"]}}}]},
            "may not be set for init containers without restartPolicy=Always",
        ),
        (
            {},
            {"ephemeralContainers": [{"name": "e", "image": "x"}]},
            "spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        (
            {},
            {"topologySpreadConstraints": [{"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]},
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than 0",
        ),
        ({}, {"serviceAccountName": "A_B"}, "spec.serviceAccountName: Invalid value"),
        (
            {"securityContext": {"allowPrivilegeEscalation": False, "privileged": True}},
            {},
            "cannot set `allowPrivilegeEscalation`",
        ),
    ],
)
def test_a_pod_that_cannot_be_is_refused(create: Create, container: Object, spec: Object, problem: str) -> None:
    _, problems = create(pod(container, **spec))

    assert len(problems) >= 1
    assert any(problem in one for one in problems), problems


def test_one_mistake_is_one_problem(create: Create) -> None:
    _, problems = create(pod({"name": ""}))

    assert problems == ["spec.containers[0].name: Required value"]


def test_sidecars_may_be_probed(stored: Stored) -> None:
    sidecar = {
        "name": "s",
        "image": "x",
        "restartPolicy": "Always",
        "startupProbe": {"tcpSocket": {"port": 80}},
    }

    assert stored(pod(initContainers=[sidecar]))


def changed(old: Object, **spec: Any) -> Object:
    new = copy.deepcopy(old)
    new["spec"] |= spec
    return new


def test_images_deadline_and_tolerations_may_change(stored: Stored, update: Update) -> None:
    old = stored(pod())
    new = changed(old, activeDeadlineSeconds=60)
    new["spec"]["containers"][0]["image"] = "nginx:2"
    new["spec"]["tolerations"].append({"key": "x", "operator": "Exists"})
    new["metadata"]["labels"] = {"a": "b"}

    made, problems = update(new, old)

    assert problems == []
    assert made["status"]["qosClass"] == "BestEffort"


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"nodeName": "n"}, "spec: Forbidden: pod updates may not change fields other than"),
        ({"hostNetwork": True}, "changed: containers, hostNetwork"),
        ({"schedulingGates": [{"name": "x"}]}, "only deletion is allowed"),
        ({"containers": []}, "pod updates may not add or remove containers"),
    ],
)
def test_nothing_else_of_a_pod_may_change(stored: Stored, update: Update, spec: Object, problem: str) -> None:
    old = stored(pod({"ports": [{"containerPort": 80}]}))

    _, problems = update(changed(old, **spec), old)

    assert any(problem in one for one in problems), problems


def test_tolerations_stay_and_those_of_node_troubles_come_back(stored: Stored, update: Update) -> None:
    old = stored(pod(tolerations=[{"key": "mine", "operator": "Exists"}]))

    assert update(changed(old, tolerations=old["spec"]["tolerations"][:1]), old) == (old, [])
    assert any("existing toleration can not be modified" in one for one in update(changed(old, tolerations=[]), old)[1])


def test_the_two_ways_to_tell_an_address_agree(stored: Stored, update: Update) -> None:
    old = stored(pod())
    new = copy.deepcopy(old)
    new["status"]["podIP"] = "fd00::1"

    assert update(new, old, "status")[0]["status"]["podIPs"] == [{"ip": "fd00::1"}]


def test_a_deadline_only_comes_closer(stored: Stored, update: Update) -> None:
    old = stored(pod(activeDeadlineSeconds=60))

    assert update(changed(old, activeDeadlineSeconds=30), old)[1] == []
    assert update(changed(old, activeDeadlineSeconds=61), old)[1] != []


def test_zero_values_that_are_told_change_nothing(stored: Stored, update: Update) -> None:
    old = stored(pod())

    assert update(changed(old, hostNetwork=False, nodeName="", initContainers=[]), old)[1] == []


def test_binding_sets_the_node(stored: Stored, update: Update) -> None:
    old = stored(pod())

    assert update(changed(old, nodeName="n-0"), old, "binding")[1] == []
    assert update(changed(old, nodeName="N!"), old, "binding")[1] != []


def test_ephemeral_containers_are_added_and_stay(stored: Stored, update: Update) -> None:
    old = stored(pod())
    debugger = {"name": "d", "image": "busybox", "targetContainerName": "c"}
    new, problems = update(changed(old, ephemeralContainers=[debugger], hostNetwork=True), old, "ephemeralcontainers")

    assert problems == []
    assert new["spec"]["ephemeralContainers"][0]["imagePullPolicy"] == "Always"
    assert "hostNetwork" not in new["spec"]
    _, problems = update(changed(new, ephemeralContainers=[]), new, "ephemeralcontainers")
    assert problems == ['spec.ephemeralContainers: Forbidden: existing ephemeral containers "d" may not be removed\n']


def test_resizing_changes_only_cpu_and_memory(stored: Stored, update: Update) -> None:
    old = stored(pod({"resources": {"requests": {"cpu": "1"}}}))
    new = copy.deepcopy(old)
    new["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "2"

    assert update(new, old, "resize")[1] == []
    new["spec"]["containers"][0]["resources"]["requests"] = {}
    assert any("QOS Class may not change" in one for one in update(new, old, "resize")[1])


def test_a_finished_container_does_not_come_back(stored: Stored, update: Update) -> None:
    old = stored(pod(restartPolicy="Never"))
    old["status"]["containerStatuses"] = [{"name": "c", "state": {"terminated": {"exitCode": 1}}}]
    new = copy.deepcopy(old)
    new["status"]["containerStatuses"] = [{"name": "c", "state": {"running": {}}}]

    _, problems = update(new, old, "status")

    assert problems == ["status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state"]
