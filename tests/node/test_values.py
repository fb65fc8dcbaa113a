"""What containers are told: environment, downward API, names, limits, rights."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.node.made import container, pod

from fleetplane.node.building import ConfigFailure
from fleetplane.node.environment_variables import container_environment, expand, service_variables
from fleetplane.node.names import (
    ClusterNames,
    host_hosts_file,
    host_name,
    hosts_file,
    pod_dns,
    read_resolv_conf,
    resolv_conf,
)
from fleetplane.node.resources import container_resources, pod_requests, qos_class
from fleetplane.node.runtime import DnsConfig, Image
from fleetplane.node.security import container_security
from fleetplane.node.values import Facts, field_value, resource_value

FACTS = Facts("n1", ("192.0.2.1",), ("fd00::2", "10.0.0.2"), {"cpu": "4", "memory": "8Gi"})


class Known:
    """Sources from dictionaries."""

    def __init__(self, **objects: Any) -> None:
        self.objects = objects

    async def config_map(self, namespace: str, name: str) -> Any:
        return self.objects.get(f"cm_{name}")

    async def secret(self, namespace: str, name: str) -> Any:
        return self.objects.get(f"secret_{name}")

    async def services(self, namespace: str, *, patient: bool = True) -> Any:
        return self.objects.get("services", [])


async def environment(spec: dict[str, Any], **known: Any) -> dict[str, str]:
    made = pod(container(**spec))
    return await container_environment(made, made.main[0], FACTS, Known(**known))  # type: ignore[arg-type]


# Expansion


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(B)", "x1y2"),
        ("$(UNKNOWN)", "$(UNKNOWN)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$", "$"),
        ("$(A", "$(A"),
        ("$A", "$A"),
        ("$()", "$()"),
    ],
)
def test_expansion(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


@given(st.text(alphabet="ab$()A", max_size=30))
def test_expansion_without_references_changes_nothing_but_dollars(text: str) -> None:
    assert expand(text, {}) == text.replace("$$", "$")


# Environment


async def test_later_sources_win_and_may_refer_to_earlier_ones() -> None:
    found = await environment(
        {
            "envFrom": [{"configMapRef": {"name": "cm"}}, {"secretRef": {"name": "s"}, "prefix": "S_"}],
            "env": [{"name": "A", "value": "own"}, {"name": "B", "value": "$(A) $(S_P)"}],
        },
        cm_cm={"data": {"A": "from map", "C": "c"}},
        secret_s={"data": {"P": "cHc="}},
    )

    assert found == {"A": "own", "B": "own pw", "C": "c", "S_P": "pw"}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"configMapKeyRef": {"name": "no", "key": "k"}}, 'configmap "no" not found'),
        ({"secretKeyRef": {"name": "no", "key": "k"}}, 'secret "no" not found'),
        ({"configMapKeyRef": {"name": "cm", "key": "no"}}, "couldn't find key no in ConfigMap default/cm"),
    ],
)
async def test_what_is_missing_is_said_as_the_kubelet_does(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigFailure, match=message):
        await environment({"env": [{"name": "A", "valueFrom": entry}]}, cm_cm={"data": {}})


async def test_what_is_optional_may_be_missing() -> None:
    ref = {"name": "no", "key": "k", "optional": True}
    spec = {
        "env": [{"name": "A", "valueFrom": {"secretKeyRef": ref}}],
        "envFrom": [{"configMapRef": {"name": "no", "optional": True}}],
    }

    assert await environment(spec) == {}


def test_services_are_told_as_links_always_were() -> None:
    def service(namespace: str, name: str, address: str) -> dict[str, Any]:
        port = {"name": "web", "port": 80, "protocol": "TCP"}
        return {"metadata": {"namespace": namespace, "name": name}, "spec": {"clusterIP": address, "ports": [port]}}

    services = [service("default", "kubernetes", "10.96.0.1"), service("ns", "my-db", "10.96.0.9")]
    found = service_variables(services, "ns", links=True)

    assert found["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"
    assert found["MY_DB_SERVICE_PORT_WEB"] == "80"
    assert found["MY_DB_PORT"] == found["MY_DB_PORT_80_TCP"] == "tcp://10.96.0.9:80"
    assert "MY_DB_SERVICE_HOST" not in service_variables(services, "ns", links=False)


# Downward API


def test_fields_of_the_pod() -> None:
    made = pod(meta={"labels": {"b": "2", "a": 'with "quotes"'}, "annotations": {"k": "v"}})

    assert field_value(made, "metadata.name", FACTS) == "web"
    assert field_value(made, "status.podIP", FACTS) == "fd00::2"
    assert field_value(made, "status.podIPs", FACTS) == "fd00::2,10.0.0.2"
    assert field_value(made, "metadata.annotations['k']", FACTS) == "v"
    assert field_value(made, "metadata.labels", FACTS) == 'a="with \\"quotes\\""\nb="2"'
    with pytest.raises(ConfigFailure):
        field_value(made, "spec.containers", FACTS)


@pytest.mark.parametrize(
    ("ref", "expected"),
    [
        ({"resource": "limits.cpu"}, "1"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "500"),
        ({"resource": "requests.memory", "divisor": "1Mi"}, "64"),
        ({"resource": "limits.memory"}, str(8 << 30)),
    ],
)
def test_resources_of_the_container(ref: dict[str, Any], expected: str) -> None:
    made = pod(container(resources={"limits": {"cpu": "500m"}, "requests": {"memory": "64Mi"}}))

    assert resource_value(made, ref, "main", FACTS) == expected


# Limits


def test_limits_become_cgroup_values() -> None:
    spec = container(resources={"limits": {"cpu": "500m", "memory": "64Mi"}, "requests": {"cpu": "250m"}})
    found = container_resources(spec, {"containers": [spec]}, 8 << 30)

    assert (found.cpu_shares, found.cpu_quota, found.memory_bytes) == (256, 50_000, 64 << 20)
    assert found.memory_swap_bytes == found.memory_bytes


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ({}, "BestEffort"),
        ({"requests": {"cpu": "1"}}, "Burstable"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}}, "Guaranteed"),
        ({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}}, "Burstable"),
    ],
)
def test_quality_of_service(resources: dict[str, Any], expected: str) -> None:
    assert qos_class({"containers": [container(resources=resources)]}) == expected


def test_a_pod_asks_for_its_peak() -> None:
    def asking(cpu: str, **more: Any) -> dict[str, Any]:
        return container(resources={"requests": {"cpu": cpu}}, **more)

    spec = {
        "containers": [asking("1"), asking("1")],
        "initContainers": [asking("1", restartPolicy="Always"), asking("3")],
        "overhead": {"cpu": "100m"},
    }

    assert str(pod_requests(spec)["cpu"]) == "4100m"


# Names


def test_hosts_of_a_pod() -> None:
    made = pod(hostname="db", subdomain="set", hostAliases=[{"ip": "192.0.2.9", "hostnames": ["a", "b"]}])
    text = hosts_file(made, ["10.0.0.2"], "cluster.local")

    assert "10.0.0.2\tdb.set.default.svc.cluster.local\tdb\n" in text
    assert text.endswith("192.0.2.9\ta\tb\n")
    assert "192.0.2.9\ta\tb" in host_hosts_file(made, "127.0.0.1 localhost\n")
    assert len(host_name(pod(meta={"name": "x" * 70}))) == 63


def test_dns_by_policy() -> None:
    cluster = ClusterNames(servers=("10.96.0.10",), host=DnsConfig(("9.9.9.9",), ("example.org",)))

    first = pod_dns(pod(), cluster)
    assert first.servers == ("10.96.0.10",)
    assert first.searches[0] == "default.svc.cluster.local"
    assert first.searches[-1] == "example.org"
    assert pod_dns(pod(dnsPolicy="Default"), cluster).servers == ("9.9.9.9",)
    assert pod_dns(pod(hostNetwork=True), cluster).servers == ("9.9.9.9",)
    own = {"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}
    assert resolv_conf(pod_dns(pod(dnsPolicy="None", dnsConfig=own), cluster)) == (
        "nameserver 1.1.1.1\noptions ndots:2\n"
    )
    assert "ndots:2" in pod_dns(pod(dnsConfig=own), cluster).options


def test_the_hosts_resolver_is_read() -> None:
    found = read_resolv_conf("# made\nnameserver 9.9.9.9\nsearch a.org b.org # x\noptions edns0\n")

    assert found == DnsConfig(("9.9.9.9",), ("a.org", "b.org"), ("edns0",))


# Rights


def security(own: dict[str, Any], outer: dict[str, Any] | None = None, user: str = "") -> Any:
    made = pod(container(securityContext=own), securityContext=outer or {})
    return container_security(made, made.main[0], Image("i", user=user), "/seccomp")


def test_the_container_overrides_the_pod() -> None:
    found = security({"runAsUser": 1}, {"runAsUser": 2, "runAsGroup": 3, "fsGroup": 4, "supplementalGroups": [5, 4]})

    assert (found.user, found.group, found.supplemental_groups) == (1, 3, (5, 4))


def test_root_is_refused_where_it_must_not_be() -> None:
    with pytest.raises(ConfigFailure, match="image will run as root"):
        security({"runAsNonRoot": True})
    with pytest.raises(ConfigFailure, match="breaks non-root policy"):
        security({"runAsNonRoot": True, "runAsUser": 0})
    with pytest.raises(ConfigFailure, match="non-numeric user"):
        security({"runAsNonRoot": True}, user="app")
    assert security({"runAsNonRoot": True}, user="1000:1000").user is None


def test_capabilities_and_profiles() -> None:
    found = security(
        {
            "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
            "allowPrivilegeEscalation": False,
            "seccompProfile": {"type": "Localhost", "localhostProfile": "a/b.json"},
        }
    )

    assert (found.add_capabilities, found.drop_capabilities) == (("CAP_NET_ADMIN",), ("ALL",))
    assert found.no_new_privileges
    assert found.seccomp == "/seccomp/a/b.json"
    with pytest.raises(ConfigFailure):
        security({"seccompProfile": {"type": "Localhost", "localhostProfile": "../x"}})
