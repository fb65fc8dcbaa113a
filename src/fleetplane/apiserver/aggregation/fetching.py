"""Asking other servers for their OpenAPI v2 documents, which old clients read only as a part of ours.

Asked each time a server is found to be there, and downloaded when its ETag has changed. Size and time are bounded; reading
happens in a thread, one document at a time. A server without one (newer ones have v3 only) adds nothing; a document that
is of no use is told of in the log, once.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import math
from collections import OrderedDict
from typing import Final

from fleetplane.apiserver.aggregation.proxying import Proxy
from fleetplane.apiserver.aggregation.remotes import Remote
from fleetplane.apiserver.outgoing import CallFailed
from fleetplane.apiserver.registry import Registry, Swagger

log = logging.getLogger(__name__)

MAX_DOCUMENT: Final = 8 * 1024 * 1024
"""Bytes another server's document may have as a whole."""
MAX_CLUSTER: Final = 16 * 1024 * 1024
"""Bytes all other servers together may add to the document of one logical cluster."""
_SECONDS: Final = 5.0
_REMEMBERED: Final = 1024
_MAX_TAG: Final = 1024


class SwaggerFetcher:
    """``fetch`` is all."""

    def __init__(self, registry: Registry, proxy: Proxy) -> None:
        self._registry = registry
        self._proxy = proxy
        self._reading = asyncio.Lock()
        self._useless: OrderedDict[tuple[str, Remote], tuple[str, float]] = OrderedDict()
        """Documents that were looked at in vain: their tags, and for how many bytes there would have to be room."""

    async def fetch(self, cluster: str, remote: Remote) -> Swagger | None:
        """What to serve from now on: the very object that is served while nothing has changed. Raises nothing."""
        served = self._registry.remote(cluster).get((remote.group, remote.version))
        known = None if served is None else served.swagger
        headers = {"Accept": "application/json"}
        tag = self._seen_in_vain(cluster, remote) if known is None else known.tag
        if tag:
            headers["If-None-Match"] = tag
        try:
            async with asyncio.timeout(_SECONDS):
                status, told, body = await self._proxy.ask(cluster, remote, "/openapi/v2", headers, MAX_DOCUMENT)
        except (TimeoutError, CallFailed) as error:
            log.info("the OpenAPI v2 of APIService %s was not read: %s", remote.name, str(error) or "it took too long")
            return known
        except Exception:  # whatever another server says, it must not end ours
            log.exception("the OpenAPI v2 of APIService %s cannot be read", remote.name)
            return known
        if status in (404, 406):
            return None
        if status != 200:
            return known
        new = told.get("ETag", "")[:_MAX_TAG] or hashlib.sha256(body).hexdigest()
        if new == tag:
            return known
        return await self._read(cluster, remote, new, body)

    async def _read(self, cluster: str, remote: Remote, tag: str, document: bytes) -> Swagger | None:
        from fleetplane.apiserver.aggregation import swagger  # noqa: PLC0415 - loaded where others serve something

        needed = math.inf
        async with self._reading:
            try:
                made = await asyncio.to_thread(swagger.cut_bytes, document, remote.group, remote.version)
                needed = len(made)
                if self._others(cluster, remote) + needed > MAX_CLUSTER:
                    raise swagger.Unusable(
                        f"other servers' documents together would be larger than {MAX_CLUSTER} bytes"
                    )
            except swagger.Unusable as error:
                log.warning("the OpenAPI v2 of APIService %s is not merged into ours: %s", remote.name, error)
                self._useless[cluster, remote] = tag, needed
                if len(self._useless) > _REMEMBERED:
                    self._useless.popitem(last=False)
                return None
        self._useless.pop((cluster, remote), None)
        return Swagger(tag, made)

    def _seen_in_vain(self, cluster: str, remote: Remote) -> str:
        """The tag of a document that need not be looked at again; empty when there may be room for it now."""
        tag, needed = self._useless.get((cluster, remote), ("", 0))
        return tag if self._others(cluster, remote) + needed > MAX_CLUSTER else ""

    def _others(self, cluster: str, remote: Remote) -> int:
        """Bytes the others add."""
        return sum(
            len(one.swagger.body)
            for key, one in self._registry.remote(cluster).items()
            if one.swagger is not None and key != (remote.group, remote.version)
        )
