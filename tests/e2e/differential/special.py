"""Stories of what is not the same for every kind: lists and watches, pods, scales, reviews, odd paths."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from .custom import custom_resources, definitions_that_are_wrong
from .peers import Answer
from .stories import JSON_PATCH, MERGE, PARTIAL_LIST, STRATEGIC, TABLE, Ask, Object, merged

Story = Callable[[Ask, str], None]


def special_stories() -> Sequence[Story]:
    return (
        selecting,
        paging,
        watching,
        watching_a_selection,
        strategic_patches,
        pods_that_run,
        scaling,
        custom_resources,
        definitions_that_are_wrong,
        collections,
        reviews,
        odd_paths,
        namespaces,
    )


def config_map(name: str, labels: dict[str, str] | None = None, **data: str) -> Object:
    return {"metadata": {"name": name, "labels": labels or {}}, "data": data}


def selecting(ask: Ask, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    for name, labels in (
        ("a", {"x": "1", "y": "1"}),
        ("b", {"x": "2"}),
        ("c", {"y": "3"}),
        ("d", {}),
        ("e", {"x": ""}),
    ):
        ask("", "POST", path, config_map(name, labels), quiet=True)
    for text in (
        "x=1", "x==1", "x!=1", "x", "!x", "x in (1,2)", "x notin (1,2)", "x,y", "x=1,y=1", "x in (1),!z", "x=",
        "x in ()", "x in (", "x>1", "y > 1", "y < 2", "y>a", "=", "a b", "x=1,", ",", "x notin (1),y", "a/b/c=1", "x=a b",
        " x = 1 ", "-x=1", "x in 1", "x=1=2", "x=" + "v" * 64,
    ):  # fmt: skip
        ask(f"list by labels {text!r}", "GET", path, query={"labelSelector": text}, headers=PARTIAL_LIST)
    for text in (
        "metadata.name=a", "metadata.name!=a", "metadata.name==a", f"metadata.namespace={ns}", "metadata.namespace=other",
        "metadata.name=a,metadata.name=b", "metadata.name", "spec.x=1", "metadata.labels=1", "=a", "metadata.name=a\\",
    ):  # fmt: skip
        shown = text.replace(ns, "NS")
        ask(f"list by fields {shown!r}", "GET", path, query={"fieldSelector": text}, headers=PARTIAL_LIST)
    pods = f"/api/v1/namespaces/{ns}/pods"
    for name, node in (("p", ""), ("q", "n1")):
        spec = {"containers": [{"name": "c", "image": "i:1"}], "nodeName": node}
        ask("", "POST", pods, {"metadata": {"name": name}, "spec": spec}, quiet=True)
    for text in (
        "spec.nodeName=n1", "spec.nodeName=", "spec.nodeName!=n1", "status.phase=Pending", "status.phase!=Pending",
        "spec.restartPolicy=Always", "spec.schedulerName=default-scheduler", "spec.serviceAccountName=default",
        "status.podIP=", "status.nominatedNodeName=", "spec.image=x",
    ):  # fmt: skip
        ask(f"list pods by fields {text!r}", "GET", pods, query={"fieldSelector": text}, headers=PARTIAL_LIST)


def paging(ask: Ask, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    for number in range(7):
        ask("", "POST", path, config_map(f"m{number}", {"odd": str(number % 2)}), quiet=True)
    ask("page 1", "GET", path, query={"limit": "3"}, headers=PARTIAL_LIST)
    _next_pages(ask, path, {"limit": "3"})
    ask("page 1 as a table", "GET", path, query={"limit": "3"}, headers=TABLE)
    ask("page 1 by label", "GET", path, query={"limit": "2", "labelSelector": "odd=1"}, headers=PARTIAL_LIST)
    _next_pages(ask, path, {"limit": "2", "labelSelector": "odd=1"})
    for case, query in {
        "limit that fits": {"limit": "7"},
        "limit beyond": {"limit": "700"},
        "limit 0": {"limit": "0"},
        "negative limit": {"limit": "-1"},
        "limit that is no number": {"limit": "x"},
        "continue that is nonsense": {"limit": "3", "continue": "nonsense"},
        "version 0": {"resourceVersion": "0"},
        "version 1": {"resourceVersion": "1"},
        "version of the future": {"resourceVersion": "999999999"},
        "version that is no number": {"resourceVersion": "x"},
        "match without a version": {"resourceVersionMatch": "Exact"},
        "unknown match": {"resourceVersion": "1", "resourceVersionMatch": "Maybe"},
        "exact 0": {"resourceVersion": "0", "resourceVersionMatch": "Exact"},
        "not older than 0": {"resourceVersion": "0", "resourceVersionMatch": "NotOlderThan"},
        "exact future": {"resourceVersion": "999999999", "resourceVersionMatch": "Exact"},
    }.items():
        ask(f"list with {case}", "GET", path, query=query, headers=PARTIAL_LIST)
    ask("get of the future", "GET", f"{path}/m1", query={"resourceVersion": "999999999"}, headers=PARTIAL_LIST)


def _next_pages(ask: Ask, path: str, query: dict[str, str]) -> None:
    """The pages after the last answer, each server with its own tokens."""
    _, *answers = ask.answers[-1]
    for page in range(2, 6):
        tokens = [one.body.get("metadata", {}).get("continue") for one in answers]
        if not any(tokens):
            return
        answers = [
            peer.request("GET", path, query=query | {"continue": token or "-"}, headers=PARTIAL_LIST)
            for peer, token in zip(ask.peers, tokens, strict=True)
        ]
        ask.answers.append((f"{ask.title} page {page}", answers[0], answers[1]))


def watching(ask: Ask, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    ask("", "POST", path, config_map("old"), quiet=True)
    starts = _versions(ask, path)
    ask("", "POST", path, config_map("a", k="1"), quiet=True)
    ask("", "PATCH", f"{path}/a", {"data": {"k": "2"}}, headers=MERGE, quiet=True)
    ask("", "POST", path, config_map("b"), quiet=True)
    ask("", "DELETE", f"{path}/a", quiet=True)
    _watch(ask, "from a revision", path, starts, {})
    _watch(ask, "one by name", path, starts, {"fieldSelector": "metadata.name=a"})
    for case, query in {
        "from now": {},
        "from 0": {"resourceVersion": "0"},
        "from the future": {"resourceVersion": "999999999"},
        "from nonsense": {"resourceVersion": "x"},
        "with a bad selector": {"labelSelector": "a=b=c"},
        "with a bad field": {"fieldSelector": "spec.x=1"},
    }.items():
        ask.watch(f"watch {case}", path, query)
    ask("watch in the old way", "GET", f"/api/v1/watch/namespaces/{ns}/configmaps/b", query={"timeoutSeconds": "1"})


def watching_a_selection(ask: Ask, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    starts = _versions(ask, path)
    ask("", "POST", path, config_map("a", {"on": "no"}), quiet=True)
    for value in ("yes", "yes", "no", "yes"):
        body = {"metadata": {"labels": {"on": value}, "annotations": {"now": str(time.monotonic())}}}
        ask("", "PATCH", f"{path}/a", body, headers=MERGE, quiet=True)
    ask("", "DELETE", f"{path}/a", quiet=True)
    _watch(
        ask, "what comes and goes", path, starts, {"labelSelector": "on=yes"}, strip=("annotations", "managedFields")
    )


def _versions(ask: Ask, path: str) -> list[str]:
    return [peer.request("GET", path).body["metadata"]["resourceVersion"] for peer in ask.peers]


def _watch(ask: Ask, case: str, path: str, starts: list[str], query: dict[str, str], strip: Sequence[str] = ()) -> None:
    answers = []
    for peer, start in zip(ask.peers, starts, strict=True):
        events = peer.watch(path, query | {"resourceVersion": start})
        for event in events:
            for key in strip:
                event["object"]["metadata"].pop(key, None)
        answers.append(Answer(200, events))
    ask.answers.append((f"{ask.title} watch {case}", answers[0], answers[1]))


def strategic_patches(ask: Ask, ns: str) -> None:
    path = f"/apis/apps/v1/namespaces/{ns}/deployments"
    containers = [{"name": "a", "image": "i:1", "env": [{"name": "E", "value": "1"}]}, {"name": "b", "image": "i:1"}]
    spec = {"selector": {"matchLabels": {"l": "1"}}, "template": {"metadata": {"labels": {"l": "1"}}, "spec": {"containers": containers}}}  # fmt: skip
    ask("", "POST", path, {"metadata": {"name": "d"}, "spec": spec}, quiet=True)

    def pod(spec: Any) -> Object:
        return {"spec": {"template": {"spec": spec}}}

    for case, patch in {
        "one container's image": pod({"containers": [{"name": "b", "image": "i:2"}]}),
        "another variable": pod({"containers": [{"name": "a", "env": [{"name": "F", "value": "2"}]}]}),
        "a variable away": pod({"containers": [{"name": "a", "env": [{"name": "E", "$patch": "delete"}]}]}),
        "a new container": pod({"containers": [{"name": "c", "image": "i:3"}]}),
        "another order": pod({"$setElementOrder/containers": [{"name": "c"}, {"name": "a"}, {"name": "b"}]}),
        "a container away": pod({"containers": [{"name": "b", "$patch": "delete"}]}),
        "containers replaced": pod({"containers": [{"$patch": "replace"}, {"name": "z", "image": "i:9"}]}),
        "a field away": {"spec": {"template": {"spec": {"terminationGracePeriodSeconds": None}}}},
        "the strategy": {"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}},
        "a container without its name": pod({"containers": [{"image": "i:2"}]}),
        "an unknown directive": pod({"containers": [{"name": "a", "$patch": "burn"}]}),
        "containers as an object": pod({"containers": {}}),
        "a text for a number": {"spec": {"replicas": "many"}},
        "the selector": {"spec": {"selector": {"matchLabels": {"x": "y"}}}},
    }.items():
        ask(f"strategic patch {case}", "PATCH", f"{path}/d", patch, headers=STRATEGIC)
    ask(
        "merge patch of containers",
        "PATCH",
        f"{path}/d",
        pod({"containers": [{"name": "n", "image": "i"}]}),
        headers=MERGE,
    )
    for case, operations in {
        "append": [{"op": "add", "path": "/spec/template/spec/containers/-", "value": {"name": "y", "image": "i:1"}}],
        "replace by index": [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "i:7"}],
        "move": [{"op": "move", "from": "/spec/template/spec/containers/0/image", "path": "/metadata/annotations"}],
        "copy": [{"op": "copy", "from": "/spec/template/metadata/labels", "path": "/metadata/labels"}],
        "beyond the end": [{"op": "remove", "path": "/spec/template/spec/containers/9"}],
        "to nothing": [{"op": "remove", "path": ""}],
        "two of which the second fails": [
            {"op": "replace", "path": "/spec/replicas", "value": 9},
            {"op": "test", "path": "/spec/paused", "value": True},
        ],
        "nothing": [],
    }.items():
        ask(f"json patch {case}", "PATCH", f"{path}/d", operations, headers=JSON_PATCH)
    ask("get after all patches", "GET", f"{path}/d")


def pods_that_run(ask: Ask, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/pods"
    spec: Object = {"containers": [{"name": "c", "image": "i:1"}]}
    ask("create", "POST", path, {"metadata": {"name": "a"}, "spec": spec})
    binding = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": "a"},
        "target": {"kind": "Node", "name": "n"},
    }
    ask("bind to nothing", "POST", f"{path}/a/binding", merged(binding, {"target": None}))
    ask("bind", "POST", f"{path}/a/binding", binding)
    ask("bind again", "POST", f"{path}/a/binding", binding)
    ask("get after binding", "GET", f"{path}/a")
    ask("delete with grace", "DELETE", f"{path}/a")
    ask("delete with less", "DELETE", f"{path}/a", query={"gracePeriodSeconds": "5"})
    ask("delete with more", "DELETE", f"{path}/a", {"gracePeriodSeconds": 500})
    ask("get what is going", "GET", f"{path}/a")
    ask("bind what is going", "POST", f"{path}/a/binding", binding)
    ask("delete at once", "DELETE", f"{path}/a", query={"gracePeriodSeconds": "0"})
    ask("get what went", "GET", f"{path}/a")
    for name in ("e", "f"):
        ask(
            "",
            "POST",
            path,
            {"metadata": {"name": name, "labels": {"l": "1"}}, "spec": spec | {"nodeName": "n"}},
            quiet=True,
        )
        ask("", "PATCH", f"{path}/{name}/status", {"status": {"phase": "Running"}}, headers=MERGE, quiet=True)
    eviction: Object = {"apiVersion": "policy/v1beta1", "kind": "Eviction", "metadata": {"name": "e", "namespace": ns}}
    ask("evict another name", "POST", f"{path}/f/eviction", eviction)
    ask("evict dry run", "POST", f"{path}/e/eviction", eviction, query={"dryRun": "All"})
    ask("evict", "POST", f"{path}/e/eviction", eviction)
    ask("get what is evicted", "GET", f"{path}/e")
    budgets = f"/apis/policy/v1beta1/namespaces/{ns}/poddisruptionbudgets"
    budget = {"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"l": "1"}}}}
    ask("", "POST", budgets, budget, quiet=True)
    eviction["metadata"]["name"] = "f"
    ask("evict against an unseen budget", "POST", f"{path}/f/eviction", eviction)
    status = {
        "observedGeneration": 1,
        "disruptionsAllowed": 0,
        "currentHealthy": 1,
        "desiredHealthy": 1,
        "expectedPods": 1,
    }
    ask("", "PATCH", f"{budgets}/b/status", {"status": status}, headers=MERGE, quiet=True)
    ask("evict against a budget", "POST", f"{path}/f/eviction", eviction)
    ask("evict nothing", "POST", f"{path}/none/eviction", merged(eviction, {"metadata": {"name": "none"}}))
    ask("log of a pod on no node", "GET", f"{path}/none/log")


def scaled(current: Callable[[int], Any], replicas: int) -> Callable[[int], Any]:
    return lambda index: merged(current(index), {"spec": {"replicas": replicas}})


def scaling(ask: Ask, ns: str) -> None:
    for plural, more in (("deployments", {}), ("replicasets", {}), ("statefulsets", {"serviceName": "s"})):
        path = f"/apis/apps/v1/namespaces/{ns}/{plural}"
        template = {"metadata": {"labels": {"l": "1"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}
        spec = {"selector": {"matchLabels": {"l": "1"}}, "template": template} | more
        ask("", "POST", path, {"metadata": {"name": "s"}, "spec": spec}, quiet=True)
        one = f"{path}/s/scale"
        ask(f"{plural} get scale", "GET", one)
        current = ask.own(one)
        ask.each(f"{plural} update scale", "PUT", one, scaled(current, 3))
        ask.each(f"{plural} update a stale scale", "PUT", one, scaled(current, 4))
        ask(f"{plural} patch scale", "PATCH", one, {"spec": {"replicas": 2}}, headers=MERGE)
        ask(f"{plural} patch scale to less than nothing", "PATCH", one, {"spec": {"replicas": -2}}, headers=MERGE)
        ask(f"{plural} patch scale to a text", "PATCH", one, {"spec": {"replicas": "many"}}, headers=MERGE)
        ask(f"{plural} scale what is not there", "GET", f"{path}/none/scale")
        ask(f"{plural} get after scaling", "GET", f"{path}/s")


def collections(ask: Ask, ns: str) -> None:
    path = f"/api/v1/namespaces/{ns}/configmaps"
    for name in ("a", "b", "c"):
        ask("", "POST", path, config_map(name, {"g": name}), quiet=True)
    ask("", "POST", path, merged(config_map("h", {"g": "a"}), {"metadata": {"finalizers": ["a.b/c"]}}), quiet=True)
    ask("delete a dry run", "DELETE", path, query={"labelSelector": "g", "dryRun": "All"})
    ask("delete by label", "DELETE", path, query={"labelSelector": "g=a"})
    ask("list what is left", "GET", path)
    ask("delete by a bad label", "DELETE", path, query={"labelSelector": "g=a=b"})
    ask("delete by field", "DELETE", path, query={"fieldSelector": "metadata.name=b"})
    ask("delete what is not there", "DELETE", path, query={"labelSelector": "g=none"})
    ask("delete all", "DELETE", path)
    ask("", "PATCH", f"{path}/h", {"metadata": {"finalizers": None}}, headers=MERGE, quiet=True)
    ask("list nothing", "GET", path)
    ask("list nothing as a table", "GET", path, headers=TABLE)


def reviews(ask: Ask, ns: str) -> None:
    own = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    resource = {"namespace": ns, "verb": "get", "resource": "pods"}
    ask("may I", "POST", own, {"spec": {"resourceAttributes": resource}})
    ask("may I see a path", "POST", own, {"spec": {"nonResourceAttributes": {"path": "/x", "verb": "get"}}})
    ask("may I do nothing", "POST", own, {"spec": {}})
    ask(
        "may I do both",
        "POST",
        own,
        {"spec": {"resourceAttributes": resource, "nonResourceAttributes": {"path": "/x"}}},
    )
    others = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    ask("may another", "POST", others, {"spec": {"user": "nobody", "resourceAttributes": resource}})
    ask("may a group", "POST", others, {"spec": {"groups": ["system:masters"], "resourceAttributes": resource}})
    ask("may nobody at all", "POST", others, {"spec": {"resourceAttributes": resource}})
    local = f"/apis/authorization.k8s.io/v1/namespaces/{ns}/localsubjectaccessreviews"
    ask(
        "may another here",
        "POST",
        local,
        {"metadata": {"namespace": ns}, "spec": {"user": "n", "resourceAttributes": resource}},
    )
    tokens = "/apis/authentication.k8s.io/v1/tokenreviews"
    ask("review of nonsense", "POST", tokens, {"spec": {"token": "nonsense"}})
    ask("review of nothing", "POST", tokens, {"spec": {}})
    ask("list reviews", "GET", own)
    ask("rules", "POST", "/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {"spec": {"namespace": ns}})


def odd_paths(ask: Ask, ns: str) -> None:
    for method, path in (
        ("GET", "/api/v1/nothings"),
        ("GET", "/api/v1/namespaces/{ns}/nothings/a"),
        ("GET", "/apis/nothing.example.com/v1/things"),
        ("GET", "/apis/apps/v9/deployments"),
        ("GET", "/apis/apps"),
        ("GET", "/apis/nothing.example.com"),
        ("GET", "/api/v1/namespaces/{ns}/nodes"),
        ("GET", "/api/v1/namespaces/{ns}/configmaps/a/nothing"),
        ("GET", "/api/v1/namespaces/{ns}/pods/none/status"),
        ("GET", "/nothing"),
        ("POST", "/api/v1/configmaps"),
        ("POST", "/api/v1/namespaces/{ns}/configmaps/a"),
        ("PUT", "/api/v1/namespaces/{ns}/configmaps"),
        ("PATCH", "/api/v1/namespaces/{ns}/configmaps"),
        ("DELETE", "/api/v1/namespaces"),
        ("DELETE", "/api/v1/namespaces/{ns}/services"),
        ("GET", "/api/v1/namespaces/absent/configmaps"),
        ("GET", "/api/v1/namespaces/absent/configmaps/a"),
        ("GET", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"),
        ("GET", "/api/v1/componentstatuses/none"),
    ):
        ask(
            f"{method} {path}",
            method,
            path.format(ns=ns),
            None if method in ("GET", "DELETE") else {"metadata": {"name": "a"}},
        )
    path = f"/api/v1/namespaces/{ns}/configmaps"
    ask("accept of nothing known", "GET", path, headers={"Accept": "text/plain"})
    ask("accept of a choice", "GET", path, headers={"Accept": "text/plain, application/json;q=0.5"})
    ask("a body of an unknown type", "POST", path, b"<a/>", headers={"Content-Type": "text/xml"})
    ask(
        "a body of YAML",
        "POST",
        path,
        b"metadata: {name: y}\ndata: {a: 'on', b: \"1\"}",
        headers={"Content-Type": "application/yaml"},
    )
    ask("a body of broken YAML", "POST", path, b"a: [b", headers={"Content-Type": "application/yaml"})
    ask("no credentials", "GET", path, headers={"Authorization": ""})
    ask("bad credentials", "GET", path, headers={"Authorization": "Bearer wrong"})
    ask("as another", "GET", path, headers={"Impersonate-User": "nobody"})
    ask("as another's group only", "GET", path, headers={"Impersonate-Group": "g"})
    ask("dry run of an unknown sort", "POST", path, config_map("q"), query={"dryRun": "Some"})
    ask("a field manager that is too long", "POST", path, config_map("q"), query={"fieldManager": "m" * 200})


def namespaces(ask: Ask, ns: str) -> None:
    ask("create in one that is not there", "POST", "/api/v1/namespaces/absent/configmaps", config_map("a"))
    ask("delete the default one", "DELETE", "/api/v1/namespaces/default")
    ask("delete", "DELETE", f"/api/v1/namespaces/{ns}")
    ask("get what is going", "GET", f"/api/v1/namespaces/{ns}")
    ask("create in one that is going", "POST", f"/api/v1/namespaces/{ns}/configmaps", config_map("a"))
    ask("list in one that is going", "GET", f"/api/v1/namespaces/{ns}/configmaps")
    finalize = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ns}, "spec": {"finalizers": []}}
    ask("finalize", "PUT", f"/api/v1/namespaces/{ns}/finalize", finalize)
    ask("get what went", "GET", f"/api/v1/namespaces/{ns}")
