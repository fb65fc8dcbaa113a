"""What a pod needs beside it on the host: copies of its ConfigMaps and Secrets, and tokens of its ServiceAccount.

Only what a pod names goes down, and it goes again when no pod of the cluster names it any more. Tokens are issued by the
guest's own API for the guest's own pod, so they are good there and nowhere else, and die with the pod; they are renewed
after four fifths of their life, as a kubelet does.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from fleetplane.client.protocol import Client
from fleetplane.client.snapshot import ObjectKey
from fleetplane.controller import Manager
from fleetplane.model.builtin.types import CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS
from fleetplane.model.environment import parse_timestamp, timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata, uid
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.model.resources import ResourceType
from fleetplane.operators.vclusters.guests import ROOT, Guests, delete, guest_key
from fleetplane.operators.vclusters.kinds import GROUP, OWNER_UID
from fleetplane.operators.vclusters.translate import Guest, Translation, marks, token_secret

RENEW_AT: Final = f"{GROUP}/renew-at"
REFRESH_SECONDS: Final = 60.0
"""How often what pods read is compared with what they were given: a kubelet's own period."""
RETRY_SECONDS: Final = 2.0
"""How often a pod that cannot start looks for what it names and the guest has not made yet."""
_TYPES: Final = frozenset(
    {
        "kubernetes.io/dockerconfigjson",
        "kubernetes.io/dockercfg",
        "kubernetes.io/tls",
        "kubernetes.io/basic-auth",
        "kubernetes.io/ssh-auth",
    }
)


class Copies:
    def __init__(self, manager: Manager, guests: Guests) -> None:
        self._environment = manager.environment
        self._guests = guests
        self._informers = {
            CONFIG_MAPS: manager.informer(CONFIG_MAPS, labels=OWNER_UID),
            SECRETS: manager.informer(SECRETS, labels=OWNER_UID),
        }

    async def missing(self, pod: Object, guest: Guest, needs: Translation) -> list[tuple[ResourceType, Object]]:
        """What has to be created for a pod; copies that exist already are brought up to date on the way."""
        client = self._guests.client(guest.cluster)
        wanted = [self._copy(client, CONFIG_MAPS, pod, guest, name) for name in sorted(needs.config_maps)]
        wanted += [self._copy(client, SECRETS, pod, guest, name) for name in sorted(needs.secrets)]
        if needs.tokens:
            wanted.append(self._tokens(client, pod, guest, needs))
        made = await asyncio.gather(*wanted)
        return [one for one in made if one is not None]

    async def create(self, missing: list[tuple[ResourceType, Object]]) -> None:
        """One by one; what somebody else has made meanwhile is fine."""
        for resource, obj in missing:
            try:
                await self._guests.root.create(resource, obj)
            except ApiError as error:
                if error.reason != "AlreadyExists":
                    raise

    def refresh_after(self, pod: Object, guest: Guest, needs: Translation, *, waits: bool = False) -> float | None:
        """Seconds until ``missing`` should be asked again for a pod; sooner where it still ``waits`` for what is not there."""
        left = [REFRESH_SECONDS] if needs.config_maps or needs.secrets else []
        if waits and left and self._lacks(guest, metadata(pod)["namespace"], needs):
            left.append(RETRY_SECONDS)
        if needs.tokens:
            found = self._cached(SECRETS, guest, token_secret(guest, pod))
            due = annotations_of(found or {}).get(RENEW_AT)
            left.append((parse_timestamp(due) - self._environment.now()).total_seconds() if due else 1.0)
        return max(1.0, min(left)) if left else None

    def _lacks(self, guest: Guest, namespace: str, needs: Translation) -> bool:
        """Whether something a pod names has no copy, because the guest has not made it yet."""
        named = [(CONFIG_MAPS, name) for name in needs.config_maps] + [(SECRETS, name) for name in needs.secrets]
        return any(self._cached(resource, guest, guest.host_name(name, namespace)) is None for resource, name in named)

    async def sweep(self, guest: Guest, pod_uid: str, spec: Mapping[str, Any]) -> None:
        """After a pod has gone: what its spec on the host named and no other pod of the cluster names."""
        used = _used_by(self._guests, guest, pod_uid)
        for kind, name in sorted(named(spec) - used):
            resource = CONFIG_MAPS if kind == "ConfigMap" else SECRETS
            found = self._cached(resource, guest, name)
            if found is not None and guest_key(found) is not None:
                await delete(self._guests.root, resource, found)

    def _cached(self, resource: ResourceType, guest: Guest, name: str) -> Object | None:
        return self._informers[resource].get_key(ObjectKey(ROOT, guest.namespace, name))

    async def _copy(
        self, client: Client, resource: ResourceType, pod: Object, guest: Guest, name: str
    ) -> tuple[ResourceType, Object] | None:
        namespace = metadata(pod)["namespace"]
        try:
            found = await client.get(resource, name, namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            return None  # optional, or the host's node says that it is missing
        wanted: Object = {"apiVersion": "v1", "kind": resource.kind, "metadata": marks(guest, found)}
        wanted |= {key: found[key] for key in ("data", "binaryData", "immutable") if key in found}
        if resource is SECRETS:
            wanted["type"] = found.get("type") if found.get("type") in _TYPES else "Opaque"
        copy = self._cached(resource, guest, wanted["metadata"]["name"])
        return await self._settle(resource, guest, copy, wanted)

    async def _settle(
        self, resource: ResourceType, guest: Guest, copy: Object | None, wanted: Object
    ) -> tuple[ResourceType, Object] | None:
        """A copy as it should be; what has to be created is returned."""
        if copy is None:
            return resource, wanted
        same = all(copy.get(key) == wanted.get(key) for key in ("data", "binaryData"))
        if same and annotations_of(copy) == annotations_of(wanted):
            return None
        if copy.get("immutable") or copy.get("type") != wanted.get("type"):
            await delete(self._guests.root, resource, copy)
            return resource, wanted
        patch: Object = {
            key: wanted.get(key) for key in ("data", "binaryData", "immutable") if key in wanted or key in copy
        }
        patch = _replacing(copy, patch) | {"metadata": {"annotations": annotations_of(wanted)}}
        await self._guests.root.patch(resource, metadata(copy)["name"], patch, guest.namespace)
        return None

    async def _tokens(
        self, client: Client, pod: Object, guest: Guest, needs: Translation
    ) -> tuple[ResourceType, Object] | None:
        name, meta = token_secret(guest, pod), metadata(pod)
        copy = self._cached(SECRETS, guest, name)
        known = annotations_of(copy or {})
        now = self._environment.now()
        marked = marks(guest, {"metadata": {**meta, "labels": {}}}) | {"name": name}
        if copy is not None and known.get(RENEW_AT, "") > timestamp(now) and _is_of(copy, uid(pod)):
            return None
        data: dict[str, str] = {}
        dues: list[datetime] = []
        account = str((pod.get("spec") or {}).get("serviceAccountName") or "default")
        for token in needs.tokens:
            asked: Object = {
                "expirationSeconds": max(600, token.seconds),
                "boundObjectRef": {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]},
            }
            if token.audience:
                asked["audiences"] = [token.audience]
            answer = await client.create(
                SERVICE_ACCOUNTS, {"spec": asked}, meta["namespace"], subresource="token", name=account
            )
            data[token.key] = base64.b64encode(answer["status"]["token"].encode()).decode()
            life = parse_timestamp(answer["status"]["expirationTimestamp"]) - now
            dues.append(now + timedelta(seconds=life.total_seconds() * 0.8))
        marked["annotations"][RENEW_AT] = timestamp(min(dues))
        wanted = {"apiVersion": "v1", "kind": "Secret", "metadata": marked, "type": "Opaque", "data": data}
        return await self._settle(SECRETS, guest, copy, wanted)


