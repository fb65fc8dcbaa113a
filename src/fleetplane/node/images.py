"""Images on a node: when to pull, how to word what went wrong, and one pull at a time per image.

The pull policy decides; a pull asked for by several containers at once happens once. Failures keep their place in a
back-off per container, which the plan reads; nothing here sleeps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fleetplane.model.environment import Environment
from fleetplane.node.runtime import ContainerRuntime, Image, RegistryAuth, RuntimeFailure


class ImageFailure(Exception):
    """The image cannot be had now. ``reason`` is what the container's waiting state says."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, slots=True)
class Obtained:
    """``pulled`` says whether it had to be fetched, ``seconds`` how long that took."""

    image: Image
    pulled: bool
    seconds: float = 0.0


class Images:
    """The images of one runtime, shared by its pods."""

    def __init__(self, runtime: ContainerRuntime, environment: Environment, *, parallel: int = 4) -> None:
        self._runtime = runtime
        self._environment = environment
        self._slots = asyncio.Semaphore(parallel)
        self._pulling: dict[tuple[str, str], asyncio.Task[Image]] = {}

    async def obtain(
        self, name: str, policy: str, auth: Sequence[RegistryAuth], on_pull: Callable[[], None], handler: str = ""
    ) -> Obtained:
        """The image for a pod of this handler, pulled where the policy wants it. Raises ImageFailure."""
        if not name.strip() or any(letter.isspace() for letter in name):
            raise ImageFailure("InvalidImageName", f'Failed to apply default image tag "{name}": invalid reference')
        # What is called localhost/… was built or loaded here: there is no registry to ask for a newer one.
        may_be_old = policy != "Always" or name.startswith("localhost/")
        if may_be_old and (found := await self._present(name, handler)) is not None:
            return Obtained(found, pulled=False)
        if policy == "Never":
            message = f'Container image "{name}" is not present with pull policy of Never'
            raise ImageFailure("ErrImageNeverPull", message)
        on_pull()
        began = self._environment.monotonic()
        try:
            image = await self._pull(name, auth, handler)
        except RuntimeFailure as error:
            raise ImageFailure("ErrImagePull", error.message) from error
        return Obtained(image, pulled=True, seconds=self._environment.monotonic() - began)

    async def _present(self, name: str, handler: str) -> Image | None:
        try:
            return await self._runtime.image(name, handler=handler)
        except RuntimeFailure as error:
            raise ImageFailure("ImageInspectError", f'Failed to inspect image "{name}": {error.message}') from error

    async def _pull(self, name: str, auth: Sequence[RegistryAuth], handler: str) -> Image:
        """Join a pull under way, or begin one; it goes on while anybody waits for it."""
        if auth:  # credentials are the caller's own: never share what they brought
            async with self._slots:
                return await self._runtime.pull_image(name, auth, handler=handler)
        key = (name, handler)
        task = self._pulling.get(key)
        if task is None:
            task = asyncio.create_task(self._pull_in_turn(name, handler))
            self._pulling[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        return await asyncio.shield(task)

    async def _pull_in_turn(self, name: str, handler: str) -> Image:
        async with self._slots:
            return await self._runtime.pull_image(name, handler=handler)

    def _forget(self, key: tuple[str, str], task: asyncio.Task[Image]) -> None:
        self._pulling.pop(key, None)
        if not task.cancelled():
            task.exception()

    async def close(self) -> None:
        for task in list(self._pulling.values()):
            task.cancel()
        await asyncio.gather(*self._pulling.values(), return_exceptions=True)
