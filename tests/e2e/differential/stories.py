"""What is asked of both servers, in order: the life of every kind, and what is refused.

``objects.yaml`` has, for every kind, where it lives, an object (``base``), and JSON merge patches on it: what to create
(``creates``) and what to change the created one by (``updates``), valid or not.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from .peers import Answer, Peer

Object = dict[str, Any]
MERGE = {"Content-Type": "application/merge-patch+json"}
JSON_PATCH = {"Content-Type": "application/json-patch+json"}
STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}
APPLY = {"Content-Type": "application/apply-patch+yaml"}
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"}
PARTIAL = {"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
PARTIAL_LIST = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}
_TABLE = yaml.safe_load(Path(__file__).with_name("objects.yaml").read_text())


class Kind(NamedTuple):
    """``path`` is that of the collection; ``status`` a status to write, where there is one."""

    title: str
    path: str
    base: Object
    creates: Mapping[str, Object]
    updates: Mapping[str, Object]
    status: Object | None

    def at(self, namespace: str) -> Kind:
        """With the namespace where its objects name their own."""
        return self._replace(base=json.loads(json.dumps(self.base).replace("{ns}", namespace)))


def kinds() -> list[Kind]:
    return [
        Kind(
            title,
            one["path"],
            one["base"],
            one.get("creates") or {},
            one.get("updates") or {},
            one.get("status"),
        )
        for title, one in _TABLE.items()
    ]


class Ask:
    """Sends the same to both and keeps the pairs of answers."""

    def __init__(self, title: str, real: Peer, ours: Peer) -> None:
        self.title = title
        self.peers = (real, ours)
        self.answers: list[tuple[str, Answer, Answer]] = []

    def __call__(
        self,
        case: str,
        method: str,
        path: str,
        body: Any = None,
        *,
        quiet: bool = False,
        **more: Any,
    ) -> tuple[Answer, Answer]:
        """What is ``quiet`` is not compared."""
        answers = [peer.request(method, path, body, **more) for peer in self.peers]
        pair = (answers[0], answers[1])
        if not quiet:
            self.answers.append((f"{self.title} {case}", *pair))
        return pair

    def own(self, path: str) -> Callable[[int], Any]:
        """What each server has at a path, for bodies that must carry its own revision."""
        found = [peer.request("GET", path).body for peer in self.peers]
        return lambda index: copy.deepcopy(found[index])

    def each(self, case: str, method: str, path: str, body: Callable[[int], Any], **more: Any) -> None:
        """Like calling, with a body for each server."""
        real, ours = (peer.request(method, path, body(index), **more) for index, peer in enumerate(self.peers))
        self.answers.append((f"{self.title} {case}", real, ours))

    def watch(self, case: str, path: str, query: Mapping[str, str], seconds: int = 1) -> None:
        """What is there comes in any order, so nothing else may happen meanwhile."""
        real, ours = (Answer(200, sorted(peer.watch(path, query, seconds), key=_event_name)) for peer in self.peers)
        self.answers.append((f"{self.title} {case}", real, ours))


def _event_name(event: Object) -> str:
    return str(((event.get("object") or {}).get("metadata") or {}).get("name"))


def merged(value: Any, patch: Any) -> Any:
    """RFC 7396."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(copy.deepcopy(value)) if isinstance(value, dict) else {}
    for key, one in patch.items():
        if one is None:
            made.pop(key, None)
        else:
            made[key] = merged(made.get(key), one)
    return made


def life_of(ask: Ask, kind: Kind, namespace: str) -> None:
    """Everything that can be done to an object of any kind."""
    path = kind.path.format(ns=namespace)
    name = kind.base["metadata"]["name"]
    one = f"{path}/{name}"
    _creating(ask, kind, path, name)
    _reading(ask, path, name)
    _changing(ask, path, one)
    if kind.status is not None:
        ask("status merge patch", "PATCH", f"{one}/status", {"status": kind.status}, headers=MERGE)
        ask("status get", "GET", f"{one}/status")
        current = ask.own(one)
        ask.each("status update", "PUT", f"{one}/status", current)
        ask("status with a label", "PATCH", f"{one}/status", {"metadata": {"labels": {"s": "t"}}}, headers=MERGE)
    ask("get at the end", "GET", one)
    _deleting(ask, path, one)


