"""Who makes a request: what authentication finds and what authorization, admission and audit are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from fleetplane.model.objects import Object

ANONYMOUS_NAME: Final = "system:anonymous"
AUTHENTICATED_GROUP: Final = "system:authenticated"
UNAUTHENTICATED_GROUP: Final = "system:unauthenticated"
MASTERS_GROUP: Final = "system:masters"
SERVICE_ACCOUNT_PREFIX: Final = "system:serviceaccount:"
NODE_PREFIX: Final = "system:node:"


@dataclass(frozen=True, slots=True)
class UserInfo:
    """An authenticated identity, as ``authentication.k8s.io/v1`` UserInfo has it."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def in_group(self, group: str) -> bool:
        return group in self.groups

    def service_account(self) -> tuple[str, str] | None:
        """(namespace, name) when this is a ServiceAccount."""
        if not self.name.startswith(SERVICE_ACCOUNT_PREFIX):
            return None
        namespace, _, name = self.name[len(SERVICE_ACCOUNT_PREFIX) :].partition(":")
        return (namespace, name) if namespace and name else None

    def to_object(self) -> Object:
        """The JSON form (``username``, ``uid``, ``groups``, ``extra``); absent parts are left out."""
        shown: Object = {"username": self.name}
        if self.uid:
            shown["uid"] = self.uid
        if self.groups:
            shown["groups"] = list(self.groups)
        if self.extra:
            shown["extra"] = {key: list(values) for key, values in self.extra.items()}
        return shown

    @classmethod
    def from_object(cls, data: Mapping[str, Any]) -> UserInfo:
        return cls(
            name=str(data.get("username") or ""),
            uid=str(data.get("uid") or ""),
            groups=tuple(str(group) for group in data.get("groups") or ()),
            extra={str(key): tuple(str(v) for v in values) for key, values in (data.get("extra") or {}).items()},
        )


def service_account_user(namespace: str, name: str, uid: str = "") -> UserInfo:
    """The identity of a ServiceAccount, with the groups Kubernetes gives it."""
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED_GROUP)
    return UserInfo(f"{SERVICE_ACCOUNT_PREFIX}{namespace}:{name}", uid, groups)


def anonymous() -> UserInfo:
    return UserInfo(ANONYMOUS_NAME, groups=(UNAUTHENTICATED_GROUP,))


def with_groups(user: UserInfo, groups: Sequence[str]) -> UserInfo:
    """The same user, also in ``groups``; order kept, no duplicates."""
    return UserInfo(user.name, user.uid, tuple(dict.fromkeys((*user.groups, *groups))), user.extra)
