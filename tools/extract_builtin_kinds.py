"""Make the one compact data file with the built-in Kubernetes kinds: schemas, names, verbs, subresources.

The facts come from two packages that are needed when a wheel is built and never when it runs: ``kubernetes-validate``
(schemas with list types and merge keys) and ``lightkube-models`` (plurals, scope, verbs, subresources). What neither
carries (short names, categories, group order, connect subresources, old beta versions) stands in the tables below. The
packages are read as data; none of their code runs.

The same input gives the same bytes. Format of the result, all integers big-endian::

    b"FPK1" | uint32 length of the header | header, zlib-compressed JSON | blocks, each zlib-compressed JSON

The header names the catalogue, the definition of each kind, and where the block of each package of definitions lies.
"""

from __future__ import annotations

import ast
import copy
import json
import struct
import sys
import zlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

KUBERNETES = "1.37.0"
MAGIC = b"FPK1"
TARGET = Path("src/fleetplane/model/builtin/kinds.bin")

Json = dict[str, Any]

GROUP_ORDER = [
    "",
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "flowcontrol.apiserver.k8s.io",
    "resource.k8s.io",
    "storagemigration.k8s.io",
]
"""kube-apiserver's discovery order: by the group priorities of its APIServices."""

STABLE = ("v1", "v2")

PREFERRED = {"autoscaling": "v2"}
"""The group's preferred version where it is not ``v1``."""

SHORT_NAMES = {
    "componentstatuses": "cs",
    "configmaps": "cm",
    "endpoints": "ep",
    "events": "ev",
    "limitranges": "limits",
    "namespaces": "ns",
    "nodes": "no",
    "persistentvolumeclaims": "pvc",
    "persistentvolumes": "pv",
    "pods": "po",
    "replicationcontrollers": "rc",
    "resourcequotas": "quota",
    "serviceaccounts": "sa",
    "services": "svc",
    "daemonsets": "ds",
    "deployments": "deploy",
    "replicasets": "rs",
    "statefulsets": "sts",
    "horizontalpodautoscalers": "hpa",
    "cronjobs": "cj",
    "certificatesigningrequests": "csr",
    "ingresses": "ing",
    "ipaddresses": "ip",
    "networkpolicies": "netpol",
    "poddisruptionbudgets": "pdb",
    "priorityclasses": "pc",
    "storageclasses": "sc",
    "volumeattributesclasses": "vac",
    "customresourcedefinitions": "crd crds",
}

_API_EXTENSIONS = (
    "apiservices customresourcedefinitions mutatingadmissionpolicies mutatingadmissionpolicybindings "
    "mutatingwebhookconfigurations validatingadmissionpolicies validatingadmissionpolicybindings "
    "validatingwebhookconfigurations"
)
_ALL = (
    "cronjobs daemonsets deployments horizontalpodautoscalers jobs pods replicasets replicationcontrollers services "
    "statefulsets"
)
CATEGORIES = {plural: ["all"] for plural in _ALL.split()} | {p: ["api-extensions"] for p in _API_EXTENSIONS.split()}

_PROXY_VERBS = ["create", "delete", "get", "patch", "update"]
CONNECT = {
    "pods": {
        "attach": ("PodAttachOptions", ["create", "get"]),
        "exec": ("PodExecOptions", ["create", "get"]),
        "portforward": ("PodPortForwardOptions", ["create", "get"]),
        "proxy": ("PodProxyOptions", _PROXY_VERBS),
    },
    "services": {"proxy": ("ServiceProxyOptions", _PROXY_VERBS)},
    "nodes": {"proxy": ("NodeProxyOptions", _PROXY_VERBS)},
}
"""Core subresources that are connections, not objects: plural -> name -> (option kind, verbs)."""

STORED_AS = {
    ("events.k8s.io", "v1", "Event"): ("", "v1"),
    ("autoscaling", "v1", "HorizontalPodAutoscaler"): ("autoscaling", "v2"),
}
"""Kinds that are a second view of objects stored in another group or version."""

