"""What the ``vcluster`` commands do: virtual clusters made, followed, changed and left, by their objects alone.

The names of kind and annotations stand here once more instead of being imported: the operator's package costs a command
a third of a second.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from fleetplane.interfaces.cli.connection import FIELD_MANAGER, Session
from fleetplane.interfaces.cli.errors import CommandError, UsageError
from fleetplane.interfaces.cli.waiting import Verdict, Waited, wait_for
from fleetplane.model import yaml as kube_yaml
from fleetplane.model.environment import timestamp
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object, generation, is_condition_true, name, namespace, uid
from fleetplane.model.objects import annotations as annotations_of
from fleetplane.model.resources import ResourceType

GROUP: Final = "vk8s.sktelecom.com"
VCLUSTERS: Final = ResourceType(GROUP, "v1alpha1", "Vk8s", "vk8s", singular="vk8s")
SNAPSHOTS: Final = ResourceType(GROUP, "v1alpha1", "Vk8sSnapshot", "vk8ssnapshots", singular="vk8ssnapshot")
SECRETS: Final = ResourceType("", "v1", "Secret", "secrets")
NETWORK: Final = "cluster-network-connection-status"
STOPPED: Final = "vk8s-resource-stopped"
ROTATE: Final = f"{GROUP}/rotate-credentials"
USED_AT: Final = f"{GROUP}/used-at"
KEY: Final = "value"
_WARNING: Final = re.compile(r'\d{3} \S+ "((?:[^"\\]|\\.)*)"')

Change = Callable[[Object], Object | None]
"""From a Vk8s to a merge patch for it; None where nothing is to be done. Raises CommandError."""


async def find(session: Session, called: str) -> Object:
    """Raises CommandError, worded for people."""
    try:
        return await session.client.get(VCLUSTERS, called, session.namespace)
    except ApiError as error:
        if error.code != 404:
            raise
        raise CommandError(await _absent(session, called, error)) from None


async def _absent(session: Session, called: str, error: ApiError) -> str:
    if error.name != called:
        return "the server has no virtual clusters; run it with the operator vclusters"
    found = [name(one) for one in (await session.client.list(VCLUSTERS, session.namespace, limit=10)).items]
    hint = f"there are: {', '.join(found)}" if found else "create one with 'fleetplane vcluster create NAME'"
    return f"there is no virtual cluster {called!r} in namespace {session.namespace}; {hint}"


def mode_of(obj: Mapping[str, Any]) -> str:
    spec = obj.get("spec") or {}
    return str(spec.get("mode") or ("pods" if any(one.get("image") for one in spec.get("nodes") or ()) else "logical"))


# -- making


def node(called: str, role: str, image: str, cpu: str, memory: str) -> Object:
    resources = {"cpu": cpu, "memory": memory}
    return {"name": called, "role": role, "image": image, "resources": {"limits": resources, "requests": resources}}


def parse_port(text: str) -> Object:
    """``[name=]port[:nodePort]``. Raises CommandError."""
    found = re.fullmatch(r"(?:([a-z0-9-]{1,15})=)?(\d{1,5})(?::(\d{1,5}))?", text)
    if found is None:
        raise UsageError(f"--port {text!r} is not [NAME=]PORT[:NODEPORT], such as web=80:30080")
    made: Object = {"name": found[1] or f"port-{found[2]}", "port": int(found[2]), "targetPort": int(found[2])}
    return made | ({"nodePort": int(found[3])} if found[3] else {})


def copied_spec(origin: Object, called: str) -> Object:
    """The spec for another cluster of the same make: node names and ports that are fixed can be had once only."""
    spec = {key: value for key, value in origin["spec"].items() if key not in {"restoreFrom", "accessPodPort"}}
    was = name(origin)
    nodes = [
        {**one, "name": f"{called}-{str(one['name']).removeprefix(f'{was}-')}"[:52].rstrip("-")}
        for one in spec.get("nodes") or ()
    ]
    ports = [{key: value for key, value in one.items() if key != "nodePort"} for one in spec.get("ports") or ()]
    return {**spec, **({"nodes": nodes} if nodes else {}), **({"ports": ports} if ports else {})}


async def create(session: Session, obj: Object, *, dry_run: bool) -> Object:
    """Create it, after a rehearsal whose warnings (ports that are taken, networks that overlap) are shown first."""
    rehearsed, warnings = await _post(session, obj, dry_run=True)
    for one in warnings:
        session.out.warn(f"warning: {one}")
    return rehearsed if dry_run else (await _post(session, obj, dry_run=False))[0]


async def _post(session: Session, obj: Object, *, dry_run: bool) -> tuple[Object, list[str]]:
    path = f"{_prefix(session)}{VCLUSTERS.path(session.namespace, '')}"
    query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict")]
    if dry_run:
        query.append(("dryRun", "All"))
    headers = [("content-type", "application/json"), ("accept", "application/json")]
    code, found, body = await session.client.transport.request("POST", path, query, headers, orjson.dumps(obj))
    answer = orjson.loads(body)
    if code >= 400:
        refusal = ApiError.from_status(answer) if answer.get("kind") == "Status" else ApiError(code, body.decode())
        if code == 404:
            raise CommandError("the server has no virtual clusters; run it with the operator vclusters")
        raise refusal
    return answer, [one.replace('\\"', '"') for one in _WARNING.findall(found.get("warning", ""))]


def _prefix(session: Session) -> str:
    cluster = session.client.cluster
    return "" if cluster in {None, "root"} else f"/clusters/{cluster}"


# -- changing and following


async def change(session: Session, called: str, make: Change) -> tuple[Object, bool]:
    """(the object, whether it was changed). Tried again where somebody else writes at the same time."""
    for _ in range(5):
        found = await find(session, called)
        patch = make(found)
        if patch is None:
            return found, False
        patch = {
            **patch,
            "metadata": {**patch.get("metadata", {}), "resourceVersion": found["metadata"]["resourceVersion"]},
        }
        try:
            made = await session.client.patch(VCLUSTERS, called, patch, session.namespace, field_manager=FIELD_MANAGER)
        except ApiError as error:
            if error.code != 409:
                raise
            continue
        return made, True
    raise CommandError(f"virtual cluster {called} is being changed by others all the time; try again")


async def follow(session: Session, obj: Object, phase: str, limit: float | None) -> Object:
    """Wait until it is in a phase; returns the object. Raises CommandError when it fails or time is over."""
    reached: list[Object] = []
    await wait_for(
        session,
        [Waited(VCLUSTERS, name(obj), namespace(obj), uid(obj))],
        _in_phase(phase, generation(obj)),
        limit,
        f"to be {phase}",
        lambda _, found: reached.append(found or {}),
        explain=True,
    )
    return reached[-1]


def _in_phase(phase: str, since: int) -> Callable[[Object | None], Verdict]:
    def goal(obj: Object | None) -> Verdict:
        if obj is None:
            return Verdict(False, "is gone; somebody deleted it", failed=True)
        status = obj.get("status") or {}
        if int(status.get("observedGeneration") or 0) < since:
            return Verdict(False, "its controller has not seen it yet")
        now, message = str(status.get("phase") or ""), str(status.get("message") or "")
        if now == phase:
            return Verdict(True)
        trouble = _trouble(status)
        if now == "Fail":
            return Verdict(False, f"has failed: {trouble or message}", failed=True)
        return Verdict(False, f"{now or 'not begun'}" + (f", {trouble or message}" if trouble or message else ""))

    return goal


def _trouble(status: Mapping[str, Any]) -> str:
    """What a condition that does not hold says, Ready last: it only repeats."""
    conditions = [one for one in status.get("conditions") or () if one.get("status") == "False" and one.get("message")]
    conditions.sort(key=lambda one: one.get("type") == "Ready")
    return str(conditions[0]["message"]) if conditions else ""


async def gone(session: Session, obj: Object, limit: float | None) -> None:
    def goal(found: Object | None) -> Verdict:
        return Verdict(found is None, "" if found is None else str((found.get("status") or {}).get("phase") or ""))

    waited = [Waited(VCLUSTERS, name(obj), namespace(obj), uid(obj))]
    await wait_for(session, waited, goal, limit, "to be gone", explain=True)


def paused(stop: bool, now: str) -> Change:
    """Pause, or resume, which also wakes one that sleeps."""

    def make(obj: Object) -> Object | None:
        has = STOPPED in annotations_of(obj)
        if stop:
            return None if has else {"metadata": {"annotations": {STOPPED: "true"}}}
        asleep = bool((obj.get("status") or {}).get("asleepSince"))
        if not has and not asleep:
            return None
        return {"metadata": {"annotations": {STOPPED: None, **({USED_AT: now} if asleep else {})}}}

    return make


def scaled(workers: int) -> Change:
    """So many workers: new ones are as the last one is, those that were added last go first."""

    def make(obj: Object) -> Object | None:
        called = name(obj)
        if mode_of(obj) == "logical":
            raise CommandError(f"{called} has no nodes of its own to scale: its pods run on the host's nodes")
        nodes = list((obj.get("spec") or {}).get("nodes") or ())
        now = [one for one in nodes if one.get("role") == "worker"]
        if len(now) == workers:
            return None
        kept = {str(one["name"]) for one in now[:workers]}
        nodes = [one for one in nodes if one.get("role") != "worker" or one["name"] in kept]
        pattern = (now or [one for one in nodes if one.get("role") == "master"])[-1]
        taken, number = {str(one["name"]) for one in nodes}, 0
        for _ in range(workers - len(kept)):
            while (fresh := f"{called[:44]}-w{number}") in taken:
                number += 1
            taken.add(fresh)
            nodes.append({**pattern, "name": fresh, "role": "worker"})
        return {"spec": {"nodes": nodes}}

    return make


def upgraded(image: str) -> Change:
    """Every node on this image; the operator replaces them one by one."""

    def make(obj: Object) -> Object | None:
        if mode_of(obj) == "logical":
            raise CommandError(f"{name(obj)} has no version of its own: it is upgraded with the server")
        nodes = list((obj.get("spec") or {}).get("nodes") or ())
        if all(one.get("image") == image for one in nodes):
            return None
        return {"spec": {"nodes": [{**one, "image": image} for one in nodes]}}

    return make


# -- credentials


async def kubeconfig(session: Session, obj: Object, limit: float | None, *, rotate: bool = False) -> Object:
    """The kubeconfig of a cluster, waited for while it is not there yet. Raises CommandError."""
    nonce = ""
    if rotate:
        nonce = timestamp(session.environment.now())
        patch = {"metadata": {"annotations": {ROTATE: nonce}}}
        await session.client.patch(VCLUSTERS, name(obj), patch, namespace(obj), field_manager=FIELD_MANAGER)
    found: list[Object] = []

    def goal(secret: Object | None) -> Verdict:
        if secret is None or KEY not in (secret.get("data") or {}):
            return Verdict(False, "it is not there yet")
        fresh = not nonce or annotations_of(secret).get(ROTATE) == nonce
        return Verdict(fresh, "the old credentials are still being replaced")

    waited = [Waited(SECRETS, f"{name(obj)}-kubeconfig", namespace(obj))]
    await wait_for(session, waited, goal, limit, "to hold credentials", lambda _, secret: found.append(secret or {}))
    loaded: Any = kube_yaml.load(base64.b64decode(found[-1]["data"][KEY]))
    if not isinstance(loaded, dict) or not loaded.get("clusters"):
        raise CommandError(f"Secret {name(obj)}-kubeconfig does not hold a kubeconfig; delete it and it is made again")
    return loaded


def at_server(config: Object, server: str) -> Object:
    """The same credentials for another address of the same API; the path of a logical cluster is kept."""
    clusters = []
    for entry in config["clusters"]:
        before = str(entry["cluster"].get("server") or "")
        path = re.sub(r"^https?://[^/]*", "", before)
        clusters.append({**entry, "cluster": {**entry["cluster"], "server": server.rstrip("/") + path}})
    return {**config, "clusters": clusters}


def write_private(path: Path, config: Object) -> None:
    """Readable by us alone, whole or not at all. Raises CommandError."""
    path = path.expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(descriptor, "w") as file:
            file.write(kube_yaml.dump(config))
        Path(temporary).replace(path)
    except OSError as error:
        raise CommandError(f"cannot write {path}: {error.strerror}") from None


@contextlib.contextmanager
def borrowed(config: Object) -> Iterator[Path]:
    """A kubeconfig in a file of our own for as long as the block runs."""
    with tempfile.TemporaryDirectory(prefix="fleetplane-") as directory:
        path = Path(directory) / "kubeconfig"
        write_private(path, config)
        yield path


async def run(command: Sequence[str], path: Path) -> int:
    """A program with this kubeconfig, in our terminal; its exit code as a shell tells it. Raises CommandError."""
    environment = {**os.environ, "KUBECONFIG": str(path)}
    try:
        process = await asyncio.create_subprocess_exec(*command, env=environment)
    except OSError as error:
        raise CommandError(f"cannot run {command[0]}: {error.strerror}") from None
    async with _left_to(process):
        code = await process.wait()
    return code if code >= 0 else 128 - code


@contextlib.asynccontextmanager
async def _left_to(process: asyncio.subprocess.Process) -> AsyncIterator[None]:
    """Ctrl-C is the program's while it runs; if we are told to end, so is it."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, process.terminate)
    try:
        yield
    finally:
        for one in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(one)
        if process.returncode is None:
            process.terminate()
            await process.wait()


