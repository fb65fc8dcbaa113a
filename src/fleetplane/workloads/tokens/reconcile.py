"""Deletes bootstrap tokens (KEP-130) when they expire. A token without a date lives on; one with a bad date does not."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from fleetplane.client.informer import Informer
from fleetplane.controller.controller import Controller, Request, Result
from fleetplane.model.builtin.types import SECRETS
from fleetplane.model.environment import parse_timestamp
from fleetplane.model.objects import uid
from fleetplane.workloads.shared.actor import Actor

TYPE: Final = "bootstrap.kubernetes.io/token"
NAMESPACE: Final = "kube-system"
FIELDS: Final = f"type={TYPE}"


class TokenCleaner:
    def __init__(self, actor: Actor, secrets: Informer) -> None:
        self._actor = actor
        self._secrets = secrets

    def controller(self) -> Controller:
        return Controller(
            "token-cleaner", SECRETS, self.reconcile, namespace=NAMESPACE, fields=FIELDS, max_concurrent=1, resync=None
        )

    async def reconcile(self, request: Request) -> Result | None:
        secret = self._secrets.get_key(request)
        if secret is None:
            return None
        left = seconds_left(secret, self._actor.environment.now())
        if left is None:
            return None
        if left > 0:
            return Result(requeue_after=left)
        await self._actor.delete(request.cluster, SECRETS, request.namespace, request.name, uid(secret))
        return None


def seconds_left(secret: Mapping[str, Any], now: datetime) -> float | None:
    """Until the token expires; None: never. What cannot be read has expired."""
    if secret.get("type") != TYPE:
        return None
    written = (secret.get("data") or {}).get("expiration")
    if not written:
        return None
    try:
        return (parse_timestamp(base64.b64decode(written, validate=True).decode()) - now).total_seconds()
    except (ValueError, binascii.Error):
        return 0.0