def _creating(ask: Ask, kind: Kind, path: str, name: str) -> None:
    base = kind.base
    ask("create dry run", "POST", path, base, query={"dryRun": "All"})
    ask("get after the dry run", "GET", f"{path}/{name}")
    ask("create", "POST", path, base)
    ask("create again", "POST", path, base)
    ask("create again dry run", "POST", path, base, query={"dryRun": "All"})
    ask("create with a resourceVersion", "POST", path, merged(base, {"metadata": {"resourceVersion": "5"}}))
    ask("create without a name", "POST", path, merged(base, {"metadata": {"name": None}}))
    ask("create under a bad name", "POST", path, merged(base, {"metadata": {"name": "Not Good"}}))
    ask("create with bad labels", "POST", path, merged(base, {"metadata": {"name": "x", "labels": {"a b": "c d"}}}))
    ask(
        "create with bad annotations",
        "POST",
        path,
        merged(base, {"metadata": {"name": "x", "annotations": {"a b": "c d"}}}),
    )
    ask(
        "create another kind",
        "POST",
        path,
        {"kind": "Other", "apiVersion": base["apiVersion"], "metadata": {"name": "x"}},
    )
    ask("create another version", "POST", path, merged(base, {"apiVersion": "v7"}))
    ask("create from a list", "POST", path, b"[]")
    ask("create from nothing", "POST", path, b"")
    ask("create from broken JSON", "POST", path, b'{"kind":')
    ask("create to a name", "POST", f"{path}/{name}", base)


def _reading(ask: Ask, path: str, name: str) -> None:
    one = f"{path}/{name}"
    ask("get", "GET", one)
    ask("get what is not there", "GET", f"{path}/absent")
    ask("get as a table", "GET", one, headers=TABLE)
    ask("get partial metadata", "GET", one, headers=PARTIAL)
    named = {"fieldSelector": f"metadata.name={name}"}
    ask("list", "GET", path, query=named)
    ask("list as a table", "GET", path, query=named, headers=TABLE)
    ask("list partial metadata", "GET", path, query=named, headers=PARTIAL_LIST)
    ask("list by labels that none has", "GET", path, query={"labelSelector": "none=x"})
    ask("list by a bad label selector", "GET", path, query={"labelSelector": "a=b=c"})
    ask("list by a bad field", "GET", path, query={"fieldSelector": "spec.nothing=x"})
    ask("update nothing there", "DELETE", f"{path}/absent")


