"""Acting as somebody else: allowed name by name, group by group, extra by extra (Kubernetes user impersonation).

Each part is one question to the authorizer with the verb ``impersonate``, asked as the real user. The answer is a user
that carries nothing of the real one; audit keeps both.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from fleetplane.apiserver.authentication.headers import Impersonation
from fleetplane.apiserver.authorization.attributes import Attributes, Authorizer, forbidden
from fleetplane.model.user import (
    ANONYMOUS_NAME,
    AUTHENTICATED_GROUP,
    SERVICE_ACCOUNT_PREFIX,
    UNAUTHENTICATED_GROUP,
    UserInfo,
    service_account_user,
)

_GROUP: Final = "authentication.k8s.io"


def impersonate(user: UserInfo, wanted: Impersonation, authorizer: Authorizer, cluster: str) -> UserInfo:
    """The user to go on as. Raises 403 for the first part that ``user`` may not impersonate."""
    for attributes in _questions(user, wanted, cluster):
        decision = authorizer(attributes)
        if not decision.allowed:
            raise forbidden(attributes, decision.reason)
    groups = wanted.groups
    account = UserInfo(wanted.user).service_account()
    if account is not None and not groups:
        groups = service_account_user(*account).groups
    if wanted.user == ANONYMOUS_NAME:
        groups = groups or (UNAUTHENTICATED_GROUP,)
    elif UNAUTHENTICATED_GROUP not in groups:
        groups = (*groups, AUTHENTICATED_GROUP)
    return UserInfo(wanted.user, wanted.uid, tuple(dict.fromkeys(groups)), dict(wanted.extra))


def _questions(user: UserInfo, wanted: Impersonation, cluster: str) -> Iterator[Attributes]:
    def ask(resource: str, name: str, **more: str) -> Attributes:
        return Attributes(user, "impersonate", version="v1", resource=resource, name=name, cluster=cluster, **more)  # type: ignore[arg-type]

    account = UserInfo(wanted.user).service_account() if wanted.user.startswith(SERVICE_ACCOUNT_PREFIX) else None
    if account is not None:
        yield ask("serviceaccounts", account[1], namespace=account[0])
    else:
        yield ask("users", wanted.user)
    for group in wanted.groups:
        yield ask("groups", group)
    for key, values in wanted.extra.items():
        for value in values:
            yield ask("userextras", value, group=_GROUP, subresource=key)
    if wanted.uid:
        yield ask("uids", wanted.uid, group=_GROUP)
