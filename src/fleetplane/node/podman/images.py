"""Images in Podman's storage: found, pulled, loaded from files."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import quote

from fleetplane.node.podman.api import PodmanApi
from fleetplane.node.podman.states import image_of
from fleetplane.node.runtime import Image, ImageMissing, NotThere, RegistryAuth, RuntimeFailure

PULL_SECONDS: Final = 3600.0
EXPORT_BLOCK: Final = 256 * 1024


class PodmanImages:
    """See the module."""

    def __init__(self, api: PodmanApi) -> None:
        self._api = api

    async def find(self, name: str) -> Image | None:
        try:
            return image_of(await self._api.call("GET", f"/images/{_quoted(name)}/json"))
        except NotThere:
            return None
        except ImageMissing:
            return None

    async def all(self) -> Sequence[Image]:
        return [image_of(entry) for entry in await self._api.call("GET", "/images/json") or []]

    async def pull(self, name: str, auth: Sequence[RegistryAuth] = ()) -> Image:
        failures: list[RuntimeFailure] = []
        for credentials in auth or (RegistryAuth(),):
            try:
                return await self._pull(name, credentials)
            except RuntimeFailure as error:
                failures.append(error)
        raise ImageMissing(failures[-1].message, "ErrImagePull")

    async def _pull(self, name: str, credentials: RegistryAuth) -> Image:
        query = {"reference": name, "policy": "always", "quiet": "false"}
        message = ""
        async with (
            asyncio.timeout(PULL_SECONDS),
            self._api.stream("POST", "/images/pull", query, headers=_auth_header(credentials)) as body,
        ):
            async for raw in body:
                with contextlib.suppress(ValueError):
                    said = json.loads(raw)
                    message = str(said.get("error") or message)
        found = await self.find(name)
        if message or found is None:
            raise ImageMissing(f'failed to pull image "{name}": {message or "it is not there after the pull"}')
        return found

    async def load(self, archive: str, name: str = "") -> Image:
        path = "/images/import" if name else "/images/load"
        query = {"reference": name} if name else {}
        headers = {"Content-Type": "application/x-tar"}
        with open_archive(archive) as data:
            async with self._api.stream("POST", path, query, headers=headers, data=data) as body:
                answer = json.loads(await body.read() or b"{}")
        names = answer.get("Names") or [answer.get("Id") or name]
        found = await self.find(name or str(names[0]))
        if found is None:
            raise RuntimeFailure(f"{archive} holds no image")
        return found

    async def remove(self, name: str) -> None:
        with contextlib.suppress(NotThere, ImageMissing):
            await self._api.call("DELETE", f"/images/{_quoted(name)}")

    async def config(self, name: str) -> Mapping[str, Any]:
        """What the image says of how to run it, in OCI's words. Raises ImageMissing."""
        try:
            found = await self._api.call("GET", f"/images/{_quoted(name)}/json")
        except NotThere as error:
            raise ImageMissing(error.message) from None
        config = found.get("Config")
        return config if isinstance(config, dict) else {}

    async def export(self, name: str, labels: Mapping[str, str]) -> AsyncIterator[bytes]:
        """Its root file system as one tar. Podman flattens layers for containers only, so there is one for a moment."""
        wanted = {"image": name, "labels": dict(labels), "command": ["never-run"], "netns": {"nsmode": "none"}}
        made = await self._api.call("POST", "/containers/create", wanted)
        path = f"/containers/{made['Id']}"
        try:
            async with self._api.stream("GET", f"{path}/export") as body:
                async for data in body.iter_chunked(EXPORT_BLOCK):
                    yield data
        finally:
            with contextlib.suppress(NotThere):
                await asyncio.shield(self._api.call("DELETE", path, query={"force": "true", "v": "true"}))


def open_archive(path: str) -> BinaryIO:
    """Raises RuntimeFailure."""
    try:
        return Path(path).open("rb")
    except OSError as error:
        raise RuntimeFailure(f"cannot read the image archive {path}: {error.strerror}") from error


def _quoted(name: str) -> str:
    return quote(name, safe="/:@")


def _auth_header(credentials: RegistryAuth) -> dict[str, str]:
    if not credentials.username and not credentials.identity_token:
        return {}
    shown = {
        "username": credentials.username,
        "password": credentials.password,
        "identitytoken": credentials.identity_token,
    }
    return {"X-Registry-Auth": base64.urlsafe_b64encode(json.dumps(shown).encode()).decode()}
