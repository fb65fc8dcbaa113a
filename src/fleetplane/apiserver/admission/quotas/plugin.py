"""The admission plug-in: last of all, so that nothing is claimed for a request that others refuse."""

from __future__ import annotations

from typing import Final

from fleetplane.apiserver.admission.quotas.checking import DoesNotFit
from fleetplane.apiserver.admission.quotas.ledger import QuotaLedger, wanted_by
from fleetplane.apiserver.admission.refusals import refuse
from fleetplane.apiserver.admission.views import ClusterId
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    mutating,
)
from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object

ORDER: Final = 1_000_000
_NOT_COUNTED: Final = frozenset({"events", "events.events.k8s.io", "namespaces"})


def quota_plugins(ledger: QuotaLedger, cluster_id: ClusterId, environment: Environment) -> list[AdmissionPlugin]:
    async def claim(request: AdmissionRequest, _reader: Reader) -> Decision:
        resource, new = request.resource, request.new
        if not request.namespace or not resource.namespaced or new is None or resource.qualified in _NOT_COUNTED:
            return ALLOWED
        cluster = cluster_id(request.cluster)
        if not ledger.watches(cluster, request.namespace):
            return ALLOWED
        wanted = wanted_by(resource.group, resource.plural, new, request.old, environment)
        try:
            taken = await ledger.claim(cluster, request.namespace, wanted, dry_run=request.dry_run)
        except DoesNotFit as error:
            return refuse(request, str(error))
        return ALLOWED if taken is None else Decision(claim=taken)

    rules = [
        AdmissionRule(["*"], ["CREATE"]),
        AdmissionRule(["services", "persistentvolumeclaims"], ["UPDATE"]),
        AdmissionRule(["pods"], ["UPDATE"], ["resize"]),
    ]
    return [
        AdmissionPlugin("resourcequota.fleetplane.io", "validate", rules, claim, ORDER),
        mutating(
            "usage.resourcequota.fleetplane.io",
            [AdmissionRule(["resourcequotas"], ["UPDATE"], ["status"])],
            _keep_usage,
        ),
    ]


def _keep_usage(request: AdmissionRequest) -> Object:
    """Usage is the ledger's: who counts from a cache would forget what was claimed a moment ago."""
    new = request.new or {}
    status, before = new.get("status"), (request.old or {}).get("status") or {}
    if not isinstance(status, dict) or status.get("used") == before.get("used"):
        return new
    kept = {key: value for key, value in status.items() if key != "used"}
    return {**new, "status": kept | ({"used": before["used"]} if "used" in before else {})}
