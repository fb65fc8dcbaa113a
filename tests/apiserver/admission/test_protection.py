from __future__ import annotations

from fleetplane.testing.plane import TestServer

NODES = "/api/v1/nodes"


async def test_claims_and_volumes_are_held_by_their_protectors(api: TestServer) -> None:
    claim = {
        "metadata": {"name": "c", "finalizers": ["a.b/mine"]},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    volume = {
        "metadata": {"name": "v"},
        "spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/x"}},
    }

    _, claimed = await api.call("POST", "/api/v1/namespaces/default/persistentvolumeclaims", claim)
    _, kept = await api.call("POST", "/api/v1/persistentvolumes", volume)

    assert claimed["metadata"]["finalizers"] == ["a.b/mine", "kubernetes.io/pvc-protection"]
    assert kept["metadata"]["finalizers"] == ["kubernetes.io/pv-protection"]


async def test_a_new_node_is_tainted_unless_it_says_it_is_ready(api: TestServer) -> None:
    ready = {"conditions": [{"type": "Ready", "status": "True", "reason": "x", "message": "y"}]}

    _, silent = await api.call("POST", NODES, {"metadata": {"name": "a"}})
    _, spoken = await api.call("POST", NODES, {"metadata": {"name": "b"}, "status": ready})

    assert silent["spec"]["taints"] == [{"effect": "NoSchedule", "key": "node.kubernetes.io/not-ready"}]
    assert "taints" not in (spoken.get("spec") or {})
