"""ServiceAccount: every pod runs as one, and gets a token for it unless somebody says no.

Fills in the account's name, its token as a projected volume in every container, and its pull secrets; refuses accounts
that do not exist. A namespace's ``default`` account is made on the spot where nobody has made it yet, so that a pod in a
new namespace does not have to wait for a controller. Follows Kubernetes' plug-in of that name, wording included.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from fleetplane.apiserver.admission.refusals import refuse
from fleetplane.apiserver.admission.views import ClusterId
from fleetplane.apiserver.kinds.access import entries, section, text
from fleetplane.model import objects
from fleetplane.model.admission import (
    ALLOWED,
    AdmissionPlugin,
    AdmissionRequest,
    AdmissionRule,
    Decision,
    Reader,
    changed,
)
from fleetplane.model.builtin.types import SERVICE_ACCOUNTS
from fleetplane.model.environment import Environment, name_suffix
from fleetplane.model.objects import Object, name, namespace

TOKEN_PATH: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a place, not a secret
DEFAULT: Final = "default"
_VOLUME_PREFIX: Final = "kube-api-access-"
_MIRROR: Final = "kubernetes.io/config.mirror"
_ENFORCE: Final = "kubernetes.io/enforce-mountable-secrets"
_TOKEN_SECONDS: Final = 3607

CreateAccount = Callable[[str, str], Awaitable[None]]
"""``create(cluster_id, namespace)`` the default account, if it is still missing."""


class Account(NamedTuple):
    """What admission needs to know of a ServiceAccount. ``mountable`` is None where any secret may be used."""

    automount: bool | None = None
    pull_secrets: tuple[str, ...] = ()
    mountable: frozenset[str] | None = None


_PLAIN: Final = Account()


class AccountView:
    """The ServiceAccounts of all clusters; fed by a follower. Most are plain, and all plain ones are one."""

    def __init__(self) -> None:
        self._accounts: dict[tuple[str, str], dict[str, Account]] = {}

    def reset(self) -> None:
        self._accounts.clear()

    def apply(self, cluster: str, account: Object, deleted: bool) -> None:
        place = (cluster, namespace(account))
        if not deleted:
            self._accounts.setdefault(place, {})[name(account)] = read_account(account)
            return
        kept = self._accounts.get(place)
        if kept is not None:
            kept.pop(name(account), None)
            if not kept:
                del self._accounts[place]

    def get(self, cluster: str, namespace: str, name: str) -> Account | None:
        found = self._accounts.get((cluster, namespace))
        return found.get(name) if found else None


def read_account(account: Mapping[str, Any]) -> Account:
    enforced = objects.annotations(account).get(_ENFORCE) in ("1", "t", "T", "true", "TRUE", "True")
    made = Account(
        account.get("automountServiceAccountToken"),
        tuple(one.get("name") or "" for one in account.get("imagePullSecrets") or ()),
        frozenset(one.get("name") or "" for one in account.get("secrets") or ()) if enforced else None,
    )
    return _PLAIN if made == _PLAIN else made


def service_account_plugins(
    accounts: AccountView, cluster_id: ClusterId, environment: Environment, create_default: CreateAccount
) -> list[AdmissionPlugin]:
    async def find(request: AdmissionRequest, reader: Reader, wanted: str) -> Account | None:
        cluster, place = cluster_id(request.cluster), request.namespace
        found = accounts.get(cluster, place, wanted)
        if found is not None:
            return found
        stored = await reader.get(SERVICE_ACCOUNTS, wanted, place)
        if stored is None and wanted == DEFAULT:
            if not request.dry_run:
                await create_default(cluster, place)
            return _PLAIN
        return None if stored is None else read_account(stored)

    def missing(request: AdmissionRequest, wanted: str) -> Decision:
        return refuse(
            request,
            f'error looking up service account {request.namespace}/{wanted}: serviceaccount "{wanted}" not found',
        )

    async def fill(request: AdmissionRequest, reader: Reader) -> Decision:
        pod = request.new or {}
        spec = dict(section(pod, "spec"))
        if _MIRROR in objects.annotations(pod):
            return ALLOWED
        wanted = text(spec, "serviceAccountName") or DEFAULT
        spec["serviceAccountName"] = spec["serviceAccount"] = wanted
        account = await find(request, reader, wanted)
        if account is None:
            return missing(request, wanted)
        if _wants_token(spec, account):
            _mount_token(spec, environment)
        if account.pull_secrets and not spec.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [{"name": one} for one in account.pull_secrets]
        return changed({**pod, "spec": spec})

    async def check(request: AdmissionRequest, reader: Reader) -> Decision:
        pod = request.new or {}
        spec = pod["spec"]
        if _MIRROR in objects.annotations(pod):
            problem = _wrong_with_mirror(spec)
            return refuse(request, problem) if problem else ALLOWED
        wanted = spec.get("serviceAccountName") or DEFAULT
        account = await find(request, reader, wanted)
        if account is None:
            return missing(request, wanted)
        if account.mountable is None:
            return ALLOWED
        forbidden = next(_secrets_not_allowed(spec, wanted, account), "")
        return refuse(request, forbidden) if forbidden else ALLOWED

    return [
        AdmissionPlugin(
            "serviceaccount.fleetplane.io", "mutate", [AdmissionRule(["pods"], ["CREATE"])], fill, order=110
        ),
        AdmissionPlugin(
            "secrets.serviceaccount.fleetplane.io",
            "validate",
            [AdmissionRule(["pods"], ["CREATE"]), AdmissionRule(["pods"], ["UPDATE"], ["ephemeralcontainers"])],
            check,
            order=110,
        ),
    ]


# -- the token -------------------------------------------------------------------------------------------------------


def _wants_token(spec: Object, account: Account) -> bool:
    """The pod's word counts first, then the account's."""
    for word in (spec.get("automountServiceAccountToken"), account.automount):
        if isinstance(word, bool):
            return word
    return True


def _mount_token(spec: Object, environment: Environment) -> None:
    """Mount the token where nothing else is mounted; ``spec`` is ours, what is in it is not."""
    volumes = entries(spec, "volumes")
    volume = next((text(one, "name") for one in volumes if text(one, "name").startswith(_VOLUME_PREFIX)), "")
    known = bool(volume)
    volume = volume or _VOLUME_PREFIX + name_suffix(environment)
    mount = {"mountPath": TOKEN_PATH, "name": volume, "readOnly": True}
    needed = False
    for key in ("initContainers", "containers"):
        if not spec.get(key):
            continue
        made = []
        for container in entries(spec, key):
            mounts = entries(container, "volumeMounts")
            if any(one.get("mountPath") == TOKEN_PATH for one in mounts):
                made.append(container)
            else:
                made.append({**container, "volumeMounts": [*mounts, mount]})
                needed = True
        spec[key] = made
    if needed and not known:
        spec["volumes"] = [*volumes, _token_volume(volume)]


def _token_volume(volume: str) -> Object:
    field = {"apiVersion": "v1", "fieldPath": "metadata.namespace"}
    return {
        "name": volume,
        "projected": {
            "defaultMode": 0o644,
            "sources": [
                {"serviceAccountToken": {"expirationSeconds": _TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"items": [{"key": "ca.crt", "path": "ca.crt"}], "name": "kube-root-ca.crt"}},
                {"downwardAPI": {"items": [{"fieldRef": field, "path": "namespace"}]}},
            ],
        },
    }


# -- what may be referred to -----------------------------------------------------------------------------------------


def _wrong_with_mirror(spec: Mapping[str, Any]) -> str:
    if spec.get("serviceAccountName"):
        return "a mirror pod may not reference service accounts"
    volumes = spec.get("volumes") or ()
    if any(one.get("secret") for one in volumes) or any(True for _ in _used_secrets(spec)):
        return "a mirror pod may not reference secrets"
    sources = [source for one in volumes for source in (one.get("projected") or {}).get("sources") or ()]
    if any(source.get("secret") for source in sources) or spec.get("imagePullSecrets"):
        return "a mirror pod may not reference secrets"
    if any(source.get("serviceAccountToken") for source in sources):
        return "a mirror pod may not use ServiceAccountToken volume projections"
    return ""


def _used_secrets(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(who refers to it and how, secret) for the environments of all containers."""
    for key, word in (
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ):
        for container in spec.get(key) or ():
            for variable in container.get("env") or ():
                found = ((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name")
                if found:
                    yield f"{word} {container['name']} with envVar {variable['name']}", found
            for source in container.get("envFrom") or ():
                found = (source.get("secretRef") or {}).get("name")
                if found:
                    yield f"{word} {container['name']} with envFrom", found


def _secrets_not_allowed(spec: Mapping[str, Any], name: str, account: Account) -> Iterator[str]:
    mountable = account.mountable or frozenset()
    because = f"is not allowed because service account {name} does not reference that"
    for volume in spec.get("volumes") or ():
        secret = (volume.get("secret") or {}).get("secretName")
        if secret and secret not in mountable:
            yield f'volume with secret.secretName="{secret}" {because} secret'
    for where, secret in _used_secrets(spec):
        if secret not in mountable:
            yield f'{where} referencing secret.secretName="{secret}" {because} secret'
    for index, reference in enumerate(spec.get("imagePullSecrets") or ()):
        if reference.get("name") not in account.pull_secrets:
            yield f'imagePullSecrets[{index}].name="{reference.get("name")}" {because} imagePullSecret'