def _changing(ask: Ask, path: str, one: str) -> None:
    current = ask.own(one)
    ask.each("update labels", "PUT", one, lambda index: merged(current(index), {"metadata": {"labels": {"u": "1"}}}))
    ask.each(
        "update a stale one", "PUT", one, lambda index: merged(current(index), {"metadata": {"labels": {"u": "2"}}})
    )
    ask.each(
        "update under another name", "PUT", one, lambda index: merged(current(index), {"metadata": {"name": "other"}})
    )
    ask.each(
        "update another uid",
        "PUT",
        one,
        lambda index: merged(current(index), {"metadata": {"uid": "abc", "resourceVersion": None}}),
    )
    ask.each(
        "update without a revision",
        "PUT",
        one,
        lambda index: merged(current(index), {"metadata": {"resourceVersion": None}}),
    )
    ask("merge patch", "PATCH", one, {"metadata": {"labels": {"m": "1"}}}, headers=MERGE)
    ask("merge patch again", "PATCH", one, {"metadata": {"labels": {"m": "1"}}}, headers=MERGE)
    ask(
        "merge patch dry run",
        "PATCH",
        one,
        {"metadata": {"labels": {"d": "1"}}},
        headers=MERGE,
        query={"dryRun": "All"},
    )
    ask("merge patch null", "PATCH", one, {"metadata": {"labels": {"m": None}}}, headers=MERGE)
    ask("merge patch of a number", "PATCH", one, {"metadata": {"labels": {"m": 1}}}, headers=MERGE)
    ask("merge patch with a stale revision", "PATCH", one, {"metadata": {"resourceVersion": "1"}}, headers=MERGE)
    ask("merge patch of the name", "PATCH", one, {"metadata": {"name": "other"}}, headers=MERGE)
    ask("merge patch of nothing there", "PATCH", f"{path}/absent", {"metadata": {}}, headers=MERGE)
    ask("merge patch from a list", "PATCH", one, b"[]", headers=MERGE)
    ask("strategic patch", "PATCH", one, {"metadata": {"labels": {"s": "1"}}}, headers=STRATEGIC)
    ask(
        "strategic patch of finalizers",
        "PATCH",
        one,
        {"metadata": {"finalizers": ["a.example.com/f"]}},
        headers=STRATEGIC,
    )
    ask(
        "strategic patch takes one finalizer",
        "PATCH",
        one,
        {"metadata": {"$deleteFromPrimitiveList/finalizers": ["a.example.com/f"]}},
        headers=STRATEGIC,
    )
    ask("json patch", "PATCH", one, [{"op": "add", "path": "/metadata/labels/j", "value": "1"}], headers=JSON_PATCH)
    ask(
        "json patch test",
        "PATCH",
        one,
        [{"op": "test", "path": "/metadata/labels/j", "value": "2"}],
        headers=JSON_PATCH,
    )
    ask("json patch nowhere", "PATCH", one, [{"op": "remove", "path": "/metadata/labels/none"}], headers=JSON_PATCH)
    ask("json patch unknown op", "PATCH", one, [{"op": "jump", "path": "/metadata/labels/j"}], headers=JSON_PATCH)
    ask("json patch from an object", "PATCH", one, {}, headers=JSON_PATCH)
    ask("patch of no type", "PATCH", one, {}, headers={"Content-Type": "application/json"})
    ask("finalizer of a bad name", "PATCH", one, {"metadata": {"finalizers": ["not good"]}}, headers=MERGE)


def _deleting(ask: Ask, path: str, one: str) -> None:
    ask("delete another uid", "DELETE", one, {"preconditions": {"uid": "abc"}})
    ask("delete with a bad policy", "DELETE", one, {"propagationPolicy": "Sideways"})
    ask("delete with orphan and policy", "DELETE", one, {"propagationPolicy": "Orphan", "orphanDependents": True})
    ask("delete dry run", "DELETE", one, query={"dryRun": "All"})
    ask("delete bad dry run", "DELETE", one, query={"dryRun": "Some"})
    ask("finalizer", "PATCH", one, {"metadata": {"finalizers": ["example.com/hold"]}}, headers=MERGE)
    ask("delete what is held", "DELETE", one, query={"gracePeriodSeconds": "0"})
    ask("delete what is held again", "DELETE", one, query={"gracePeriodSeconds": "0"})
    ask("another finalizer", "PATCH", one, {"metadata": {"finalizers": ["example.com/hold", "a.b/c"]}}, headers=MERGE)
    ask("get what is held", "GET", one)
    ask("let go", "PATCH", one, {"metadata": {"finalizers": None}}, headers=MERGE)
    ask("get what went", "GET", one)
    ask("delete what went", "DELETE", one)


