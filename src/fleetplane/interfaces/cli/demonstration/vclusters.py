"""A hundred virtual clusters, each a Kubernetes API of its own, and an ordinary Deployment in one of them."""

from __future__ import annotations

import asyncio
import base64
import time
from typing import Final

from fleetplane.client.protocol import Client
from fleetplane.interfaces.cli.connection import FIELD_MANAGER
from fleetplane.interfaces.cli.demonstration.stage import Stage, until
from fleetplane.interfaces.cli.demonstration.steps import Outcome, Say, StepFailed
from fleetplane.model import yaml as kube_yaml
from fleetplane.model.builtin.types import DEPLOYMENTS, PODS, SECRETS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, name
from fleetplane.operators.vclusters.kinds import Vk8s

COUNT: Final = 100
NAMES: Final = [f"team-{number:03}" for number in range(1, COUNT + 1)]
CHOSEN: Final = "team-042"
_AT_ONCE: Final = 16


async def created(stage: Stage, say: Say) -> Outcome:
    """A hundred clusters, until each has credentials and answers."""
    wanted = [one.value for one in kube_yaml.load_all((stage.place.root / "vclusters.yaml").read_bytes())]
    turns = asyncio.Semaphore(_AT_ONCE)

    async def make(obj: Object) -> None:
        async with turns:
            await stage.client.apply(Vk8s, obj, "default", field_manager=FIELD_MANAGER)

    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for one in wanted:
            group.create_task(make(one))
        await until(lambda: _ready(stage, say), every=0.05)
    took = time.perf_counter() - started
    return Outcome(
        took, f"{COUNT} ready, {took / COUNT * 1000:.0f} ms each", "logical clusters", facts={"clusters": COUNT}
    )


async def deployed(stage: Stage, say: Say) -> Outcome:
    """A Deployment inside one of them, with the credentials the cluster gave; its pod runs, and the host has no Deployment."""
    secret = await stage.client.get(SECRETS, f"{CHOSEN}-kubeconfig", "default")
    kubeconfig = stage.place.root / f"{CHOSEN}.kubeconfig"
    kubeconfig.touch(mode=0o600)
    kubeconfig.write_bytes(base64.b64decode(secret["data"]["value"]))
    started = time.perf_counter()
    client = await stage.connect(kubeconfig)
    try:
        await stage.apply(stage.place.root / "hello.yaml", client)
        say("waiting for its pod")
        pod = await until(lambda: _running(client))
        took = time.perf_counter() - started
    finally:
        await client.close()
    try:
        await stage.client.get(DEPLOYMENTS, "hello", "default")
    except ApiError as error:
        if error.code != 404:
            raise
    else:
        raise StepFailed("the Deployment made in a virtual cluster is to be seen in the host's")
    facts = {"cluster": CHOSEN, "pod": name(pod), "node": pod["spec"].get("nodeName", "")}
    said = f"a pod runs in {CHOSEN}, unseen by the others"
    if stage.containers is None:
        return Outcome(took, said, "cluster, credentials", "container", stage.why, facts)
    return Outcome(took, said, "cluster, credentials, container", facts=facts)


async def _ready(stage: Stage, say: Say) -> bool:
    found = (await stage.client.list(Vk8s, "default")).items
    ready = len([one for one in found if (one.get("status") or {}).get("phase") == "Running"])
    say(f"{ready} of {COUNT} ready")
    return ready >= COUNT


async def _running(client: Client) -> Object | None:
    pods = (await client.list(PODS, "default", labels="app=hello")).items
    return next((one for one in pods if (one.get("status") or {}).get("phase") == "Running"), None)
