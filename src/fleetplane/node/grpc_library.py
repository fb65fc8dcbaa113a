"""gRPC's library: an extra of the package, loaded where it is first needed and nowhere else.

It is told to leave our child processes alone: they execute other programs at once, and its own care for forks would only
write warnings about itself.
"""

from __future__ import annotations

import os
from typing import Any


def load_grpc() -> Any:
    """The module ``grpc``. Raises ImportError where it is not installed."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    import grpc  # noqa: PLC0415
    import grpc.aio  # noqa: PLC0415

    return grpc
