"""The IP manager's old REST calls, on IPPools and IPClaims: for operators of 2023 that know nothing else.

Paths, keys and words are the original's (``/api/ip``, ``pod_ip``, ``free`` …). What it got wrong is right: two callers never
get one address, a reservation ends by itself, addresses of paused clusters are kept, unknown addresses and states are said
to be unknown. As the original it asks nobody who they are, so it listens on loopback unless told otherwise, and it neither
answers web pages nor touches claims that somebody made otherwise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, Final, NamedTuple

import orjson
from aiohttp import web

from fleetplane.client.protocol import Client
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, is_deleting, labels, metadata
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.operators.network.kinds import GROUP, IPClaim, IPPool
from fleetplane.operators.network.plan import Pool, canonical
from fleetplane.operators.network.ranges import Family, text_of

LABEL: Final = f"{GROUP}/ip-manager"
"""On claims made here: only these can be changed and deleted here."""
POD_NAME: Final = f"{GROUP}/pod-name"
MAX_LISTED: Final = 65_536
MAX_BODY: Final = 65_536
STATES: Final = ("free", "reserved", "allocated", "deallocating")
_STATE_OF: Final = {"Allocated": "allocated", "Held": "allocated", "Quarantined": "deallocating"}
_ATTEMPTS: Final = 20
_PAUSE: Final = 0.1


class Refused(Exception):
    """What the caller did wrong, or what cannot be had."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code


class Entry(NamedTuple):
    """One address as the original told it."""

    pod_ip: str
    status: str
    pod_name: str = ""


class IpManager:
    """The six calls.

    Args:
        pool: The IPPool; claims are made in ``namespace``.
        ttl: Seconds a reservation lasts that no pod uses.
        hold: Seconds an address is kept after its pod has gone.
    """

    def __init__(self, client: Client, pool: str, namespace: str, *, ttl: int = 300, hold: int = 86400) -> None:
        self._client = client
        self._pool = pool
        self._namespace = namespace
        self._ttl = ttl
        self._hold = hold

    async def all(self) -> list[Entry]:
        """Every address of the pool."""
        pool = await self._read_pool()
        spaces = pool.spaces
        count = sum(space.size for space in spaces.values())
        if count > MAX_LISTED:
            raise Refused(413, f"the pool has {count} addresses, too many to list; ask for /api/free-ip instead")
        taken = {address: entry for address, (entry, _) in (await self._taken()).items()}
        addresses = [text_of(family, space.at(rank)) for family, space in spaces.items() for rank in range(space.size)]
        listed = [taken.pop(address, Entry(address, "free")) for address in addresses]
        return [*listed, *taken.values()]

    async def free(self) -> list[Entry]:
        return [one for one in await self.all() if one.status == "free"]

    async def reserve(self) -> Entry | None:
        """A free address, reserved; None if there is none."""
        families: tuple[Family, ...] = (await self._read_pool()).families
        family = "IPv4" if "IPv4" in families else "IPv6"
        spec = {"pool": self._pool, "families": [family], "ttlSeconds": self._ttl, "holdSeconds": self._hold}
        made = await self._client.create(IPClaim, self._claim({"generateName": "lease-"}, spec), self._namespace)
        name = metadata(made)["name"]
        for _ in range(_ATTEMPTS):
            if made["spec"].get("addresses"):
                return Entry(made["spec"]["addresses"][0], "reserved")
            if (made.get("status") or {}).get("phase") == "Pending":
                break
            await asyncio.sleep(_PAUSE)
            made = await self._client.get(IPClaim, name, self._namespace)
        await self._client.delete(IPClaim, name, self._namespace)
        return None

    async def put(self, body: Any, *, create: bool) -> Entry:
        """PUT, and POST, which never worked in the original: this address in this state, for this pod."""
        wanted = _entry_of(body)
        found = (await self._taken()).get(wanted.pod_ip)
        if found is None:
            if not create and wanted.pod_ip not in {one.pod_ip for one in await self.all()}:
                raise Refused(404, f"the pool has no address {wanted.pod_ip}")
            return wanted if wanted.status == "free" else await self._make(wanted)
        entry, claim = found
        if create:
            raise Refused(409, f"{wanted.pod_ip} is {entry.status} already")
        self._check_ours(wanted.pod_ip, claim)
        if wanted.status in {"free", "deallocating"}:
            await self.delete(wanted.pod_ip)
            return Entry(wanted.pod_ip, wanted.status)
        patch = {
            "metadata": {"uid": metadata(claim)["uid"], "annotations": {POD_NAME: wanted.pod_name}},
            "spec": {"use": "Allocated" if wanted.status == "allocated" else None},
        }
        await self._client.patch(IPClaim, metadata(claim)["name"], patch, self._namespace)
        return wanted

    async def delete(self, address: str) -> None:
        """Give an address back; fine if nobody has it."""
        found = (await self._taken()).get(_canonical(address))
        if found is None:
            return
        claim = found[1]
        self._check_ours(address, claim)
        meta = metadata(claim)
        try:
            await self._client.delete(IPClaim, meta["name"], meta["namespace"], uid=meta["uid"])
        except ApiError as error:
            if error.code != 404:
                raise

    async def _make(self, wanted: Entry) -> Entry:
        spec: Object = {"pool": self._pool, "addresses": [wanted.pod_ip]}
        spec["families"] = ["IPv6" if ":" in wanted.pod_ip else "IPv4"]
        spec |= {"holdSeconds": self._hold, "ttlSeconds": self._ttl}
        if wanted.status == "allocated":
            spec["use"] = "Allocated"
        meta = {"generateName": "lease-", "annotations": {POD_NAME: wanted.pod_name}}
        await self._client.create(IPClaim, self._claim(meta, spec), self._namespace)
        return wanted

    def _claim(self, meta: Object, spec: Object) -> Object:
        return {
            "apiVersion": IPClaim.resource.api_version,
            "kind": IPClaim.resource.kind,
            "metadata": {**meta, "labels": {LABEL: "true"}},
            "spec": spec,
        }

    def _check_ours(self, address: str, claim: Mapping[str, Any]) -> None:
        if labels(claim).get(LABEL) != "true":
            meta = metadata(claim)
            raise Refused(409, f"{address} belongs to IPClaim {meta['namespace']}/{meta['name']}; change that instead")

    async def _read_pool(self) -> Pool:
        try:
            return Pool.of(IPPool.view(await self._client.get(IPPool, self._pool)).spec)
        except ApiError as error:
            if error.code != 404:
                raise
            raise Refused(503, f"there is no IPPool {self._pool}; create it first") from None

    async def _taken(self) -> dict[str, tuple[Entry, Object]]:
        """By address: what is known of it, and the claim that has it."""
        found: dict[str, tuple[Entry, Object]] = {}
        async for claim in self._client.iterate(IPClaim):
            spec = claim.get("spec") or {}
            if spec.get("pool") != self._pool:
                continue
            phase = (claim.get("status") or {}).get("phase") or ""
            state = "deallocating" if is_deleting(claim) else _STATE_OF.get(phase, "reserved")
            if spec.get("use") == "Allocated" and state == "reserved":
                state = "allocated"
            pod = annotations_of(claim).get(POD_NAME) or (f"{spec['node']}-0" if spec.get("node") else "")
            for address in spec.get("addresses") or ():
                found[address] = (Entry(address, state, pod), claim)
        return found


