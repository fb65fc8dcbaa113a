"""What one way of authenticating finds, before the chain decides whether it counts here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple, Protocol

from fleetplane.model.user import UserInfo

ROOT: Final = "root"
"""The default logical cluster; also where the plane's own administrators live."""


class Dependency(NamedTuple):
    """A live object that a token is only as good as."""

    cluster: str
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Identity:
    """``cluster`` is the logical cluster the credential was issued for; None where it was issued for no one cluster.

    ``expires`` ends the credential itself. ``audiences`` are those of the ones asked for that a token is good for.
    """

    user: UserInfo
    cluster: str | None
    expires: datetime | None = None
    audiences: tuple[str, ...] = ()
    depends_on: tuple[Dependency, ...] = ()


class TokenAuthenticator(Protocol):
    """One kind of bearer token."""

    async def __call__(self, token: str, cluster: str, audiences: Sequence[str]) -> Identity | None:
        """None when the token is of another kind.

        ``audiences`` empty means: the server's own. Raises InvalidToken when it is of this kind and no good.
        """
