"""Identities in headers: what a front proxy asserts, and whom a user asks to act as.

Header values may repeat, so headers are read as a multidict where the request has one. Nothing here believes a header:
the chain asks for a front proxy only after its certificate, and for impersonation only after authorization.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from fleetplane.model import errors
from fleetplane.model.user import UserInfo

_IMPERSONATE: Final = "impersonate-"


def values(headers: Mapping[str, str], name: str) -> list[str]:
    """Every value of a header, by lower-case name. Plain mappings hold one."""
    get_all = getattr(headers, "getall", None)
    if get_all is not None:
        return list(get_all(name, ()))
    found = headers.get(name)
    return [] if found is None else [found]


def prefixed(headers: Mapping[str, str], prefix: str) -> dict[str, tuple[str, ...]]:
    """The headers that start with ``prefix``: what follows it, percent-decoded and lower-case, with all values."""
    found: dict[str, tuple[str, ...]] = {}
    for key in headers:
        lower = key.lower()
        if lower.startswith(prefix) and len(lower) > len(prefix):
            found[unquote(lower[len(prefix) :]).lower()] = tuple(values(headers, lower))
    return found


@dataclass(frozen=True, slots=True)
class FrontProxyHeaders:
    """The names of the headers a trusted proxy sets (lower case; the first that is present counts)."""

    user: Sequence[str] = ("x-remote-user",)
    uid: Sequence[str] = ("x-remote-uid",)
    group: Sequence[str] = ("x-remote-group",)
    extra_prefix: Sequence[str] = ("x-remote-extra-",)

    def user_of(self, headers: Mapping[str, str]) -> UserInfo | None:
        name = next((v for one in self.user for v in values(headers, one) if v), None)
        if name is None:
            return None
        uid = next((v for one in self.uid for v in values(headers, one) if v), "")
        groups = tuple(dict.fromkeys(v for one in self.group for v in values(headers, one) if v))
        extra: dict[str, tuple[str, ...]] = {}
        for prefix in self.extra_prefix:
            extra |= prefixed(headers, prefix)
        return UserInfo(name, uid, groups, extra)


@dataclass(frozen=True, slots=True)
class Impersonation:
    """Whom a request asks to act as."""

    user: str
    uid: str
    groups: tuple[str, ...]
    extra: Mapping[str, tuple[str, ...]]


def impersonation_of(headers: Mapping[str, str]) -> Impersonation | None:
    """None when the request asks for no impersonation. Raises 400 when it asks for parts of one without a user."""
    if not any(key[: len(_IMPERSONATE)].lower() == _IMPERSONATE for key in headers):
        return None
    user = next((v for v in values(headers, "impersonate-user") if v), "")
    uid = next((v for v in values(headers, "impersonate-uid") if v), "")
    groups = tuple(dict.fromkeys(values(headers, "impersonate-group")))
    extra = prefixed(headers, "impersonate-extra-")
    if user:
        return Impersonation(user, uid, groups, extra)
    if uid or groups or extra:
        raise errors.bad_request("requested a group, uid or extra without impersonating a user; add Impersonate-User")
    return None
