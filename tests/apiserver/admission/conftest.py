from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleetplane.model.objects import Object


@pytest.fixture
def pod() -> Callable[..., Object]:
    """A pod of one container; ``spec`` adds to it, ``requests`` and ``limits`` are the container's."""

    def make(name: str = "web", *, requests: Object | None = None, limits: Object | None = None, **spec: Any) -> Object:
        container: Object = {"name": "c", "image": "i"}
        if requests or limits:
            container["resources"] = {"requests": requests or {}, "limits": limits or {}}
        metadata = {"generateName": name} if name.endswith("-") else {"name": name}
        return {"metadata": metadata, "spec": {"containers": [container], **spec}}

    return make