def variants(ask: Ask, kind: Kind, namespace: str) -> None:
    """What defaults make of other objects, and why some are refused."""
    path = kind.path.format(ns=namespace)
    for case, patch in kind.creates.items():
        wanted = merged(kind.base, patch)
        wanted["metadata"]["name"] = "v"
        ask(f"create {case}", "POST", path, wanted)
        _remove(ask, f"{path}/v")


def changes(ask: Ask, kind: Kind, namespace: str) -> None:
    """What may be changed in an object that is there, and what not."""
    if not kind.updates:
        return
    path = kind.path.format(ns=namespace)
    wanted = merged(kind.base, {"metadata": {"name": "u"}}) if not kind.base["metadata"].get("fixed") else kind.base
    ask("", "POST", path, wanted, quiet=True)
    for case, patch in kind.updates.items():
        ask(f"update {case}", "PATCH", f"{path}/u", patch, headers=MERGE, query={"dryRun": "All"})
    _remove(ask, f"{path}/u")


def propagation(ask: Ask, kind: Kind, namespace: str) -> None:
    """What a deletion writes for the garbage collector."""
    path = kind.path.format(ns=namespace)
    for policy in ("Foreground", "Background", "Orphan"):
        ask("", "POST", path, merged(kind.base, {"metadata": {"name": "p"}}), quiet=True)
        ask(f"delete {policy}", "DELETE", f"{path}/p", {"propagationPolicy": policy, "gracePeriodSeconds": 0})
        ask(f"after delete {policy}", "GET", f"{path}/p")
        _remove(ask, f"{path}/p")


def applying(ask: Ask, kind: Kind, namespace: str) -> None:
    """Server-side apply: by one, by another, in conflict, by force, and what is taken away."""
    path = kind.path.format(ns=namespace)
    one = f"{path}/s"
    wanted = merged(kind.base, {"metadata": {"name": "s", "labels": {"l": "1", "k": "1"}}})
    other = {
        "apiVersion": wanted["apiVersion"],
        "kind": wanted["kind"],
        "metadata": {"name": "s", "labels": {"l": "2"}},
    }
    ask("apply without a manager", "PATCH", one, wanted, headers=APPLY)
    ask("apply", "PATCH", one, wanted, headers=APPLY, query={"fieldManager": "m"})
    ask("apply again", "PATCH", one, wanted, headers=APPLY, query={"fieldManager": "m"})
    ask("apply in conflict", "PATCH", one, other, headers=APPLY, query={"fieldManager": "n"})
    ask("apply by force", "PATCH", one, other, headers=APPLY, query={"fieldManager": "n", "force": "true"})
    less = merged(wanted, {"metadata": {"labels": {"l": None, "k": None}}})
    ask("apply without the labels", "PATCH", one, less, headers=APPLY, query={"fieldManager": "m"})
    ask("update what is applied", "PATCH", one, {"metadata": {"labels": {"l": "3"}}}, headers=MERGE)
    ask("apply under another name", "PATCH", f"{path}/t", wanted, headers=APPLY, query={"fieldManager": "m"})
    ask("apply with managed fields", "PATCH", one, merged(wanted, {"metadata": {"managedFields": [{"manager": "x"}]}}), headers=APPLY, query={"fieldManager": "m"})  # fmt: skip
    _remove(ask, one)


def _remove(ask: Ask, one: str) -> None:
    ask("", "DELETE", one, query={"gracePeriodSeconds": "0"}, quiet=True)
    ask("", "PATCH", one, {"metadata": {"finalizers": None}}, headers=MERGE, quiet=True)
    if one.startswith("/api/v1/namespaces/") and one.count("/") == 4:
        ask("", "PUT", f"{one}/finalize", {"metadata": {"name": one.rpartition("/")[2]}, "spec": {}}, quiet=True)


def stories() -> Iterator[tuple[str, Kind, Callable[[Ask, Kind, str], None]]]:
    for kind in kinds():
        for tell in (life_of, variants, changes, propagation, applying):
            yield f"{kind.title}-{tell.__name__}", kind, tell
