"""What configuration volumes contain: ConfigMaps, Secrets, the downward API and ServiceAccount tokens as files.

Each function answers the whole payload of one volume. Wording of what is missing follows the kubelet's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from fleetplane.model.objects import Object
from fleetplane.node.building import ConfigFailure
from fleetplane.node.configuration import config_entries, secret_entries
from fleetplane.node.pod import PodView
from fleetplane.node.sources import Sources
from fleetplane.node.tokens import Tokens
from fleetplane.node.values import Facts, field_value, resource_value
from fleetplane.node.volumes.payload import File, Payload

DEFAULT_MODE: Final = 0o644


class Projection:
    """Makes payloads for the volumes of pods on one node."""

    def __init__(self, sources: Sources, tokens: Tokens) -> None:
        self._sources = sources
        self._tokens = tokens

    async def payload(self, pod: PodView, volume: Mapping[str, Any], facts: Facts) -> Payload | None:
        """The files of this volume, or None when it is of another kind. Raises ConfigFailure."""
        if (source := volume.get("configMap")) is not None:
            return await self._config_map(pod, source, _mode(source), str(source.get("name") or ""))
        if (source := volume.get("secret")) is not None:
            return await self._secret(pod, source, _mode(source), str(source.get("secretName") or ""))
        if (source := volume.get("downwardAPI")) is not None:
            return self._downward(pod, source.get("items") or [], _mode(source), facts)
        if (source := volume.get("projected")) is not None:
            return await self._projected(pod, source, facts)
        return None

    async def _projected(self, pod: PodView, projected: Mapping[str, Any], facts: Facts) -> Payload:
        mode = _mode(projected)
        files: dict[str, File] = {}
        for source in projected.get("sources") or []:
            if (one := source.get("configMap")) is not None:
                files.update(await self._config_map(pod, one, mode, str(one.get("name") or "")))
            elif (one := source.get("secret")) is not None:
                files.update(await self._secret(pod, one, mode, str(one.get("name") or "")))
            elif (one := source.get("downwardAPI")) is not None:
                files.update(self._downward(pod, one.get("items") or [], mode, facts))
            elif (one := source.get("serviceAccountToken")) is not None:
                token = await self._tokens.token(
                    pod, str(one.get("audience") or ""), int(one.get("expirationSeconds") or 3600)
                )
                files[str(one.get("path") or "token")] = File(token.encode(), mode)
            else:
                kind = next(iter(source), "nothing")
                raise ConfigFailure(f"projected volumes cannot hold {kind} on this node")
        return files

    async def _config_map(self, pod: PodView, source: Object, mode: int, name: str) -> dict[str, File]:
        found = await self._sources.config_map(pod.namespace, name)
        if found is None:
            if source.get("optional"):
                return {}
            raise ConfigFailure(f'configmap "{name}" not found')
        return _chosen(config_entries(found), source, mode, "configmap")

    async def _secret(self, pod: PodView, source: Object, mode: int, name: str) -> dict[str, File]:
        found = await self._sources.secret(pod.namespace, name)
        if found is None:
            if source.get("optional"):
                return {}
            raise ConfigFailure(f'secret "{name}" not found')
        return _chosen(secret_entries(found), source, mode, "secret")

    @staticmethod
    def _downward(pod: PodView, items: Sequence[Mapping[str, Any]], mode: int, facts: Facts) -> dict[str, File]:
        files: dict[str, File] = {}
        for item in items:
            if (ref := item.get("fieldRef")) is not None:
                text = field_value(pod, str(ref.get("fieldPath") or ""), facts)
            else:
                text = resource_value(pod, item.get("resourceFieldRef") or {}, "", facts)
            files[str(item.get("path") or "")] = File(text.encode(), int(item.get("mode") or mode))
        return files


def _chosen(entries: Mapping[str, bytes], source: Mapping[str, Any], mode: int, kind: str) -> dict[str, File]:
    """All entries under their keys, or the items asked for under their paths."""
    items = source.get("items")
    if not items:
        return {key: File(value, mode) for key, value in entries.items()}
    files: dict[str, File] = {}
    for item in items:
        key = str(item.get("key") or "")
        if key in entries:
            files[str(item.get("path") or key)] = File(entries[key], int(item.get("mode") or mode))
        elif not source.get("optional"):
            raise ConfigFailure(f"{kind} references non-existent {kind} key: {key}")
    return files


def _mode(source: Mapping[str, Any]) -> int:
    found = source.get("defaultMode")
    return DEFAULT_MODE if found is None else int(found) & 0o777
