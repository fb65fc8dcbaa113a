"""What pods refer to, while the control plane is there, is silent, or is not there yet."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fleetplane.node import sources
from fleetplane.node.building import ConfigFailure
from fleetplane.node.sources import Sources


class Silent:
    """A control plane that takes requests and never answers."""

    async def list(self, *args: Any) -> Any:
        await asyncio.Event().wait()

    get = list


@pytest.fixture
def silent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sources:
    monkeypatch.setattr(sources, "ANSWER_SECONDS", 3600)
    return Sources(Silent(), tmp_path)  # type: ignore[arg-type]


async def test_a_static_pod_does_not_wait_for_services(silent: Sources) -> None:
    """It may be what the control plane is made of."""
    assert await silent.services("kube-system", patient=False) == []


async def test_a_static_pod_gets_the_services_last_seen(silent: Sources, tmp_path: Path) -> None:
    seen = {"metadata": {"name": "web"}}
    kept = tmp_path / "services" / "default"
    kept.mkdir(parents=True)
    (kept / "-.json").write_text('{"items":[{"metadata":{"name":"web"}}]}')

    assert await silent.services("default", patient=False) == [seen]


async def test_other_pods_wait(silent: Sources) -> None:
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(silent.services("default"), 0.2)


async def test_what_was_never_seen_is_said_so(silent: Sources, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigFailure, match='configmap "a" is not known here and the control plane cannot be reached'):
        await silent._fetch(sources.CONFIG_MAPS, "default", "a", 0.01)
