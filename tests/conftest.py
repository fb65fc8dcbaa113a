"""What all tests share: whatever uses the machine's own network or Podman runs in one worker, one after the other."""

from __future__ import annotations

import pytest

_ON_THE_MACHINE = frozenset(
    {"test_network.py", "test_services.py", "test_real_node.py", "test_join.py", "test_container_runtime.py"}
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.name in _ON_THE_MACHINE or item.get_closest_marker("podman") is not None:
            item.add_marker(pytest.mark.xdist_group("machine"))
