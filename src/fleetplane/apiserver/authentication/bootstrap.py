"""Bootstrap tokens: how a machine that has nothing yet introduces itself (KEP ``bootstrap-tokens``).

``<id>.<secret>`` is looked up as the Secret ``kube-system/bootstrap-token-<id>``. What it may do, RBAC says for the group
``system:bootstrappers``: by default, to ask for a node certificate.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from fleetplane.apiserver.authentication.identity import Dependency, Identity
from fleetplane.apiserver.authentication.jwt import InvalidToken
from fleetplane.apiserver.authentication.service_account import SECRETS
from fleetplane.apiserver.reader import ObjectReader
from fleetplane.model import objects
from fleetplane.model.environment import Environment, parse_timestamp
from fleetplane.model.user import UserInfo

NAMESPACE: Final = "kube-system"
TYPE: Final = "bootstrap.kubernetes.io/token"
BOOTSTRAPPERS: Final = "system:bootstrappers"
_TOKEN: Final = re.compile(r"([a-z0-9]{6})\.([a-z0-9]{16})")
_GROUP: Final = re.compile(r"system:bootstrappers:[a-z0-9:-]{0,255}[a-z0-9]")
_REFUSED: Final = "the bootstrap token is unknown, expired, or not for authentication"


class BootstrapTokens:
    def __init__(self, reader: ObjectReader, environment: Environment) -> None:
        self._reader = reader
        self._environment = environment

    async def __call__(self, token: str, cluster: str, audiences: Sequence[str]) -> Identity | None:
        matched = _TOKEN.fullmatch(token)
        if matched is None:
            return None
        token_id, secret_part = matched.groups()
        name = f"bootstrap-token-{token_id}"
        secret = await self._reader.get(cluster, SECRETS, NAMESPACE, name)
        if secret is None or secret.get("type") != TYPE or objects.is_deleting(secret):
            raise InvalidToken(_REFUSED)
        data = _texts(secret)
        same = hmac.compare_digest(data.get("token-secret", "").encode(), secret_part.encode())
        if not same or data.get("token-id") != token_id or data.get("usage-bootstrap-authentication") != "true":
            raise InvalidToken(_REFUSED)
        expires = self._expiration(data)
        groups = [one.strip() for one in data.get("auth-extra-groups", "").split(",") if one.strip()]
        if any(_GROUP.fullmatch(group) is None for group in groups):
            raise InvalidToken(f'the bootstrap token has a group that does not start with "{BOOTSTRAPPERS}:"')
        return Identity(
            UserInfo(f"system:bootstrap:{token_id}", groups=tuple(dict.fromkeys((BOOTSTRAPPERS, *sorted(groups))))),
            cluster,
            expires=expires,
            depends_on=(Dependency(cluster, "Secret", NAMESPACE, name),),
        )

    def _expiration(self, data: Mapping[str, str]) -> datetime | None:
        """A time that cannot be read counts as past."""
        if not data.get("expiration"):
            return None
        try:
            expires = parse_timestamp(data["expiration"])
        except ValueError:
            raise InvalidToken(_REFUSED) from None
        if expires <= self._environment.now():
            raise InvalidToken(_REFUSED)
        return expires


def _texts(secret: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    for key, value in (secret.get("data") or {}).items():
        try:
            found[key] = base64.b64decode(str(value), validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            continue
    return found
