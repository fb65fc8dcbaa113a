"""Kubernetes' URL library: absolute URLs and absolute paths, read as Go's ``url.ParseRequestURI`` reads them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final
from urllib.parse import quote, unquote, unquote_to_bytes

from fleetplane.model.cel.cost import traversal
from fleetplane.model.cel.errors import CelError
from fleetplane.model.cel.library.declarations import Functions, Overload
from fleetplane.model.cel.types import BOOL, STRING, Type, list_of, map_of, opaque

_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST: Final = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:\"<>-]|[^\x00-\x7f]|%[0-9A-Fa-f]{2})*")
_ADDRESS: Final = re.compile(r"\[[0-9A-Za-z:.%_~-]*\](?::[0-9]*)?")
_USER: Final = re.compile(r"[A-Za-z0-9._:~!$&'()*+,;=%@-]*")
_UNESCAPED_IN_PATH: Final = "$&+,/:;=@"
_SAFE_IN_PATH: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/\[\]%-]*")


@dataclass(frozen=True, slots=True)
class URL:
    """``host`` with its port; ``path`` decoded, ``raw_path`` as written; ``query`` as written."""

    cel_type_name: ClassVar[str] = "kubernetes.URL"
    text: str
    scheme: str
    host: str
    raw_path: str
    query: str

    @property
    def cel_size(self) -> int:
        return len(self.text)

    @property
    def hostname(self) -> str:
        if self.host.startswith("["):
            return self.host[1 : self.host.index("]")]
        name, colon, port = self.host.rpartition(":")
        return name if colon and port.isdigit() | (not port) else self.host

    @property
    def port(self) -> str:
        if self.host.startswith("["):
            return self.host[self.host.index("]") + 1 :].removeprefix(":")
        _, colon, port = self.host.rpartition(":")
        return port if colon else ""

    @property
    def escaped_path(self) -> str:
        if _SAFE_IN_PATH.fullmatch(self.raw_path):
            return self.raw_path
        return quote(unquote_to_bytes(self.raw_path), safe=_UNESCAPED_IN_PATH)


def parse_url(text: str) -> URL:
    """Raises CelError."""
    if not text:
        raise _error(text, "empty url")
    if _CONTROL.search(text):
        raise _error(text, "invalid control character in URL")
    scheme, rest = "", text
    if match := _SCHEME.fullmatch(text):
        scheme, rest = match.group(1).lower(), match.group(2)
    elif text[0] == ":":
        raise _error(text, "missing protocol scheme")
    rest, _, query = rest.partition("?")
    if not rest.startswith("/"):
        if scheme:
            return URL(text, scheme, "", "", query)
        if rest != "*":
            raise _error(text, "invalid URI for request")
    host = ""
    if (scheme or not rest.startswith("///")) and rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        host, rest = _host(text, authority), slash + path
    if _BAD_ESCAPE.search(rest):
        raise _error(text, "invalid URL escape")
    return URL(text, scheme, host, rest, query)


def _host(text: str, authority: str) -> str:
    user, at, host = authority.rpartition("@")
    if at and _USER.fullmatch(user) is None:
        raise _error(text, "net/url: invalid userinfo")
    if host.startswith("["):
        if _ADDRESS.fullmatch(host) is None:
            raise _error(text, "invalid port or missing ']' in host")
        return host
    if _HOST.fullmatch(host) is None:
        raise _error(text, "invalid character in host name")
    _, colon, port = host.rpartition(":")
    if colon and port and not (port.isascii() and port.isdigit()):
        raise _error(text, "invalid port after host")
    return unquote(host)


def _error(text: str, detail: str) -> CelError:
    return CelError(f'URL parse error during conversion from string: parse "{text[:128]}": {detail}')


def is_url(text: str) -> bool:
    try:
        parse_url(text)
    except CelError:
        return False
    return True


def query(url: URL) -> dict[str, list[str]]:
    """Parameters by name; malformed ones are left out, as Go leaves them out."""
    found: dict[str, list[str]] = {}
    for pair in url.query.split("&"):
        if not pair or ";" in pair or _BAD_ESCAPE.search(pair):
            continue
        name, _, value = pair.replace("+", " ").partition("=")
        found.setdefault(unquote(name), []).append(unquote(value))
    return found


URL_TYPE: Final = opaque("kubernetes.URL")


def _part(name: str, read: Callable[[URL], Any], result: Type = STRING) -> tuple[Overload, ...]:
    return (Overload(name, (URL_TYPE,), result, read, member=True),)


FUNCTIONS: Final[Functions] = {
    "url": (Overload("string_to_url", (STRING,), URL_TYPE, parse_url, price=traversal(same_size=True)),),
    "isURL": (Overload("is_url_string", (STRING,), BOOL, is_url),),
    "getScheme": _part("url_get_scheme", lambda url: url.scheme),
    "getHost": _part("url_get_host", lambda url: url.host),
    "getHostname": _part("url_get_hostname", lambda url: url.hostname),
    "getPort": _part("url_get_port", lambda url: url.port),
    "getEscapedPath": _part("url_get_escaped_path", lambda url: url.escaped_path),
    "getQuery": _part("url_get_query", query, map_of(STRING, list_of(STRING))),
}
