"""Static pods: pods a node runs because a file on it says so, with or without a control plane.

Each file of the folder is one Pod, in YAML or JSON. Its identity comes from the node and its content, so it is the same
pod after a restart and another one after an edit. In the API a mirror pod shows it; deleting the mirror changes nothing
but that it is made again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from fleetplane.client.informer import Change
from fleetplane.client.protocol import Client
from fleetplane.client.snapshot import Snapshot
from fleetplane.model import objects
from fleetplane.model.builtin.types import PODS
from fleetplane.model.errors import ApiError
from fleetplane.model.objects import Object
from fleetplane.model.yaml import YamlError, load_all
from fleetplane.node.pod import CONFIG_HASH, CONFIG_MIRROR, CONFIG_SOURCE, PodView

LOOK_SECONDS: Final = 2.0
LARGEST_FILE: Final = 1024 * 1024
SUFFIXES: Final = {".yaml", ".yml", ".json"}

_log = logging.getLogger(__name__)


def static_pod(obj: Mapping[str, Any], node: str, origin: str) -> Object:
    """The pod a file describes, as it runs on this node. Raises ValueError."""
    if obj.get("kind") != "Pod" or obj.get("apiVersion") != "v1":
        raise ValueError(f"{origin} does not hold a v1 Pod")
    name = objects.name(obj)
    if not name or not (obj.get("spec") or {}).get("containers"):
        raise ValueError(f"the Pod in {origin} needs a name and at least one container")
    digest = hashlib.sha256(
        node.encode() + origin.encode() + orjson.dumps(obj, option=orjson.OPT_SORT_KEYS)
    ).hexdigest()
    metadata = dict(obj.get("metadata") or {})
    metadata["name"] = f"{name}-{node}"
    metadata.setdefault("namespace", "default")
    metadata["uid"] = digest[:32]
    metadata["annotations"] = {
        **(metadata.get("annotations") or {}),
        CONFIG_SOURCE: "file",
        CONFIG_HASH: digest[:32],
    }
    return {**obj, "metadata": metadata, "spec": {**obj["spec"], "nodeName": node}}


def read_folder(folder: Path, node: str) -> dict[str, Object]:
    """Every static pod by uid; files that cannot be used are reported and left out."""
    found: dict[str, Object] = {}
    if not folder.is_dir():
        return found
    for path in sorted(folder.iterdir()):
        if path.suffix not in SUFFIXES or path.name.startswith(".") or not path.is_file():
            continue
        try:
            if path.stat().st_size > LARGEST_FILE:
                raise ValueError("the file is larger than 1 MiB")
            for document in load_all(path.read_bytes()):
                if not isinstance(document.value, dict):
                    raise ValueError("the file does not hold objects")  # noqa: TRY004
                pod = static_pod(document.value, node, path.name)
                found[objects.uid(pod)] = pod
        except (OSError, ValueError, YamlError) as error:
            _log.error("static pod file %s cannot be used: %s", path, error)
    return found


def mirror_of(pod: Mapping[str, Any], node_uid: str) -> Object:
    """The API object that shows a static pod."""
    metadata = dict(pod["metadata"])
    digest = metadata["annotations"][CONFIG_HASH]
    metadata.pop("uid", None)
    metadata["annotations"] = {**metadata["annotations"], CONFIG_MIRROR: digest}
    node = str(pod["spec"]["nodeName"])
    if node_uid:
        owner = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": True}
        metadata["ownerReferences"] = [owner]
    tolerations = [*(pod["spec"].get("tolerations") or []), {"effect": "NoExecute", "operator": "Exists"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {**pod["spec"], "tolerations": tolerations},
    }


class StaticPods:
    """Watches the folder and keeps the mirrors.

    ``on_change`` is told of pods that come and of uids that go, ``on_mirror`` of a pod's uid when it gets a new mirror.
    """

    def __init__(
        self,
        folder: Path,
        node: str,
        client: Client,
        on_change: Callable[[list[PodView], list[str]], None],
        node_uid: Callable[[], str],
        on_mirror: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._node = node
        self._client = client
        self._on_change = on_change
        self._on_mirror = on_mirror
        self._node_uid = node_uid
        self._pods: dict[str, Object] = {}
        self._mirrors: dict[str, str] = {}
        self._seen: dict[tuple[str, str], Snapshot] = {}

    def mirror_uid(self, pod: PodView) -> str:
        """The uid of the pod's mirror, empty while there is none."""
        return self._mirrors.get(pod.uid, "")

    def has(self, uid: str) -> bool:
        return uid in self._pods

    async def remove_stale(self, mirrors: Iterable[Object]) -> None:
        """Delete mirrors of this node that show pods it no longer has: their files went while nobody looked."""
        for mirror in mirrors:
            if objects.annotations(mirror).get(CONFIG_MIRROR, "") in self._pods:
                continue
            name, namespace = objects.name(mirror), objects.namespace(mirror)
            try:
                await self._client.delete(PODS, name, namespace, grace_period_seconds=0, uid=objects.uid(mirror))
            except (ApiError, OSError, TimeoutError) as error:
                _log.info("the mirror %s/%s of a static pod that is gone is left: %s", namespace, name, error)

    def read(self) -> None:
        """Look at the folder now and tell what changed."""
        found = read_folder(self._folder, self._node)
        come = [PodView(pod) for uid, pod in found.items() if uid not in self._pods]
        gone = [uid for uid in self._pods if uid not in found]
        self._pods = found
        if come or gone:
            self._on_change(come, gone)

    async def run(self, registered: asyncio.Event) -> None:
        """Until cancelled; mirrors are kept once the node is registered."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self.read()
            if registered.is_set():
                await self.keep_mirrors()

    def mirror_seen(self, change: Change) -> None:
        """A mirror on this node changed: the watch tells, so nobody need ask."""
        new = change.new
        key = (new.key.namespace, new.key.name)
        if change.event == "DELETED":
            self._seen.pop(key, None)
            for uid in [uid for uid, mirror in self._mirrors.items() if mirror == new.uid]:
                del self._mirrors[uid]
        else:
            self._seen[key] = new

    async def keep_mirrors(self) -> None:
        for uid, pod in list(self._pods.items()):
            try:
                await self._keep_mirror(uid, pod)
            except (ApiError, OSError, TimeoutError) as error:
                _log.info("static pod %s is not shown in the API: %s", objects.name(pod), error)

    async def _keep_mirror(self, uid: str, pod: Object) -> None:
        name, namespace = objects.name(pod), objects.namespace(pod)
        seen = self._seen.get((namespace, name))
        if seen is None:
            if uid in self._mirrors:
                return  # just made: the watch will tell
            try:
                made = await self._client.create(PODS, mirror_of(pod, self._node_uid()), namespace)
            except ApiError as error:
                if error.reason == "AlreadyExists":
                    _log.error("a pod named %s/%s is in the way of the static pod's mirror", namespace, name)
                    return
                raise
            self._show(uid, objects.uid(made))
            return
        same = seen.annotations.get(CONFIG_MIRROR) == objects.annotations(pod)[CONFIG_HASH]
        if same and not seen.meta.deletion_timestamp:
            self._show(uid, seen.uid)
            return
        await self._client.delete(PODS, name, namespace, grace_period_seconds=0, uid=seen.uid)

    def _show(self, uid: str, mirror_uid: str) -> None:
        if self._mirrors.get(uid) != mirror_uid:
            self._mirrors[uid] = mirror_uid
            self._on_mirror(uid)
