"""Ends namespaces: pods first, then everything else there is, then the namespace itself.

What there is comes from discovery, so custom resources go too. The server lets nobody create anything in a namespace
that is ending, so a list that finds nothing is the truth.
"""

from __future__ import annotations

from typing import Final

from fleetplane.client.discovery import Discovered, discover
from fleetplane.client.informer import Informer
from fleetplane.client.protocol import Client
from fleetplane.controller.controller import Controller, Request, Result
from fleetplane.model.builtin.types import NAMESPACES
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, finalizers, name, uid
from fleetplane.workloads.namespaces.plan import FINALIZER, Content, is_ending, status
from fleetplane.workloads.shared.actor import Actor

_FIRST_LOOK: Final = 0.25
_LAST_LOOK: Final = 15.0


class Namespaces:
    def __init__(self, actor: Actor, namespaces: Informer) -> None:
        self._actor = actor
        self._namespaces = namespaces
        self._looks: dict[str, int] = {}

    def controller(self) -> Controller:
        return Controller("namespace", NAMESPACES, self.reconcile, max_concurrent=4, resync=None)

    async def reconcile(self, request: Request) -> Result | None:
        namespace = self._namespaces.get_key(request)
        if namespace is None or not is_ending(namespace):
            return None
        content = await self._empty(self._actor.client(request.cluster), name(namespace))
        if not content.is_gone:
            new = status(namespace, content, self._actor.environment.now())
            await self._actor.write_status(request.cluster, NAMESPACES, namespace, new)
            return Result(requeue_after=self._wait(uid(namespace)))
        self._looks.pop(uid(namespace), None)
        await self._finalize(request.cluster, namespace)
        return None

    def _wait(self, namespace_uid: str) -> float:
        """Looks again soon, then more and more rarely: something may take its time to finalize."""
        looks = self._looks[namespace_uid] = self._looks.get(namespace_uid, 0) + 1
        return float(min(_FIRST_LOOK * 1.5 ** min(looks, 20), _LAST_LOOK))

    async def _empty(self, client: Client, space: str) -> Content:
        content = Content()
        try:
            catalogue = await discover(client)
        except ApiError as error:
            content.undiscovered = error.message
            return content
        found = [one for one in catalogue.preferred() if one.type.namespaced and {"list", "delete"} <= one.verbs]
        pods = [one for one in found if one.type.qualified == "pods"]
        others = [one for one in found if one.type.qualified != "pods"]
        for one in pods:
            await self._delete_all(client, space, one, content)
        if content.is_gone:
            for one in others:
                await self._delete_all(client, space, one, content)
        return content

    async def _delete_all(self, client: Client, space: str, one: Discovered, content: Content) -> None:
        """Deletes all objects of one resource, and notes what stays for now."""
        try:
            if not (await client.list(one.type, space, limit=1)).items:
                return
            if "deletecollection" in one.verbs:
                await client.delete_collection(one.type, space, propagation="Background")
            else:
                for obj in await self._left(client, space, one):
                    await _delete_one(client, one, space, obj)
            left = await self._left(client, space, one)
        except ApiError as error:
            if error.code in {404, 405}:
                return  # no longer served, or not for us to empty
            content.failures.append(f"{one.type.qualified}: {error.message}")
            return
        if left:
            content.remaining[_named(one)] = len(left)
        for obj in left:
            for finalizer in finalizers(obj):
                content.finalizers[finalizer] = content.finalizers.get(finalizer, 0) + 1

    @staticmethod
    async def _left(client: Client, space: str, one: Discovered) -> list[Object]:
        return [obj async for obj in client.iterate(one.type, space)]

    async def _finalize(self, cluster: str, namespace: Object) -> None:
        """Takes our finalizer off; the server removes the namespace when it was the last."""
        kept = [one for one in namespace["spec"].get("finalizers") or [] if one != FINALIZER]
        freed = {**namespace, "spec": {**namespace["spec"], "finalizers": kept}}
        try:
            await self._actor.client(cluster).update(NAMESPACES, freed, subresource="finalize")
        except ApiError as error:
            if error.code != 404:
                raise


def _named(one: Discovered) -> str:
    """Resource and group with a dot between, also where the group is empty: as Kubernetes prints it."""
    return f"{one.type.plural}.{one.type.group}"


async def _delete_one(client: Client, one: Discovered, space: str, obj: Object) -> None:
    try:
        await client.delete(one.type, name(obj), space, uid=uid(obj), propagation="Background")
    except ApiError as error:
        if error.code not in {404, 409}:
            raise
