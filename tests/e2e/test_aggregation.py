"""An old kubectl, which knows OpenAPI v2 only, explains what another server serves behind an APIService of ours."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from tests.apiserver.aggregation.documents import GROUP, VERSION
from tests.apiserver.aggregation.elsewhere import Elsewhere, manifests
from tests.apiserver.https import https_server

from .conftest import RunningPlane, start_plane

pytestmark = pytest.mark.e2e

OLD = [
    path
    for path in (
        Path(__file__).parents[2] / ".venv" / "debian" / "usr" / "bin" / "kubectl",
        Path(os.environ.get("REAL_KUBE", Path.home() / ".cache" / "real-kube")) / "bin" / "kubectl",
    )
    if path.exists()
][:1]
"""The first kubectl 1.20 there is."""


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[RunningPlane]:
    running = start_plane(tmp_path / "data", "--nodes", "0")
    yield running
    assert running.stop() == 0


@pytest_asyncio.fixture
async def published(plane: RunningPlane) -> AsyncIterator[None]:
    """Another server, and the APIService that leads there."""
    async with https_server(lambda _: {}, names=("gadgets.default.svc",), raw=Elsewhere()) as server:
        found = {"apiVersion": "v1", "kind": "List", "items": manifests(server)}
        await kubectl(plane, "apply", "-f", "-", stdin=json.dumps(found))
        await kubectl(plane, "wait", "apiservice", f"{VERSION}.{GROUP}", "--for=condition=Available")
        yield


async def kubectl(plane: RunningPlane, *arguments: str, stdin: str | None = None) -> str:
    """What it says, good or bad. The other server lives in this loop, so the loop goes on meanwhile."""
    done = await asyncio.to_thread(
        subprocess.run,
        [
            OLD[0],
            "--kubeconfig",
            str(plane.kubeconfig),
            "--cache-dir",
            str(plane.data_dir.parent / "cache"),
            *arguments,
        ],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return str(done.stdout + done.stderr)


@pytest.mark.skipif(not OLD, reason="there is no kubectl 1.20 here")
@pytest.mark.usefixtures("published")
async def test_an_old_kubectl_explains_kinds_of_another_server_and_ours(plane: RunningPlane) -> None:
    told = ""
    for _ in range(50):  # the document is fetched once the server is found to be there
        told = await kubectl(plane, "explain", "gadgets.spec", f"--api-version={GROUP}/{VERSION}")
        if "How large." in told:
            break
        await asyncio.sleep(0.1)

    assert "How large." in told
    assert "Deployment enables declarative updates" in await kubectl(plane, "explain", "deployment")
