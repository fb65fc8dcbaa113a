"""Stories of custom resources: definitions good and bad, and the life of an object under a schema."""

from __future__ import annotations

import time
from typing import Any

from .peers import Peer
from .stories import APPLY, JSON_PATCH, MERGE, STRATEGIC, TABLE, Ask, Object, merged

_PROPERTIES: Object = {
    "spec": {
        "type": "object",
        "required": ["size"],
        "properties": {
            "size": {"type": "integer", "minimum": 1, "maximum": 9},
            "color": {"type": "string", "enum": ["red", "blue"], "default": "red"},
            "names": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]+$"}, "maxItems": 3, "x-kubernetes-list-type": "set"},
            "ports": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["port"],
                "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}},
            },
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "either": {"x-kubernetes-int-or-string": True},
            "maybe": {"type": "string", "nullable": True},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}},
            "when": {"type": "string", "format": "date-time"},
        },
    },
    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}, "selector": {"type": "string"}, "phase": {"type": "string"}}},
}  # fmt: skip


def definition(plural: str, **more: Any) -> Object:
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": {"type": "object", "properties": _PROPERTIES}},
        "subresources": {
            "status": {},
            "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.replicas", "labelSelectorPath": ".status.selector"},
        },
        "additionalPrinterColumns": [
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "description": "How big."},
            {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1},
            {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
            {"name": "Ports", "type": "string", "jsonPath": ".spec.ports[*].port"},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
    }  # fmt: skip
    made = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.diff.example.com"},
        "spec": {
            "group": "diff.example.com",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": plural.title(), "shortNames": [plural[:3]], "categories": ["all"]},
            "versions": [version],
        },
    }
    changed: Object = merged(made, more)
    return changed


DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def custom_resources(ask: Ask, ns: str) -> None:
    ask("", "POST", DEFINITIONS, definition("gadgets"), quiet=True)
    path = f"/apis/diff.example.com/v1/namespaces/{ns}/gadgets"
    for peer in ask.peers:
        _until_served(peer, path)
    ask("get the definition", "GET", f"{DEFINITIONS}/gadgets.diff.example.com")
    ask("discovery", "GET", "/apis/diff.example.com/v1")
    ask("discovery of the group", "GET", "/apis/diff.example.com")
    base = {"apiVersion": "diff.example.com/v1", "kind": "Gadgets", "metadata": {"name": "a"}, "spec": {"size": 3}}
    everything = {"color": "blue", "names": ["x", "y"], "ports": [{"port": 1}, {"port": 2, "name": "n"}], "free": {"a": [1, {"b": None}]}, "either": "x", "maybe": None, "labels": {"l": "m"}, "when": "2020-01-01T00:00:00Z"}  # fmt: skip
    for case, patch in {
        "plain": {},
        "everything": {"spec": everything},
        "unknown fields": {"spec": {"nonsense": 1, "free": {"kept": 1}}, "also": 2},
        "nothing": {"spec": None},
        "no size": {"spec": {"size": None}},
        "too big": {"spec": {"size": 10}},
        "a text for a number": {"spec": {"size": "3"}},
        "a fraction for a number": {"spec": {"size": 3.5}},
        "a whole float": {"spec": {"size": 3.0}},
        "another color": {"spec": {"color": "green"}},
        "bad names": {"spec": {"names": ["a", "B", "c", "d"]}},
        "a name twice": {"spec": {"names": ["a", "a"]}},
        "a port twice": {"spec": {"ports": [{"port": 1}, {"port": 1}]}},
        "a port without its key": {"spec": {"ports": [{"name": "x"}]}},
        "a list for an object": {"spec": []},
        "a bad time": {"spec": {"when": "yesterday"}},
        "a number for a label": {"spec": {"labels": {"l": 1}}},
        "a status": {"status": {"phase": "Ready"}},
        "bad labels": {"metadata": {"labels": {"a b": "c d"}}},
        "a bad finalizer": {"metadata": {"finalizers": ["not good"]}},
        "a short finalizer": {"metadata": {"finalizers": ["short"]}},
    }.items():
        wanted = merged(base, patch)
        wanted["metadata"]["name"] = "v"
        ask(f"create {case}", "POST", path, wanted)
        ask("", "PATCH", f"{path}/v", {"metadata": {"finalizers": None}}, headers=MERGE, quiet=True)
        ask("", "DELETE", f"{path}/v", quiet=True)
    _life_of_custom(ask, path, base)
    ask("delete the definition", "DELETE", f"{DEFINITIONS}/gadgets.diff.example.com")
    for peer in ask.peers:
        _until_gone(peer, f"{DEFINITIONS}/gadgets.diff.example.com")
    ask("get after the definition", "GET", f"{path}/a")