def _is_of(copy: Object, pod_uid: str) -> bool:
    return annotations_of(copy).get(f"{GROUP}/guest-uid") == pod_uid


def _replacing(copy: Mapping[str, Any], patch: Object) -> Object:
    """A merge patch that makes mappings equal, removing keys that are gone."""
    made: Object = {}
    for key, value in patch.items():
        if isinstance(value, Mapping) or isinstance(copy.get(key), Mapping):
            gone = dict.fromkeys(set(copy.get(key) or {}) - set(value or {}))
            made[key] = gone | dict(value or {})
        else:
            made[key] = value
    return made


def _used_by(guests: Guests, guest: Guest, but: str) -> set[tuple[str, str]]:
    """The copies that pods on the host name, by kind and name, one pod left out."""
    used: set[tuple[str, str]] = set()
    for snapshot in guests.host_pods.snapshots(guest.namespace):
        if snapshot.labels.get(OWNER_UID) == guest.owner_uid and snapshot.annotations.get(f"{GROUP}/guest-uid") != but:
            used |= set(named(snapshot.object.get("spec") or {}))
    return used


def named(spec: Mapping[str, Any]) -> set[tuple[str, str]]:
    """The ConfigMaps and Secrets a pod's spec names."""
    found: set[tuple[str, str]] = {("Secret", str(one.get("name"))) for one in spec.get("imagePullSecrets") or ()}

    def volume(one: Mapping[str, Any]) -> None:
        if one.get("configMap"):
            found.add(("ConfigMap", str(one["configMap"].get("name"))))
        if one.get("secret"):
            found.add(("Secret", str(one["secret"].get("secretName") or one["secret"].get("name"))))

    for one in spec.get("volumes") or ():
        volume(one)
        for source in (one.get("projected") or {}).get("sources") or ():
            volume(source)
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        sources = [
            *(container.get("envFrom") or ()),
            *(one.get("valueFrom") or {} for one in container.get("env") or ()),
        ]
        for source in sources:
            for key, kind in (
                ("configMapRef", "ConfigMap"),
                ("configMapKeyRef", "ConfigMap"),
                ("secretRef", "Secret"),
                ("secretKeyRef", "Secret"),
            ):
                if source.get(key):
                    found.add((kind, str(source[key].get("name"))))
    return found
