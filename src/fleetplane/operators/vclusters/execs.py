"""Commands in nodes through the host's API: ``pods/exec`` as one request with one answer."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from typing import Final

import orjson

from fleetplane.client.protocol import Client
from fleetplane.operators.vclusters.steps import Outcome

_ACCEPT: Final = "application/vnd.fleetplane.exec+json, application/json;q=0.5"


class PodMachines:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def run(
        self, namespace: str, pod: str, command: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0
    ) -> Outcome:
        query = [("container", pod), ("stdout", "true"), ("stderr", "true"), ("timeoutSeconds", str(int(timeout)))]
        query += [("command", word) for word in command]
        async with asyncio.timeout(timeout + 30):
            answer = orjson.loads(
                await self._client.raw(
                    "POST",
                    f"/api/v1/namespaces/{namespace}/pods/{pod}/exec",
                    query=query,
                    headers=[("accept", _ACCEPT)],
                    body=stdin,
                )
            )
        said, complained = (base64.b64decode(answer[channel]) for channel in ("stdout", "stderr"))
        return Outcome(answer["exitCode"], said.decode("utf-8", "replace"), complained.decode("utf-8", "replace"), said)
