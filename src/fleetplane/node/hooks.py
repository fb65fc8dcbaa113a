"""Lifecycle hooks: what a container wants done right after it starts and right before it is stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.node.asking import NetworkAsker
from fleetplane.node.pod import ContainerView
from fleetplane.node.runtime import ContainerRuntime, RuntimeFailure

LONGEST_POST_START: Final = 600.0
"""Kubernetes sets postStart no limit; this keeps one that hangs from holding its container for ever."""


class HookFailure(Exception):
    """A hook did not succeed; the message says how."""


class HookRunner:
    """Runs hooks through the runtime and the network."""

    def __init__(self, runtime: ContainerRuntime, asker: NetworkAsker) -> None:
        self._runtime = runtime
        self._asker = asker

    async def run(
        self,
        hook: Mapping[str, Any],
        container: ContainerView,
        container_id: str,
        addresses: Sequence[str],
        *,
        timeout_seconds: float | None,
    ) -> None:
        """Returns when the hook has succeeded. Raises HookFailure, also when it takes longer than allowed."""
        limit = LONGEST_POST_START if timeout_seconds is None else timeout_seconds
        try:
            async with asyncio.timeout(limit):
                await self._run(hook, container, container_id, addresses, limit)
        except TimeoutError as error:
            raise HookFailure(f"the hook of container {container.name} did not end within {limit:g}s") from error
        except RuntimeFailure as error:
            raise HookFailure(error.message) from error

    async def _run(
        self,
        hook: Mapping[str, Any],
        container: ContainerView,
        container_id: str,
        addresses: Sequence[str],
        limit: float,
    ) -> None:
        if (command := hook.get("exec")) is not None:
            words = [str(word) for word in command.get("command") or []]
            result = await self._runtime.exec(container_id, words, limit)
            if result.exit_code != 0:
                shown = result.output.decode(errors="replace").strip()
                raise HookFailure(f"command {words!r} exited with {result.exit_code}: {shown}")
        elif (get := hook.get("httpGet")) is not None:
            answer = await self._asker.http(get, container, addresses, limit)
            if not answer.healthy:
                raise HookFailure(answer.message)
        elif (pause := hook.get("sleep")) is not None:
            await asyncio.sleep(float(pause.get("seconds") or 0))
        elif hook.get("tcpSocket") is not None:
            return  # Kubernetes accepts and ignores it
        else:
            raise HookFailure("the hook says nothing to do")
