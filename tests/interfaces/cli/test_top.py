"""``top``: measurements as a person reads them. They come from a server in these tests that only knows numbers."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "nodes": [{"metadata": {"name": "sim-0"}, "usage": {"cpu": "1600000001n", "memory": "32Gi"}}],
        "pods": [
            {
                "metadata": {"name": name, "namespace": "default"},
                "containers": [
                    {"name": "main", "usage": {"cpu": cpu, "memory": "10Mi"}},
                    {"name": "side", "usage": {"cpu": "1m", "memory": "2Mi"}},
                ],
            }
            for name, cpu in (("small", "1m"), ("large", "1"))
        ],
    }

    async def metrics(session: Any, path: str, one: str, selector: str) -> Any:
        return answers[path.rpartition("/")[2]]

    monkeypatch.setattr("fleetplane.interfaces.cli.commands.top._metrics", metrics)


def test_nodes_with_their_share(cli: Any, measured: None) -> None:
    shown = cli("top", "nodes")

    assert [line.split() for line in shown.lines] == [
        ["NAME", "CPU", "CPU%", "MEMORY", "MEMORY%"],
        ["sim-0", "1601m", "5%", "32768Mi", "50%"],
    ]


def test_pods_the_busiest_first(cli: Any, measured: None) -> None:
    shown = cli("top", "pods", "--sort-by", "cpu", "--no-headers")

    assert [line.split() for line in shown.lines] == [["large", "1001m", "12Mi"], ["small", "2m", "12Mi"]]


def test_containers_by_themselves(cli: Any, measured: None) -> None:
    shown = cli("top", "pods", "--containers", "--no-headers")

    assert shown.lines[0].split() == ["large", "main", "1000m", "10Mi"]
    assert len(shown.lines) == 4


def test_numbers_for_programs(cli: Any, measured: None) -> None:
    assert cli("top", "nodes", "-o", "json").json[0]["usage"]["memory"] == "32Gi"
