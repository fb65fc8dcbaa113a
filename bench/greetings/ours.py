"""The benchmark's operator, ours: one ConfigMap per Greeting, then status."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import uvloop

from fleetplane.client.http import connect_to
from fleetplane.client.kubeconfig import load
from fleetplane.controller import Context, Manager, controller_for
from fleetplane.model.builtin.types import CONFIG_MAPS
from fleetplane.model.environment import SystemEnvironment
from fleetplane.model.kind import Kind, View, field


class GreetingSpec(View):
    text: str = field(doc="What to say.")


class GreetingStatus(View):
    said: bool = False


class Greeting(Kind, group="bench.example.org", version="v1"):
    """Says something in a ConfigMap."""

    spec: GreetingSpec
    status: GreetingStatus = field(default_factory=lambda: GreetingStatus.view({}))


async def reconcile(context: Context[Greeting], greeting: Greeting) -> None:
    await context.apply_children(
        [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": greeting.name},
                "data": {"text": greeting.spec.text},
            }
        ]
    )
    await context.set_status({"said": True})


async def main(kubeconfig: str) -> None:
    client = await connect_to(load([Path(kubeconfig)]).access())
    manager = Manager(client, environment=SystemEnvironment(), name="greetings")
    manager.add(controller_for(manager, Greeting, reconcile, owns=[CONFIG_MAPS], max_concurrent=16))
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, manager.stop)
    await manager.run()
    await client.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1]))