def shell() -> list[str]:
    if not sys.stdin.isatty():
        raise UsageError("there is no terminal for a shell; name a command, such as: -- kubectl get pods")
    return [os.environ.get("SHELL") or "/bin/sh"]


# -- snapshots


async def follow_snapshot(session: Session, obj: Object, limit: float | None) -> Object:
    reached: list[Object] = []

    def goal(found: Object | None) -> Verdict:
        if found is None:
            return Verdict(False, "is gone; somebody deleted it", failed=True)
        status = found.get("status") or {}
        if status.get("phase") == "Failed":
            return Verdict(False, f"has failed: {status.get('message') or _trouble(status)}", failed=True)
        return Verdict(status.get("phase") == "Done", str(status.get("message") or status.get("phase") or ""))

    waited = [Waited(SNAPSHOTS, name(obj), namespace(obj), uid(obj))]
    await wait_for(session, waited, goal, limit, "to be taken", lambda _, found: reached.append(found or {}))
    return reached[-1]


async def find_snapshot(session: Session, called: str) -> Object:
    try:
        return await session.client.get(SNAPSHOTS, called, session.namespace)
    except ApiError as error:
        if error.code != 404:
            raise
        hint = f"'fleetplane get vk8ssnapshots -n {session.namespace}' lists them"
        raise CommandError(f"there is no snapshot {called!r} in namespace {session.namespace}; {hint}") from None


def is_taken(snapshot: Mapping[str, Any]) -> bool:
    return (snapshot.get("status") or {}).get("phase") == "Done" or is_condition_true(snapshot, "Ready")
