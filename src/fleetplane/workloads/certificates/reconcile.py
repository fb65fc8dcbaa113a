"""Walks requests through approval and signing.

Who may have what and how it is signed is decided by two functions the plane gives us: keys and rules of authorization
are the server's. Here is only reading, asking, writing, and forgetting requests after their time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from fleetplane.client.informer import Informer
from fleetplane.controller.controller import Controller, Request, Result
from fleetplane.controller.predicates import any_change
from fleetplane.model.builtin.types import CERTIFICATE_SIGNING_REQUESTS
from fleetplane.model.environment import parse_timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, condition, metadata, name, resource_version, uid
from fleetplane.workloads.shared.actor import Actor

Approve = Callable[[Object, str], Object | None]
"""(request, cluster) -> the Approved condition to add, or None."""
Sign = Callable[[Object, str], Object | None]
"""(request, cluster) -> the status to merge (a certificate, or a Failed condition), or None."""

_DONE: Final = timedelta(hours=1)
_PENDING: Final = timedelta(hours=24)


class Certificates:
    def __init__(self, actor: Actor, requests: Informer, approve: Approve, sign: Sign) -> None:
        self._actor = actor
        self._requests = requests
        self._approve = approve
        self._sign = sign

    def controller(self) -> Controller:
        return Controller(
            "certificates",
            CERTIFICATE_SIGNING_REQUESTS,
            self.reconcile,
            predicate=any_change,
            max_concurrent=2,
            resync=None,
        )

    async def reconcile(self, request: Request) -> Result | None:
        csr = self._requests.get_key(request)
        if csr is None:
            return None
        client = self._actor.client(request.cluster)
        approval = self._approve(csr, request.cluster)
        if approval is not None:
            found = (csr.get("status") or {}).get("conditions") or []
            changed = {**csr, "status": {**(csr.get("status") or {}), "conditions": [*found, approval]}}
            csr = await client.update(CERTIFICATE_SIGNING_REQUESTS, changed, subresource="approval")
        status = self._sign(csr, request.cluster)
        if status is not None:
            patch = {"metadata": {"resourceVersion": resource_version(csr)}, "status": status}
            await client.patch(CERTIFICATE_SIGNING_REQUESTS, name(csr), patch, subresource="status")
        left = seconds_to_keep(csr, self._actor.environment.now())
        if left > 0:
            return Result(requeue_after=left)
        try:
            await client.delete(CERTIFICATE_SIGNING_REQUESTS, name(csr), uid=uid(csr))
        except ApiError as error:
            if error.code not in {404, 409}:
                raise
        return None


def seconds_to_keep(csr: Mapping[str, Any], now: datetime) -> float:
    """How long a request stays: a day while it waits, an hour once it is signed, denied or failed."""
    ends: list[datetime] = []
    created = metadata(csr).get("creationTimestamp")
    for kind in ("Denied", "Failed"):
        found = condition(csr, kind)
        if found is not None:
            moment = found.get("lastUpdateTime") or found.get("lastTransitionTime") or created
            ends.append(parse_timestamp(str(moment)) + _DONE)
    approved = condition(csr, "Approved")
    if approved is not None and (csr.get("status") or {}).get("certificate"):
        moment = approved.get("lastUpdateTime") or approved.get("lastTransitionTime") or created
        ends.append(parse_timestamp(str(moment)) + _DONE)
    if not ends and created:
        ends.append(parse_timestamp(created) + _PENDING)
    return (min(ends) - now).total_seconds() if ends else _PENDING.total_seconds()
