"""ServiceAccount tokens for pods: asked for once, kept while they are good, renewed well before they expire.

A token is renewed after four fifths of its life (or a day), so that a control plane that is away for a while takes
nobody's token along; until a new one can be had the old one is served. Tokens live in memory and in the pod's volume,
nowhere else, and are never logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from fleetplane.model.environment import Environment
from fleetplane.model.objects import Object
from fleetplane.node.building import ConfigFailure
from fleetplane.node.pod import PodView
from fleetplane.node.sources import Sources

SHORTEST_SECONDS: Final = 600
LONGEST_USE: Final = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    made: datetime
    expires: datetime

    def is_due(self, now: datetime) -> bool:
        return now >= self.made + min((self.expires - self.made) * 0.8, LONGEST_USE)


class Tokens:
    """One node's tokens by pod, audience and lifetime."""

    def __init__(self, sources: Sources, environment: Environment) -> None:
        self._sources = sources
        self._environment = environment
        self._known: dict[tuple[str, str, int], _Token] = {}

    async def token(self, pod: PodView, audience: str, seconds: int) -> str:
        """A good token. Raises ConfigFailure when there is none and none can be had."""
        key, now = (pod.uid, audience, seconds), self._environment.now()
        known = self._known.get(key)
        if known is not None and not known.is_due(now):
            return known.text
        body: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": max(SHORTEST_SECONDS, seconds),
                "boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": pod.name, "uid": pod.uid},
            },
        }
        if audience:
            body["spec"]["audiences"] = [audience]
        try:
            text, expires = await self._sources.token(pod.namespace, pod.service_account, body)
        except ConfigFailure:
            if known is not None and known.expires > now:
                return known.text
            raise
        self._known[key] = _Token(text, now, expires)
        return text

    def forget(self, uid: str) -> None:
        for key in [key for key in self._known if key[0] == uid]:
            del self._known[key]
