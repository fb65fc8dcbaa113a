"""Taking a plane or a node off this machine: its containers, networks and sockets, then its files.

Only names that Fleetplane itself makes are removed; what else lies in the directory stays and is named. What runs is
never touched: the lock of the database and those of the nodes say so.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fleetplane.interfaces.cli.errors import CommandError
from fleetplane.local_nodes import remove_local_nodes
from fleetplane.model.environment import Environment
from fleetplane.node.files import held, remove_tree
from fleetplane.node.runtime import RuntimeFailure
from fleetplane.settings import Settings

DATABASE: Final = "fleetplane.db"
FILES: Final = (
    DATABASE,
    f"{DATABASE}-wal",
    f"{DATABASE}-shm",
    f"{DATABASE}.lock",
    "admin.kubeconfig",
    "node.kubeconfig",
)
FOLDERS: Final = ("nodes", "volumes", "pki")


@dataclass(frozen=True, slots=True)
class Remains:
    """What there is to remove: ``nodes`` by name, ``paths`` below the data directory."""

    data_dir: Path
    nodes: tuple[str, ...]
    paths: tuple[Path, ...]


def find_remains(data_dir: Path) -> Remains:
    """Raises CommandError where there is nothing of ours."""
    found = tuple(data_dir / name for name in (*FILES, *FOLDERS) if (data_dir / name).exists())
    if not found:
        raise CommandError(f"there is no plane and no node in {data_dir}; name its directory with --data-dir")
    nodes = tuple(sorted(one.name for one in (data_dir / "nodes").glob("*") if (one / "instance").exists()))
    return Remains(data_dir, nodes, found)


async def remove(remains: Remains, environment: Environment) -> list[str]:
    """Remove it all; gives the names of what else is in the directory. Raises CommandError while something runs there."""
    data_dir = remains.data_dir
    locks = [data_dir / f"{DATABASE}.lock", *(data_dir / "nodes" / name / "lock" for name in remains.nodes)]
    with ExitStack() as stack:
        for lock in locks:
            if lock.exists() and not stack.enter_context(held(lock)):
                raise CommandError(f"something runs in {data_dir} ({lock} is held); stop it first")
        try:
            await remove_local_nodes(Settings(data_dir=data_dir), environment)
        except RuntimeFailure as error:
            raise CommandError(f"the containers of {data_dir} cannot be removed: {error.message}") from None
        for path in remains.paths:
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink(missing_ok=True)
    left = sorted(one.name for one in data_dir.iterdir())
    if not left:
        data_dir.rmdir()
    return left