def _life_of_custom(ask: Ask, path: str, base: Object) -> None:
    one = f"{path}/a"
    ask("create", "POST", path, base)
    ask("create again", "POST", path, base)
    ask("get", "GET", one)
    ask("get as a table", "GET", one, headers=TABLE)
    ask("list", "GET", path)
    ask("list as a table", "GET", path, headers=TABLE)
    ask("list by a bad field", "GET", path, query={"fieldSelector": "spec.size=3"})
    ask("merge patch", "PATCH", one, {"spec": {"size": 4}}, headers=MERGE)
    ask("merge patch to too much", "PATCH", one, {"spec": {"size": 40}}, headers=MERGE)
    ask("merge patch of the status", "PATCH", one, {"status": {"phase": "Ready"}}, headers=MERGE)
    ask("merge patch of nothing known", "PATCH", one, {"spec": {"none": 1}}, headers=MERGE)
    ask("strategic patch", "PATCH", one, {"spec": {"size": 5}}, headers=STRATEGIC)
    ask("json patch", "PATCH", one, [{"op": "replace", "path": "/spec/size", "value": 6}], headers=JSON_PATCH)
    ask(
        "status",
        "PATCH",
        f"{one}/status",
        {"status": {"phase": "Ready", "replicas": 2, "selector": "a=b"}},
        headers=MERGE,
    )
    ask("status with a spec", "PATCH", f"{one}/status", {"spec": {"size": 9}}, headers=MERGE)
    ask("bad status", "PATCH", f"{one}/status", {"status": {"replicas": "x"}}, headers=MERGE)
    ask("get scale", "GET", f"{one}/scale")
    ask("patch scale", "PATCH", f"{one}/scale", {"spec": {"replicas": 7}}, headers=MERGE)
    ask("patch scale too far", "PATCH", f"{one}/scale", {"spec": {"replicas": 70}}, headers=MERGE)
    ask("apply", "PATCH", one, merged(base, {"spec": {"ports": [{"port": 1, "name": "x"}], "size": 7}}), headers=APPLY, query={"fieldManager": "m"})  # fmt: skip
    ask("apply another port", "PATCH", one, {**base, "spec": {"ports": [{"port": 2}], "size": 7}}, headers=APPLY, query={"fieldManager": "n"})  # fmt: skip
    ask("apply in conflict", "PATCH", one, {**base, "spec": {"size": 8}}, headers=APPLY, query={"fieldManager": "n"})
    ask(
        "apply without the port",
        "PATCH",
        one,
        {**base, "spec": {"size": 7}},
        headers=APPLY,
        query={"fieldManager": "m"},
    )
    current = ask.own(one)
    ask.each("update", "PUT", one, lambda i: merged(current(i), {"spec": {"size": 1}}))
    ask.each(
        "update without a revision", "PUT", one, lambda i: merged(current(i), {"metadata": {"resourceVersion": None}})
    )
    ask.each("update under another kind", "PUT", one, lambda i: merged(current(i), {"kind": "Other"}))
    ask("delete", "DELETE", one)
    ask("get what went", "GET", one)


def _until_served(peer: Peer, path: str) -> None:
    for _ in range(200):
        if peer.request("GET", path).status == 200:
            break
        time.sleep(0.05)
    time.sleep(0.5)  # 1.20 serves lists before it takes objects


def _until_gone(peer: Peer, path: str) -> None:
    for _ in range(200):
        if peer.request("GET", path).status == 404:
            return
        time.sleep(0.05)


def definitions_that_are_wrong(ask: Ask, _ns: str) -> None:
    version = definition("things")["spec"]["versions"][0]
    changes: dict[str, Object] = {
        "under another name": {"metadata": {"name": "other.diff.example.com"}},
        "without versions": {"spec": {"versions": []}},
        "with two storage versions": {"spec": {"versions": [version, version | {"name": "v2"}]}},
        "with no storage version": {"spec": {"versions": [version | {"storage": False}]}},
        "with a version twice": {"spec": {"versions": [version, version | {"storage": False}]}},
        "with a bad scope": {"spec": {"scope": "Wide"}},
        "without a schema": {"spec": {"versions": [version | {"schema": None}]}},
        "with a schema that is no object": {
            "spec": {"versions": [version | {"schema": {"openAPIV3Schema": {"type": "string"}}}]}
        },
        "with a property without a type": _schema(version, {"a": {}}),
        "with a bad pattern": _schema(version, {"a": {"type": "string", "pattern": "("}}),
        "with a default of the wrong type": _schema(version, {"a": {"type": "string", "default": 1}}),
        "with a map key that is none": _schema(
            version, {"a": {"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object"}}}
        ),
        "with bad columns": {
            "spec": {
                "versions": [version | {"additionalPrinterColumns": [{"name": "A", "type": "thing", "jsonPath": "x"}]}]
            }
        },
        "with a bad scale": {
            "spec": {
                "versions": [
                    version | {"subresources": {"scale": {"specReplicasPath": "spec", "statusReplicasPath": ".x"}}}
                ]
            }
        },
        "with a bad group": {"spec": {"group": "Diff"}},
        "with a bad kind": {"spec": {"names": {"kind": "a b"}}},
        "with a webhook that is not there": {"spec": {"conversion": {"strategy": "Webhook"}}},
    }
    for case, change in changes.items():  # fmt: skip
        ask(f"create one {case}", "POST", DEFINITIONS, definition("things", **change), query={"dryRun": "All"})


def _schema(version: Object, properties: Object) -> Object:
    schema = {"openAPIV3Schema": {"type": "object", "properties": properties}}
    return {"spec": {"versions": [version | {"schema": schema, "subresources": None}]}}
