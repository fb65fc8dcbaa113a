"""What every namespace gets: a ServiceAccount named ``default``, and the certificate its pods trust the server by."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fleetplane.client.informer import Informer
from fleetplane.client.snapshot import Snapshot
from fleetplane.controller.controller import Controller, Request, Watch
from fleetplane.model.builtin.types import CONFIG_MAPS, NAMESPACES, SERVICE_ACCOUNTS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, name, resource_version, uid
from fleetplane.workloads.shared.actor import Actor, is_namespace_ending

ACCOUNT: Final = "default"
ROOT_CA: Final = "kube-root-ca.crt"
ACCOUNT_FIELDS: Final = f"metadata.name={ACCOUNT}"
ROOT_CA_FIELDS: Final = f"metadata.name={ROOT_CA}"


class Accounts:
    """Keeps the ``default`` ServiceAccount in every namespace; who deletes it gets a new one."""

    def __init__(self, actor: Actor, namespaces: Informer, accounts: Informer) -> None:
        self._actor = actor
        self._namespaces = namespaces
        self._accounts = accounts

    def controller(self) -> Controller:
        watch = Watch(SERVICE_ACCOUNTS, _namespace_of, fields=ACCOUNT_FIELDS)
        return Controller("serviceaccount", NAMESPACES, self.reconcile, watches=[watch], resync=None)

    async def reconcile(self, request: Request) -> None:
        namespace = self._namespaces.get_key(request)
        if namespace is None or is_deleting(namespace):
            return
        if self._accounts.get(ACCOUNT, request.name, cluster=request.cluster) is None:
            account = {"metadata": {"name": ACCOUNT, "namespace": request.name}}
            await _create(self._actor, request.cluster, request.name, account)


async def _create(actor: Actor, cluster: str, space: str, account: Object) -> None:
    try:
        await actor.client(cluster).create(SERVICE_ACCOUNTS, account, space)
    except ApiError as error:
        if error.reason != "AlreadyExists" and error.code != 404 and not is_namespace_ending(error):
            raise


class RootCertificates:
    """Publishes the certificate authority of the server (PEM) in every namespace, and keeps it as it should be."""

    def __init__(self, actor: Actor, namespaces: Informer, config_maps: Informer, certificate: str) -> None:
        self._actor = actor
        self._namespaces = namespaces
        self._config_maps = config_maps
        self._wanted = {"ca.crt": certificate}

    def controller(self) -> Controller:
        watch = Watch(CONFIG_MAPS, _namespace_of, fields=ROOT_CA_FIELDS)
        return Controller("root-ca-certificate-publisher", NAMESPACES, self.reconcile, watches=[watch], resync=None)

    async def reconcile(self, request: Request) -> None:
        namespace = self._namespaces.get_key(request)
        if namespace is None or is_deleting(namespace):
            return
        client = self._actor.client(request.cluster)
        current = self._config_maps.get(ROOT_CA, request.name, cluster=request.cluster)
        try:
            if current is None:
                wanted = {"metadata": {"name": ROOT_CA, "namespace": request.name}, "data": self._wanted}
                await client.create(CONFIG_MAPS, wanted, request.name)
            elif current.get("data") != self._wanted:
                dropped = {key: None for key in current.get("data") or {} if key not in self._wanted}
                guard = {"uid": uid(current), "resourceVersion": resource_version(current)}
                patch = {"metadata": guard, "data": {**dropped, **self._wanted}}
                await client.patch(CONFIG_MAPS, name(current), patch, request.name)
        except ApiError as error:
            if error.reason != "AlreadyExists" and error.code != 404 and not is_namespace_ending(error):
                raise


def _namespace_of(snapshot: Snapshot) -> Iterable[Request]:
    return (Request(snapshot.key.cluster, "", snapshot.key.namespace),)
