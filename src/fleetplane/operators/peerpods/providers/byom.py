"""Bring your own machines: a pool of addresses, kept in a ConfigMap as the original keeps it.

Every change is a compare-and-swap: the state is computed from what was read and written with the version it was read at,
so no machine ever serves two pods. The machine that has rested longest is taken next, and one that does not answer is
passed over. The id of a VM is its address.

What runs on the machine is not this module's: handing over user data and rebooting after use take an agent there.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import orjson

from fleetplane.model.builtin.types import CONFIG_MAPS
from fleetplane.model.environment import timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, metadata
from fleetplane.operators.peerpods.providers.protocol import (
    Failure,
    Instance,
    Provider,
    ProviderError,
    Size,
    Surroundings,
    VmSpec,
)

STATE: Final = "byom-ip-pool-state"
KEY: Final = "state"
MAX_ADDRESSES: Final = 100
ATTEMPTS: Final = 8
DIAL_SECONDS: Final = 2.0

Reachable = Callable[[str], Awaitable[bool]]


async def answers_ssh(address: str) -> bool:
    """Whether something accepts connections at port 22."""
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            _, writer = await asyncio.open_connection(address, 22)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True


def addresses_of(text: str) -> list[str]:
    """``10.0.0.1, 10.0.0.5-10.0.0.9`` as addresses, in order, each once. Raises ProviderError."""
    found: dict[str, None] = {}
    for part in (one.strip() for one in text.split(",")):
        if not part:
            continue
        first, _, last = part.partition("-")
        try:
            low, high = ipaddress.ip_address(first.strip()), ipaddress.ip_address((last or first).strip())
        except ValueError:
            raise ProviderError(Failure.REFUSED, f"VM_POOL_IPS: {part[:60]!r} is no address or range") from None
        if low.version != high.version or int(high) < int(low) or int(high) - int(low) >= MAX_ADDRESSES:
            raise ProviderError(
                Failure.REFUSED,
                f"VM_POOL_IPS: the range {part[:60]!r} must rise and have at most {MAX_ADDRESSES} addresses",
            )
        found.update((str(type(low)(number)), None) for number in range(int(low), int(high) + 1))
    if not found:
        raise ProviderError(Failure.REFUSED, "byom needs VM_POOL_IPS: the addresses of its machines")
    return list(found)


def byom(settings: Mapping[str, str], surroundings: Surroundings) -> Provider:
    return Pool(
        addresses_of(settings.get("VM_POOL_IPS", "")),
        surroundings,
        namespace=settings.get("POOL_NAMESPACE") or surroundings.namespace,
        name=settings.get("POOL_CONFIGMAP_NAME") or STATE,
    )


class Pool:
    """A Provider over machines that are there already."""

    def __init__(
        self,
        addresses: Sequence[str],
        surroundings: Surroundings,
        *,
        namespace: str,
        name: str = STATE,
        reachable: Reachable = answers_ssh,
    ) -> None:
        self._addresses = tuple(addresses)
        self._client = surroundings.client
        self._environment = surroundings.environment
        self._namespace = namespace
        self._name = name
        self._reachable = reachable

    async def create(self, spec: VmSpec) -> Instance:
        passed_over: set[str] = set()
        for _ in range(ATTEMPTS + len(self._addresses)):
            held, state = await self._read()
            known = _by_token(state, spec.token)
            if known is not None:
                return known
            free = [one for one in state["availableIPs"] if one not in passed_over]
            if not free:
                why = f"; {len(passed_over)} do not answer" if passed_over else ""
                raise ProviderError(Failure.QUOTA, f"all {len(self._addresses)} machines of the pool are in use{why}")
            if not await self._reachable(free[0]):
                passed_over.add(free[0])
                continue
            state["availableIPs"].remove(free[0])
            state["allocatedIPs"][spec.token] = {
                "allocationID": spec.token,
                "ip": free[0],
                "podName": spec.name,
                "nodeName": "",
                "allocatedAt": timestamp(self._environment.now()),
                "tags": dict(spec.tags),
            }
            if await self._write(held, state):
                return _instance(state["allocatedIPs"][spec.token])
        raise ProviderError(Failure.UNAVAILABLE, "the pool's state kept changing; trying again later")

    async def describe(self, *, id: str = "", token: str = "") -> Instance | None:
        _, state = await self._read()
        if token and not id:
            return _by_token(state, token)
        return next((_instance(one) for one in state["allocatedIPs"].values() if one["ip"] == id), None)

    async def delete(self, id: str) -> None:
        for _ in range(ATTEMPTS):
            held, state = await self._read()
            mine = [token for token, one in state["allocatedIPs"].items() if one["ip"] == id]
            if not mine:
                return
            for token in mine:
                del state["allocatedIPs"][token]
            if id in self._addresses:
                state["availableIPs"].append(id)
            if await self._write(held, state):
                return
        raise ProviderError(Failure.UNAVAILABLE, "the pool's state kept changing; trying again later")

    async def list(self, tags: Mapping[str, str]) -> Sequence[Instance]:
        _, state = await self._read()
        found = [_instance(one) for one in state["allocatedIPs"].values()]
        return [one for one in found if tags.items() <= one.tags.items()]

    async def resize(self, id: str, size: Size) -> Instance:
        raise ProviderError(Failure.UNSUPPORTED, "machines of a pool are as large as they are")

    async def _read(self) -> tuple[Object | None, dict[str, Any]]:
        """The ConfigMap as it is, and its state brought up to date with the pool's addresses."""
        held: Object | None = None
        try:
            held = await self._client.get(CONFIG_MAPS, self._name, self._namespace)
        except ApiError as error:
            if error.code != 404:
                raise ProviderError(Failure.UNAVAILABLE, f"the pool's state cannot be read: {error.message}") from None
        try:
            state = orjson.loads(((held or {}).get("data") or {}).get(KEY) or "{}")
            allocated = {str(key): dict(one) for key, one in (state.get("allocatedIPs") or {}).items()}
            used = {str(one["ip"]) for one in allocated.values()}
            rested = [str(one) for one in state.get("availableIPs") or ()]
        except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
            raise ProviderError(
                Failure.REFUSED, f"the ConfigMap {self._name} holds no pool state; repair or delete it"
            ) from None
        order = dict.fromkeys([*rested, *self._addresses])
        available = [one for one in order if one in self._addresses and one not in used]
        return held, {**state, "allocatedIPs": allocated, "availableIPs": available}

    async def _write(self, held: Object | None, state: Mapping[str, Any]) -> bool:
        """Whether nobody was faster."""
        version = int(state.get("version") or 0) + 1
        text = orjson.dumps({**state, "version": version, "lastUpdated": timestamp(self._environment.now())}).decode()
        try:
            if held is None:
                made = {"metadata": {"name": self._name}, "data": {KEY: text}}
                await self._client.create(CONFIG_MAPS, made, self._namespace)
            else:
                guard = {"resourceVersion": metadata(held)["resourceVersion"], "uid": metadata(held)["uid"]}
                patch = {"metadata": guard, "data": {KEY: text}}
                await self._client.patch(CONFIG_MAPS, self._name, patch, self._namespace)
        except ApiError as error:
            if error.code in {404, 409}:
                return False
            raise ProviderError(Failure.UNAVAILABLE, f"the pool's state cannot be written: {error.message}") from None
        return True


def _by_token(state: Mapping[str, Any], token: str) -> Instance | None:
    found = state["allocatedIPs"].get(token)
    return None if found is None else _instance(found)


def _instance(found: Mapping[str, Any]) -> Instance:
    address = str(found["ip"])
    return Instance(address, "running", str(found.get("allocationID") or ""), found.get("tags") or {}, (address,))