OLD_BETAS = [
    ("autoscaling", "v2beta2", "v2", ["HorizontalPodAutoscaler"]),
    ("batch", "v1beta1", "v1", ["CronJob"]),
    ("discovery.k8s.io", "v1beta1", "v1", ["EndpointSlice"]),
    ("networking.k8s.io", "v1beta1", "v1", ["Ingress", "IngressClass"]),
    ("policy", "v1beta1", "v1", ["PodDisruptionBudget", "Eviction"]),
]
"""Versions that clients of the 1.20 era still send: (group, old version, stable version, kinds)."""

_PACKAGE = "io.k8s.api."
_MACHINERY = "io.k8s.apimachinery.pkg."
_VERB = {"post": "create", "put": "update", "global_list": "list", "global_watch": "watch"}
_REF = "#/components/schemas/"


def installed_file(distribution: str, ending: str) -> list[Path]:
    """Files of an installed distribution whose path ends so, sorted; an error that says what to install."""
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise SystemExit(
            f"the package {distribution} is needed to build Fleetplane: pip install {distribution}"
        ) from None
    return sorted(Path(str(f.locate())) for f in files if str(f).endswith(ending))


def raw_definitions() -> dict[str, Json]:
    found = installed_file("kubernetes-validate", f"v{KUBERNETES}-local/_definitions.json")
    if not found:
        raise SystemExit(
            f"kubernetes-validate carries no schemas of Kubernetes {KUBERNETES}: install its version {KUBERNETES}"
        )
    loaded: dict[str, Json] = json.loads(found[0].read_text("utf-8"))["$defs"]
    return loaded


def published(schema: Json) -> Json:
    """One schema as Kubernetes publishes it: no null types, no enums on apiVersion and kind, OpenAPI v3 references."""
    result: Json = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, list):
            result[key] = next(one for one in value if one != "null")
        elif key == "$ref":
            result[key] = _REF + value.rpartition("/")[2]
        elif key == "properties":
            result[key] = {name: published(of) for name, of in sorted(value.items())}
            for name in ("apiVersion", "kind"):
                result[key].get(name, {}).pop("enum", None)
        elif key in ("items", "additionalProperties", "not") and isinstance(value, dict):
            result[key] = published(value)
        elif key in ("allOf", "anyOf", "oneOf"):
            result[key] = [published(one) for one in value]
        else:
            result[key] = value
    return result


def is_kept(package: str) -> bool:
    """Whether the API package of a definition is served: everything of the machinery, only stable API groups."""
    return not package.startswith(_PACKAGE) or package.rpartition(".")[2] in STABLE


def definitions() -> dict[str, Json]:
    """Every definition to ship, by name."""
    kept = {}
    for name, schema in sorted(raw_definitions().items()):
        if is_kept(name.rpartition(".")[0]):
            kept[name] = published(schema)
    kept[_MACHINERY + "api.resource.Quantity"] = {
        "description": "A fixed-point number such as 500m, 2Gi or 1e3: a string, or a plain number when read.",
        "oneOf": [{"type": "string"}, {"type": "number"}],
    }
    kept[_MACHINERY + "util.intstr.IntOrString"] = {
        "description": "Either a whole number or a string, such as a port number or a port name.",
        "format": "int-or-string",
        "oneOf": [{"type": "integer"}, {"type": "string"}],
    }
    for name, schema in kept.items():
        drop_alpha_fields(schema, kept)
        kinds = schema.get("x-kubernetes-group-version-kind")
        if kinds:
            short = [one for one in kinds if one["group"] in GROUP_ORDER and one["version"] in STABLE]
            schema["x-kubernetes-group-version-kind"] = short
            if not short:
                raise SystemExit(f"{name} belongs to no served group; add its group to GROUP_ORDER")
    add_old_betas(kept)
    return kept


def references(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str):
                yield value.removeprefix(_REF)
            else:
                yield from references(value)
    elif isinstance(schema, list):
        for one in schema:
            yield from references(one)


def drop_alpha_fields(schema: Json, kept: dict[str, Json]) -> None:
    """A stable kind's field whose type is only in an alpha version is off by default, as that version is."""
    properties = schema.get("properties", {})
    for field in [f for f, of in properties.items() if any(ref not in kept for ref in references(of))]:
        del properties[field]


