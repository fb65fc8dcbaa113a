"""Several container runtimes on one node, behind the face of one: a pod's RuntimeClass says which of them runs it.

The handler of the RuntimeClass is the address. Handlers in ``by_handler`` lead to the runtime given for them (a pod VM,
say); every other one, and the empty one, to the default, which may know handlers of its own (OCI runtimes). Where
``default_handlers`` are given the default knows these and no others, and a pod that asks for another is refused as a
kubelet would refuse it.

A pod stays with the runtime its sandbox was made by. Which that is is found again by asking: after a restart of the
agent, and for ids that were never seen, every runtime is asked what it has, so nothing here has to survive. That needs ids
that differ between the runtimes. What is there is known only when all of them answer: a list that left one out would let
its pods be started twice. Usage may be incomplete, so there a runtime that does not answer is left out.

Images on the node's disk are those of the default; an image of a pod with a handler is looked for, and pulled, where
that pod will run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace

from fleetplane.node.runtime import (
    ContainerRuntime,
    ContainerSpec,
    ContainerState,
    ExecResult,
    Image,
    LogLine,
    LogOptions,
    NotThere,
    RegistryAuth,
    Resources,
    RuntimeEvent,
    RuntimeFailure,
    RuntimeInfo,
    Sandbox,
    SandboxSpec,
    Session,
    Stats,
    Terminal,
)


class RoutedRuntime:
    """See the module. ``close`` closes all of them."""

    def __init__(
        self,
        default: ContainerRuntime,
        by_handler: Mapping[str, ContainerRuntime],
        default_handlers: Collection[str] | None = None,
    ) -> None:
        self._default = default
        self._by_handler = dict(by_handler)
        self._default_handlers = default_handlers
        # Each once, though several handlers may lead to it.
        self._all = list({id(one): one for one in (default, *by_handler.values())}.values())
        self._of_sandbox: dict[str, ContainerRuntime] = {}
        self._of_container: dict[str, ContainerRuntime] = {}

    def runtime_for(self, handler: str) -> ContainerRuntime:
        """Where pods of this handler run. Raises RuntimeFailure in the words of a kubelet's runtime."""
        if handler in self._by_handler:
            return self._by_handler[handler]
        if handler and self._default_handlers is not None and handler not in self._default_handlers:
            raise RuntimeFailure(f'failed to get sandbox runtime: no runtime for "{handler}" is configured')
        return self._default

    async def info(self) -> RuntimeInfo:
        """The default's name and version, with what all of them cannot do."""
        first, *others = [await one.info() for one in self._all]
        return replace(first, notes=(*first.notes, *(note for other in others for note in other.notes)))

    # Sandboxes

    async def start_sandbox(self, spec: SandboxSpec) -> Sandbox:
        runtime = self.runtime_for(spec.handler)
        sandbox = await runtime.start_sandbox(spec)
        self._of_sandbox[sandbox.id] = runtime
        return sandbox

    async def stop_sandbox(self, sandbox_id: str) -> None:
        for runtime in await self._holders(sandbox_id):
            await runtime.stop_sandbox(sandbox_id)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        for runtime in await self._holders(sandbox_id):
            await runtime.remove_sandbox(sandbox_id)
        self._of_sandbox.pop(sandbox_id, None)

    async def sandboxes(self) -> Sequence[Sandbox]:
        found: list[Sandbox] = []
        for runtime in self._all:
            listed = await runtime.sandboxes()
            self._of_sandbox.update((one.id, runtime) for one in listed)
            found += listed
        return found

    async def _holders(self, sandbox_id: str) -> Sequence[ContainerRuntime]:
        """The runtime that has it; all of them when none says so, for removing what is gone succeeds everywhere."""
        if sandbox_id not in self._of_sandbox:
            await self.sandboxes()
        known = self._of_sandbox.get(sandbox_id)
        return [known] if known is not None else self._all

    # Containers

    async def create_container(self, sandbox: Sandbox, spec: ContainerSpec, shared: SandboxSpec) -> str:
        if sandbox.id not in self._of_sandbox:
            await self.sandboxes()
        runtime = self._of_sandbox.get(sandbox.id) or self.runtime_for(shared.handler)
        container_id = await runtime.create_container(sandbox, spec, shared)
        self._of_container[container_id] = runtime
        return container_id

    async def start_container(self, container_id: str) -> None:
        await (await self._holder(container_id)).start_container(container_id)

    async def stop_container(self, container_id: str, grace_seconds: float) -> None:
        await (await self._holder(container_id)).stop_container(container_id, grace_seconds)

    async def pause_container(self, container_id: str) -> None:
        await (await self._holder(container_id)).pause_container(container_id)

    async def resume_container(self, container_id: str) -> None:
        await (await self._holder(container_id)).resume_container(container_id)

    async def remove_container(self, container_id: str) -> None:
        try:
            runtime = await self._holder(container_id)
        except NotThere:
            return
        await runtime.remove_container(container_id)
        self._of_container.pop(container_id, None)

    async def containers(self, pod_uid: str = "") -> Sequence[ContainerState]:
        found: list[ContainerState] = []
        for runtime in self._all:
            listed = await runtime.containers(pod_uid)
            self._of_container.update((one.id, runtime) for one in listed)
            found += listed
        return found

    async def inspect_container(self, container_id: str) -> ContainerState:
        return await (await self._holder(container_id)).inspect_container(container_id)

    async def update_resources(self, container_id: str, resources: Resources) -> None:
        await (await self._holder(container_id)).update_resources(container_id, resources)

    async def _holder(self, container_id: str) -> ContainerRuntime:
        """Raises NotThere when nobody has it."""
        if container_id not in self._of_container:
            await self.containers()
        try:
            return self._of_container[container_id]
        except KeyError:
            raise NotThere(f"no such container: {container_id}") from None

    # Processes and output

    async def exec(
        self, container_id: str, command: Sequence[str], timeout_seconds: float, limit_bytes: int = 16_384
    ) -> ExecResult:
        return await (await self._holder(container_id)).exec(container_id, command, timeout_seconds, limit_bytes)

    async def open_exec(
        self, container_id: str, command: Sequence[str], *, stdin: bool, tty: bool, size: Terminal | None = None
    ) -> Session:
        holder = await self._holder(container_id)
        return await holder.open_exec(container_id, command, stdin=stdin, tty=tty, size=size)

    async def attach(self, container_id: str, *, stdin: bool, tty: bool) -> Session:
        return await (await self._holder(container_id)).attach(container_id, stdin=stdin, tty=tty)

    async def logs(self, container_id: str, options: LogOptions) -> AsyncIterator[LogLine]:
        async for line in (await self._holder(container_id)).logs(container_id, options):
            yield line

    async def connect(self, sandbox_id: str, port: int) -> Session:
        holders = await self._holders(sandbox_id)
        if len(holders) != 1:
            raise NotThere(f"no such sandbox: {sandbox_id}")
        return await holders[0].connect(sandbox_id, port)

    async def stats(self, pod_uid: str = "") -> Sequence[Stats]:
        answers = await asyncio.gather(*(one.stats(pod_uid) for one in self._all), return_exceptions=True)
        found: list[Stats] = []
        failures: list[BaseException] = []
        for answer in answers:
            if isinstance(answer, BaseException):
                failures.append(answer)
            else:
                found += answer
        for failure in failures:
            if len(failures) == len(answers) or not isinstance(failure, RuntimeFailure):
                raise failure
        return found

    async def events(self) -> AsyncIterator[RuntimeEvent]:
        """Those of all, as they come. When one of them fails this does too, as it would alone."""
        queue: asyncio.Queue[RuntimeEvent | Exception] = asyncio.Queue()

        async def forward(runtime: ContainerRuntime) -> None:
            try:
                async for event in runtime.events():
                    queue.put_nowait(event)
            except Exception as error:
                queue.put_nowait(error)

        sources = [asyncio.create_task(forward(one)) for one in self._all]
        try:
            while True:
                told = await queue.get()
                if isinstance(told, Exception):
                    raise told
                yield told
        finally:
            for source in sources:
                source.cancel()
            await asyncio.gather(*sources, return_exceptions=True)

    # Images

    async def image(self, name: str, *, handler: str = "") -> Image | None:
        return await self.runtime_for(handler).image(name, handler=handler)

    async def images(self) -> Sequence[Image]:
        return await self._default.images()

    async def pull_image(self, name: str, auth: Sequence[RegistryAuth] = (), *, handler: str = "") -> Image:
        return await self.runtime_for(handler).pull_image(name, auth, handler=handler)

    async def import_image(self, archive: str, name: str = "") -> Image:
        return await self._default.import_image(archive, name)

    async def remove_image(self, name: str) -> None:
        await self._default.remove_image(name)

    async def close(self) -> None:
        failures = await asyncio.gather(*(one.close() for one in self._all), return_exceptions=True)
        for failure in failures:
            if isinstance(failure, BaseException):
                raise failure
