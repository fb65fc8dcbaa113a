"""Admission of CustomResourceDefinitions: names and conditions are filled in, what cannot be served is refused."""

from __future__ import annotations

from fleetplane.apiserver.clusters import Clusters
from fleetplane.apiserver.crds import CLEANUP_FINALIZER, with_conditions
from fleetplane.apiserver.definition_rules import check_definition
from fleetplane.apiserver.registry import Registry
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    changed,
    refused,
)
from fleetplane.model.environment import Environment, timestamp
from fleetplane.model.jsonvalue import copied
from fleetplane.model.objects import Object

_RULES = (AdmissionRule(["customresourcedefinitions.apiextensions.k8s.io"], ("CREATE", "UPDATE"), ("", "status")),)


def definition_plugins(registry: Registry, clusters: Clusters, environment: Environment) -> list[AdmissionPlugin]:
    """The plug-ins for definitions of all clusters."""

    async def complete(request: AdmissionRequest, _reader: Reader) -> Decision:
        if request.new is None:
            return ALLOWED
        definition = copied(request.new)
        cluster = clusters.resolve(request.cluster) or request.cluster
        try:
            if request.old is not None:
                definition.setdefault("status", copied(request.old.get("status") or {}))
            _fill_in(definition)
            return changed(with_conditions(definition, registry, cluster, timestamp(environment.now())))
        except (KeyError, TypeError, AttributeError):
            return ALLOWED  # the check against the schema, which follows, says what is wrong with it

    async def check(request: AdmissionRequest, _reader: Reader) -> Decision:
        return refused(request, check_definition(request.new, request.old)) if request.new is not None else ALLOWED

    return [
        AdmissionPlugin("definitions.fleetplane.io", "mutate", _RULES, complete, order=-100),
        AdmissionPlugin("definition-rules.fleetplane.io", "validate", _RULES, check, order=-100, timeout=60),
    ]


def _fill_in(definition: Object) -> None:
    names = definition["spec"]["names"]
    names.setdefault("singular", names["kind"].lower())
    names.setdefault("listKind", names["kind"] + "List")
    definition["spec"].setdefault("conversion", {"strategy": "None"})
    metadata = definition["metadata"]
    if not metadata.get("deletionTimestamp"):
        finalizers = metadata.setdefault("finalizers", [])
        if CLEANUP_FINALIZER not in finalizers:
            finalizers.append(CLEANUP_FINALIZER)