def _entry_of(body: Any) -> Entry:
    if not isinstance(body, dict):
        raise Refused(400, "the body must be a JSON object with pod_ip, status and pod_name")
    status, pod = body.get("status"), body.get("pod_name") or ""
    if status not in STATES:
        raise Refused(400, f"status must be one of {', '.join(STATES)}")
    if not isinstance(pod, str) or len(pod) > 253:
        raise Refused(400, "pod_name must be a text of at most 253 characters")
    return Entry(_canonical(body.get("pod_ip")), status, pod)


def _canonical(text: Any) -> str:
    try:
        return canonical(str(text))
    except ValueError:
        raise Refused(400, "pod_ip must be an IP address") from None


# -- HTTP


def application(manager: IpManager) -> web.Application:
    """The calls under ``/api``; errors are {code, name, description} as the original's."""

    async def everything(_: web.Request) -> web.Response:
        return _json([one._asdict() for one in await manager.all()])

    async def free_ips(_: web.Request) -> web.Response:
        return _json([one._asdict() for one in await manager.free()])

    async def free_ip(_: web.Request) -> web.Response:
        found = await manager.reserve()
        return _json(None if found is None else found._asdict())

    async def write(request: web.Request) -> web.Response:
        try:
            body = orjson.loads(await request.read())
        except orjson.JSONDecodeError:
            raise Refused(400, "the body is not JSON") from None
        return _json((await manager.put(body, create=request.method == "POST"))._asdict())

    async def delete(request: web.Request) -> web.Response:
        await manager.delete(request.match_info["address"])
        return _json(None)

    app = web.Application(middlewares=[_errors], client_max_size=MAX_BODY)
    app.router.add_get("/api/ip", everything, allow_head=False)
    app.router.add_get("/api/free-ips", free_ips, allow_head=False)
    app.router.add_get("/api/free-ip", free_ip, allow_head=False)
    app.router.add_post("/api/ip", write)
    app.router.add_put("/api/ip", write)
    app.router.add_delete("/api/ip/{address}", delete)
    return app


@web.middleware
async def _errors(request: web.Request, handler: Any) -> web.StreamResponse:
    if "Origin" in request.headers:
        # A page in a browser must not be able to drain the pool of whoever looks at it.
        return _error(403, "this service does not answer web pages")
    try:
        answer: web.StreamResponse = await handler(request)
    except web.HTTPException as error:
        return _error(error.status, error.reason)
    except Refused as refusal:
        return _error(refusal.code, str(refusal))
    except ApiError as error:
        return _error(error.code if error.code in {409, 422} else 503, error.message)
    return answer


def _json(value: Any, code: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=code, content_type="application/json")


def _error(code: int, description: str) -> web.Response:
    return _json({"code": code, "name": HTTPStatus(code).phrase, "description": description}, code)


async def serve(manager: IpManager, host: str, port: int, ready: asyncio.Future[int] | None = None) -> None:
    """Until cancelled. ``ready`` is told the port. Raises OSError."""
    runner = web.AppRunner(application(manager), access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        if ready is not None:
            ready.set_result(int(runner.addresses[0][1]))
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
