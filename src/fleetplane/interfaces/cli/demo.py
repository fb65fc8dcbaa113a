"""``fleetplane demo``: a scripted tour on a throw-away plane, with what was real and how long it took.

Every step does what it says on a running plane and fails the command when the plane does not do it; nothing is shown that
was not measured here.
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table

from fleetplane.client.protocol import Client
from fleetplane.interfaces.cli.demo_image import IMAGE, import_demo_image
from fleetplane.interfaces.cli.logs import configure_logging
from fleetplane.interfaces.cli.main import CommandError
from fleetplane.model.builtin.types import CONFIG_MAPS, DEPLOYMENTS, NODES, PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, name
from fleetplane.model.resources import ResourceType
from fleetplane.plane import Plane
from fleetplane.plane_error import PlaneError
from fleetplane.settings import RuntimeName, Settings

STEP_SECONDS = 60.0
REPLICAS = 3
POD: Object = {
    "containers": [{"name": "hello", "image": IMAGE, "command": ["/bin/sleep", "3600"]}],
    "terminationGracePeriodSeconds": 1,
}
WIDGETS = ResourceType("demo.fleetplane.io", "v1", "Widget", "widgets")


class DemoFailed(Exception):
    """A step did not come true; the message says which and what was seen instead."""


@dataclass(slots=True)
class Tour:
    """What the steps share. ``image`` is what pods run; ``rows`` fill the summary."""

    console: Console
    data_dir: Path
    runtime: str
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def step(self, title: str, what: str) -> AsyncIterator[Callable[[str], None]]:
        """Show a step while it runs and record how long it took. ``what`` is its line in the summary."""
        spinner = Spinner("dots", title)
        started = time.perf_counter()
        with Live(spinner, console=self.console, transient=True, refresh_per_second=12):
            try:
                async with asyncio.timeout(STEP_SECONDS):
                    yield lambda text: spinner.update(text=f"{title} [dim]{text}[/dim]")
            except TimeoutError:
                raise DemoFailed(f"{title}: not done after {STEP_SECONDS:.0f} seconds") from None
            except ApiError as error:
                raise DemoFailed(f"{title}: {error}") from None
        took = time.perf_counter() - started
        self.console.print(f"[green]✓[/green] {title} [dim]{took:.2f} s[/dim]")
        self.rows.append((what, f"{took:.2f} s", ""))

    def note(self, how: str) -> None:
        """How the last step was done: real or simulated, and the command that repeats it."""
        what, took, _ = self.rows[-1]
        self.rows[-1] = (what, took, how)


def run_demo(runtime: str, keep: bool, data_dir: Path | None) -> None:
    """Run the tour. Raises CommandError with the sentence that says which step failed."""
    configure_logging("error")
    console = Console()
    with contextlib.ExitStack() as stack:
        place = data_dir
        if place is None and not keep:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fleetplane-demo-")))
        elif place is None:
            place = Path(tempfile.mkdtemp(prefix="fleetplane-demo-"))
        tour = Tour(console, place, runtime)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_tour(tour, keep))
        except (DemoFailed, PlaneError) as error:
            raise CommandError(f"the demo failed: {error}") from None
        except BaseExceptionGroup as group:
            first = _first(group)
            if isinstance(first, DemoFailed | PlaneError):
                raise CommandError(f"the demo failed: {first}") from None
            raise


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _tour(tour: Tour, keep: bool) -> None:
    runtime, why = _runtime(tour.runtime)
    plane = Plane(Settings(data_dir=tour.data_dir, port=0, runtime=runtime))
    async with contextlib.AsyncExitStack() as stack:
        if not keep and runtime == "podman":
            stack.push_async_callback(plane.remove_local_nodes)
        async with tour.step("Starting a plane", "a control plane, from an empty folder"):
            await stack.enter_async_context(plane)
        client = plane.client()
        (node,) = (await client.list(NODES)).items[:1]
        described = (node.get("status") or {}).get("nodeInfo", {}).get("containerRuntimeVersion", "")
        real = not described.startswith("simulated")
        how = "real containers" if real else "simulated containers"
        tour.note(f"real: TLS, SQLite, {plane.url}")
        await _deployment(tour, client, how)
        await _custom_kind(tour, client)
        await _clean_up(tour, client, how)
        _summary(tour, described, why)
        if keep:
            tour.console.print(f"The plane keeps running; stop it with Ctrl-C.\n  export KUBECONFIG={plane.kubeconfig}")
            await asyncio.Event().wait()


async def _deployment(tour: Tour, client: Client, how: str) -> None:
    labels = {"app": "hello"}
    deployment: Object = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "hello"},
        "spec": {
            "replicas": REPLICAS,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": POD},
        },
    }
    async with tour.step("Applying a Deployment", f"a Deployment applied, {REPLICAS} pods running") as show:
        await client.apply(DEPLOYMENTS, deployment, "default", field_manager="demo")
        await _until(lambda: _running(client, REPLICAS, show))
    tour.note(f"{how}: fleetplane apply -f deployment.yaml")
    async with tour.step("Killing a pod", "a deleted pod replaced") as show:
        pods = (await client.list(PODS, "default", labels="app=hello")).items
        await client.delete(PODS, name(pods[0]), "default", grace_period_seconds=1)
        await _until(lambda: _running(client, REPLICAS, show, without=name(pods[0])))
    tour.note(f"{how}: fleetplane delete pod <name>")


async def _running(client: Client, wanted: int, show: Callable[[str], None], without: str = "") -> bool:
    pods = (await client.list(PODS, "default", labels="app=hello")).items
    ready = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running" and name(pod) != without]
    show(f"{len(ready)} of {wanted} running")
    return len(ready) >= wanted


async def _custom_kind(tour: Tour, client: Client) -> None:
    definition: Object = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.demo.fleetplane.io"},
        "spec": {
            "group": WIDGETS.group,
            "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {
                                    "type": "object",
                                    "properties": {"size": {"type": "integer"}},
                                    "x-kubernetes-validations": [
                                        {"rule": "self.size <= 10", "message": "a widget is at most 10 wide"}
                                    ],
                                }
                            },
                        }
                    },
                }
            ],
        },
    }
    definitions = ResourceType(
        "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", False
    )
    async with tour.step(
        "Defining a kind and breaking its rule", "a new kind served, a bad object refused by its rule"
    ):
        await client.apply(definitions, definition, field_manager="demo")
        widget = {"apiVersion": WIDGETS.api_version, "kind": "Widget", "metadata": {"name": "a"}, "spec": {"size": 11}}
        try:
            await client.create(WIDGETS, widget, "default")
        except ApiError as error:
            if "a widget is at most 10 wide" not in error.message:
                raise DemoFailed(f"the widget was refused for another reason: {error}") from None
        else:
            raise DemoFailed("a widget that breaks its rule was accepted")
        await client.create(WIDGETS, widget | {"spec": {"size": 3}}, "default")
    tour.note("real: fleetplane apply -f definition.yaml")
    async with tour.step("Writing a thousand objects", "1,000 ConfigMaps created, each durable"):
        await asyncio.gather(*(_fill(client, start) for start in range(0, 1000, 50)))
    tour.note("real: authenticated, authorized, validated, fsynced")


async def _fill(client: Client, start: int) -> None:
    for number in range(start, start + 50):
        await client.create(CONFIG_MAPS, {"metadata": {"name": f"c-{number}"}, "data": {"n": str(number)}}, "default")


async def _clean_up(tour: Tour, client: Client, how: str) -> None:
    async with tour.step("Deleting the Deployment", "everything it owned is gone"):
        await client.delete(DEPLOYMENTS, "hello", "default", propagation="Foreground")
        await _until(lambda: _gone(client))
    tour.note(how)


async def _gone(client: Client) -> bool:
    return not (await client.list(PODS, "default", labels="app=hello")).items


async def _until(true: Callable[[], Awaitable[bool]]) -> None:
    while not await true():  # noqa: ASYNC110 - a tour looks like a user does, by asking again
        await asyncio.sleep(0.05)


def _runtime(wanted: str) -> tuple[RuntimeName, str]:
    """Real containers where they are possible; else simulated ones, and why."""
    if wanted == "simulated":
        return "simulated", "as asked"
    missing = import_demo_image()
    if missing is None:
        return "podman", "Podman is here"
    if wanted == "podman":
        raise DemoFailed(missing)
    return "simulated", missing


def _summary(tour: Tour, runtime: str, why: str) -> None:
    table = Table(title="What happened", title_justify="left")
    for column in ("what", "took", "how"):
        table.add_column(column, overflow="fold")
    for row in tour.rows:
        table.add_row(*row)
    tour.console.print(table)
    tour.console.print(f"container runtime: {runtime} ({why})")
