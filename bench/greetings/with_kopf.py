"""The benchmark's operator with kopf: one ConfigMap per Greeting, then status. Run with ``kopf run``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import aiohttp
import kopf
import yaml


@kopf.on.startup()
async def configure(settings: kopf.OperatorSettings, memo: kopf.Memo, **_: Any) -> None:
    settings.posting.enabled = False
    config = yaml.safe_load(Path(os.environ["KUBECONFIG"]).read_text())  # noqa: ASYNC240
    memo.server = config["clusters"][0]["cluster"]["server"]
    memo.session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=False, limit=16),
        headers={"authorization": f"Bearer {config['users'][0]['user']['token']}"},
    )


@kopf.on.create("bench.example.org", "v1", "greetings")
async def create(
    spec: kopf.Spec, name: str, namespace: str | None, body: kopf.Body, memo: Any, patch: kopf.Patch, **_: Any
) -> None:
    child = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"text": spec["text"]},
    }
    kopf.append_owner_reference(child, owner=body)
    url = f"{memo.server}/api/v1/namespaces/{namespace}/configmaps"
    async with memo.session.post(url, json=child) as response:
        if response.status not in {201, 409}:
            response.raise_for_status()
    patch.status["said"] = True


@kopf.on.cleanup()
async def close(memo: kopf.Memo, **_: Any) -> None:
    await memo.session.close()
