"""A commit: several writes as one, each with the rights and rules of a request of its own."""

from __future__ import annotations

from typing import Any

from fleetplane.model.objects import Object
from fleetplane.model.user import UserInfo
from fleetplane.testing.plane import TestServer

COMMITS = "/apis/fleetplane.io/v1/commits"
MAPS = "/api/v1/namespaces/default/configmaps"


def change(verb: str, name: str, **fields: Any) -> Object:
    metadata = {"name": name, "namespace": "default", **fields.pop("metadata", {})}
    return {"verb": verb, "version": "v1", "resource": "configmaps", "object": {"metadata": metadata, **fields}}


def commit(*changes: Object) -> Object:
    return {"spec": {"changes": list(changes)}}


async def test_all_changes_are_made(api: TestServer) -> None:
    await api.call("POST", MAPS, {"metadata": {"name": "old"}})

    code, made = await api.call(
        "POST", COMMITS, commit(change("create", "a", data={"k": "v"}), change("delete", "old"))
    )

    assert code == 201, made
    assert (await api.call("GET", f"{MAPS}/a"))[1] == made["status"]["objects"][0]
    assert (await api.call("GET", f"{MAPS}/old"))[0] == 404


async def test_one_refusal_undoes_all(api: TestServer) -> None:
    await api.call("POST", MAPS, {"metadata": {"name": "there"}})

    code, status = await api.call("POST", COMMITS, commit(change("create", "a"), change("create", "there")))

    assert (code, status["reason"]) == (409, "AlreadyExists")
    assert (await api.call("GET", f"{MAPS}/a"))[0] == 404


async def test_an_update_needs_the_version_it_was_made_from(api: TestServer) -> None:
    _, old = await api.call("POST", MAPS, {"metadata": {"name": "a"}})
    await api.call("PUT", f"{MAPS}/a", old | {"data": {"k": "newer"}})

    code, _ = await api.call("POST", COMMITS, commit({**change("update", "a"), "object": old | {"data": {"k": "x"}}}))

    assert code == 409
    assert (await api.call("GET", f"{MAPS}/a"))[1]["data"] == {"k": "newer"}


async def test_every_change_is_authorized_by_itself(api: TestServer) -> None:
    rules = [{"apiGroups": ["fleetplane.io"], "resources": ["commits"], "verbs": ["create"]}]
    group = "/apis/rbac.authorization.k8s.io/v1"
    await api.call("POST", f"{group}/clusterroles", {"metadata": {"name": "commits"}, "rules": rules})
    binding = {
        "metadata": {"name": "commits"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "commits"},
        "subjects": [{"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "bob"}],
    }
    await api.call("POST", f"{group}/clusterrolebindings", binding)

    code, status = await api.call("POST", COMMITS, commit(change("create", "a")), user=UserInfo("bob"))

    assert code == 403
    assert 'cannot create resource "configmaps"' in status["message"]


async def test_a_bad_object_is_refused_as_always(api: TestServer) -> None:
    code, status = await api.call("POST", COMMITS, commit(change("create", "Not A Name")))

    assert (code, status["reason"]) == (422, "Invalid")