def add_old_betas(kept: dict[str, Json]) -> None:
    """Schemas of the old beta versions, derived from the stable ones; structures that differ are rebuilt."""
    for group, old, stable, kinds in OLD_BETAS:
        source, target = (f"{_PACKAGE}{group.partition('.')[0]}.{version}." for version in (stable, old))
        for kind in kinds:
            for name in (kind, kind + "List"):
                if source + name in kept:
                    schema = copy.deepcopy(kept[source + name])
                    schema["x-kubernetes-group-version-kind"] = [{"group": group, "kind": name, "version": old}]
                    items = schema["properties"].get("items")
                    if items:
                        items["items"]["$ref"] = _REF + target + kind
                    kept[target + name] = schema
    old_ingress(kept)
    old_endpoint_slice(kept)


def _copied(kept: dict[str, Json], group: str, names: list[str]) -> None:
    """Copy component schemas from v1 to v1beta1 of a group, with references among the copied names redirected."""
    old, new = f"{_PACKAGE}{group}.v1.", f"{_PACKAGE}{group}.v1beta1."
    for name in names:
        text = json.dumps(kept.get(new + name) or kept[old + name])
        for other in names:
            text = text.replace(f'"{_REF}{old}{other}"', f'"{_REF}{new}{other}"')
        kept[new + name] = json.loads(text)


def old_ingress(kept: dict[str, Json]) -> None:
    _copied(
        kept,
        "networking",
        ["Ingress", "IngressSpec", "IngressRule", "HTTPIngressRuleValue", "HTTPIngressPath", "IngressBackend"],
    )
    backend = kept[_PACKAGE + "networking.v1beta1.IngressBackend"]["properties"]
    del backend["service"]
    backend["serviceName"] = {"description": "Name of the referenced service.", "type": "string"}
    backend["servicePort"] = {
        "$ref": _REF + _MACHINERY + "util.intstr.IntOrString",
        "description": "Port of the referenced service.",
    }
    spec = kept[_PACKAGE + "networking.v1beta1.IngressSpec"]["properties"]
    spec["backend"] = spec.pop("defaultBackend")
    path = kept[_PACKAGE + "networking.v1beta1.HTTPIngressPath"]
    path["required"] = ["backend"]


def old_endpoint_slice(kept: dict[str, Json]) -> None:
    _copied(kept, "discovery", ["EndpointSlice", "Endpoint"])
    endpoint = kept[_PACKAGE + "discovery.v1beta1.Endpoint"]["properties"]
    endpoint["topology"] = endpoint.pop("deprecatedTopology")
    del endpoint["zone"]


def api_classes() -> Iterator[tuple[str, Json]]:
    """(base class, API facts) of each resource class of lightkube-models, read from its source text."""
    for path in installed_file("lightkube-models", ".py"):
        if path.parent.name != "resources":
            continue
        for node in ast.parse(path.read_text("utf-8")).body:
            if not isinstance(node, ast.ClassDef):
                continue
            call = next(
                (s.value for s in node.body if isinstance(s, ast.Assign) and isinstance(s.value, ast.Call)), None
            )
            base = node.bases[0]
            if call is None or not isinstance(base, ast.Attribute):
                continue
            facts: Json = {}
            for keyword in call.keywords:
                value = keyword.value
                facts[keyword.arg or ""] = (
                    tuple(ast.literal_eval(a) for a in value.args)
                    if isinstance(value, ast.Call)
                    else ast.literal_eval(value)
                )
            yield base.attr, facts


def verbs(raw: list[str]) -> list[str]:
    return sorted({_VERB.get(verb, verb) for verb in raw})


