"""Peer pods on somebody else's Kubernetes: the shipped manifests, our certificates, and a pod that is changed on its way."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.differential.peers import real_kube_missing, start_real
from tests.interfaces.cli.test_webhooks import lead_here, opened, typed

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import Access
from fleetplane.client.rest import RestClient
from fleetplane.controller import load_operators
from fleetplane.interfaces.cli.deployment import parts_of
from fleetplane.interfaces.cli.webhooks import Serving, serving_admission
from fleetplane.model.builtin.types import PODS, RUNTIME_CLASSES, SERVICE_ACCOUNTS
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.errors import ApiError
from fleetplane.operating import NAMESPACE
from fleetplane.operators.peerpods.admission import EXEMPT, ORIGINAL, PLUGINS, VCPUS
from fleetplane.operators.peerpods.kinds import RUNTIME_CLASS, VM_RESOURCE, PeerPodConfig


def test_the_declaration_that_runs_inside_is_the_webhook_elsewhere_without_the_namespaces_it_lets_pass() -> None:
    from fleetplane.controller.webhooks import webhook_configurations

    service = {"service": {"name": "x", "namespace": "y"}}
    mutating, _ = webhook_configurations("peerpods", PLUGINS, service, exempt=["fleetplane-system"])

    (pods,) = [one for one in mutating["webhooks"] if one["name"] == "pods.peerpods.fleetplane.io"]
    excluded = {value for one in pods["namespaceSelector"]["matchExpressions"] for value in one["values"]}
    assert excluded == {*EXEMPT, "fleetplane-system"}
    assert (pods["failurePolicy"], pods["reinvocationPolicy"]) == ("Fail", "IfNeeded")


@pytest.mark.e2e
async def test_on_a_real_kubernetes_a_pod_of_the_class_asks_its_node_for_one_vm(tmp_path: Path) -> None:
    if reason := real_kube_missing():
        pytest.skip(reason)
    peer = await asyncio.to_thread(start_real, tmp_path)
    try:
        client = await connect_to(Access(server=peer.url, token=peer.token, insecure=True))
        try:
            await _story(client)
        finally:
            await client.transport.close()
    finally:
        await asyncio.to_thread(peer.stop)


async def _story(client: RestClient) -> None:
    operators = load_operators(["peerpods"])
    for one in parts_of(operators, client):
        if one["kind"] != "Deployment":
            await client.create(typed(one), one, one["metadata"].get("namespace"))
    serving = Serving(NAMESPACE, port=0, host="127.0.0.1")
    async with serving_admission(client, operators, serving, SystemEnvironment()) as webhooks:
        await opened(webhooks)
        await lead_here(client, webhooks.port)
        await client.create(RUNTIME_CLASSES, {"metadata": {"name": RUNTIME_CLASS}, "handler": RUNTIME_CLASS})
        await client.create(SERVICE_ACCOUNTS, {"metadata": {"name": "default"}}, "default")

        made = await client.create(PODS, peer_pod("changed", RUNTIME_CLASS), "default")
        plain = await client.create(PODS, peer_pod("plain", None), "default")

        assert made["spec"]["containers"][0]["resources"]["requests"] == {VM_RESOURCE: "1"}
        assert made["metadata"]["annotations"][VCPUS] == "2"
        assert ORIGINAL in made["metadata"]["annotations"]
        assert plain["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "1500m"}
        with pytest.raises(ApiError, match=r"spec\.limit"):
            await client.create(PeerPodConfig, {**BAD, "metadata": {"name": "bad"}}, "default")


BAD = {"apiVersion": "confidentialcontainers.org/v1alpha1", "kind": "PeerPodConfig", "spec": {"limit": "abc"}}


def peer_pod(name: str, runtime_class: str | None) -> dict[str, Any]:
    container = {"name": "a", "image": "x", "resources": {"requests": {"cpu": "1500m"}}}
    spec: dict[str, Any] = {"containers": [container], "automountServiceAccountToken": False}
    return {
        "metadata": {"name": name},
        "spec": {**spec, **({"runtimeClassName": runtime_class} if runtime_class else {})},
    }