def catalogue(kept: dict[str, Json]) -> list[Json]:
    """Every served resource in discovery order."""
    names = kind_names(kept)
    found: dict[tuple[str, str, str], Json] = {}
    subresources: dict[tuple[str, str, str], list[Json]] = {}
    for base, facts in api_classes():
        group, version, kind = facts["resource"]
        parent = facts.get("parent")
        if (parent or facts["resource"])[1] not in STABLE:
            continue
        plural = facts["plural"]
        if parent:
            entry = {
                "name": facts["action"],
                "group": group,
                "version": version,
                "kind": kind,
                "verbs": verbs(facts["verbs"]),
            }
            subresources.setdefault((parent[0], parent[1], plural), []).append(entry)
        else:
            found[(group, version, plural)] = {
                "group": group,
                "version": version,
                "kind": kind,
                "plural": plural,
                "namespaced": not base.startswith("Global"),
                "singular": kind.lower(),
                "short_names": SHORT_NAMES.get(plural, "").split(),
                "categories": CATEGORIES.get(plural, []),
                "verbs": verbs(facts["verbs"]),
                "definition": names[f"{group}/{version}/{kind}"],
                "stored_as": STORED_AS.get((group, version, kind), (group, version)),
                "preferred": version == PREFERRED.get(group, "v1"),
            }
    for plural, connects in CONNECT.items():
        subresources.setdefault(("", "v1", plural), []).extend(
            {"name": name, "group": "", "version": "v1", "kind": kind, "verbs": allowed}
            for name, (kind, allowed) in connects.items()
        )
    for key, entry in found.items():
        entry["subresources"] = sorted(subresources.get(key, []), key=lambda one: str(one["name"]))
    found[("", "v1", "componentstatuses")]["verbs"] = ["get", "list"]
    for group, old, stable, kinds in OLD_BETAS:
        for entry in [e for (g, v, _), e in found.items() if g == group and v == stable and e["kind"] in kinds]:
            alias = copy.deepcopy(entry)
            alias |= {"version": old, "preferred": False, "definition": names[f"{group}/{old}/{entry['kind']}"]}
            for one in alias["subresources"]:
                if one["group"] == group:
                    one["version"] = old
            found[(group, old, entry["plural"])] = alias
    order = {group: place for place, group in enumerate(GROUP_ORDER)}
    return sorted(found.values(), key=lambda e: (order[e["group"]], version_rank(e["version"]), e["plural"]))


def version_rank(version: str) -> tuple[int, int, int]:
    """Kubernetes' version priority, best first: v2 before v1 before v2beta2 before v1beta1."""
    head, beta, minor = version[1:].partition("beta")
    return (1 if beta else 0, -int(head), -int(minor or 0))


def kind_names(kept: dict[str, Json]) -> dict[str, str]:
    """``group/version/kind`` -> definition name."""
    return {
        f"{one['group']}/{one['version']}/{one['kind']}": name
        for name, schema in kept.items()
        for one in schema.get("x-kubernetes-group-version-kind", [])
    }


def packed(value: Any) -> bytes:
    return zlib.compress(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode(), 9)


def build() -> bytes:
    """The whole data file."""
    kept = definitions()
    missing = {ref for schema in kept.values() for ref in references(schema)} - kept.keys()
    if missing:
        raise SystemExit(f"definitions refer to what is not kept: {sorted(missing)}")
    packages: dict[str, dict[str, Json]] = {}
    for name, schema in sorted(kept.items()):
        packages.setdefault(name.rpartition(".")[0], {})[name] = schema
    blocks, index, offset = [], {}, 0
    for package, content in packages.items():
        block = packed(content)
        index[package] = {"offset": offset, "length": len(block), "names": [n.rpartition(".")[2] for n in content]}
        blocks.append(block)
        offset += len(block)
    header = packed(
        {"kubernetes": KUBERNETES, "catalogue": catalogue(kept), "kinds": kind_names(kept), "blocks": index}
    )
    return MAGIC + struct.pack(">I", len(header)) + header + b"".join(blocks)


def write(root: Path) -> Path:
    """Write the data file below a source tree, atomically; the file is left alone when nothing changed."""
    target = root / TARGET
    data = build()
    if not target.exists() or target.read_bytes() != data:
        scratch = target.with_suffix(".new")
        scratch.write_bytes(data)
        scratch.replace(target)
    return target


if __name__ == "__main__":
    path = write(Path(__file__).resolve().parent.parent)
    sys.stdout.write(f"{path.name}: {path.stat().st_size} bytes\n")
