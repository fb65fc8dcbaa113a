"""What to do about one object, given what its owners are. Pure; the rules are kube-controller-manager's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from fleetplane.workloads.garbage.graph import Node, Owner


class State(Enum):
    """What an owner is to its dependent."""

    SOLID = "it exists and stays, or goes without waiting"
    ABSENT = "it does not exist at the place the reference says"
    WAITING = "it is being deleted in the foreground and waits for its dependents"


@dataclass(frozen=True, slots=True)
class Nothing:
    pass


@dataclass(frozen=True, slots=True)
class DropOwners:
    """Take these references off: the object has other owners that keep it."""

    uids: frozenset[str]


@dataclass(frozen=True, slots=True)
class Delete:
    """``unblock``: its owner must no longer wait for it first, because they wait for each other in a circle."""

    policy: Literal["Foreground", "Background", "Orphan"]
    unblock: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """Its dependents are gone: it need not wait any longer."""


@dataclass(frozen=True, slots=True)
class LookAt:
    """It waits for these dependents; they must be looked at."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class OrphanAll:
    """Its dependents are to live on without it."""

    nodes: tuple[Node, ...]


Action = Nothing | DropOwners | Delete | Release | LookAt | OrphanAll


def decide_for_waiting(node: Node) -> Action:
    """For an object that waits for its dependents (``foregroundDeletion``) or lets them live (``orphan``)."""
    if node.orphans_dependents:
        return OrphanAll(tuple(node.dependents))
    blocking = tuple(one for one in node.dependents if one.blocks(node))
    if not blocking:
        return Release()
    return LookAt(tuple(one for one in blocking if not one.waits_for_dependents))


def decide(node: Node, owners: Sequence[tuple[Owner, State]]) -> Action:
    """For an object with owners, each in its state."""
    if node.deleting or not owners:
        return Nothing()
    solid = [one for one, state in owners if state is State.SOLID]
    waiting = [one for one, state in owners if state is State.WAITING]
    if solid:
        gone = frozenset(one.uid for one, state in owners if state is not State.SOLID)
        return DropOwners(gone) if gone else Nothing()
    if waiting and node.dependents:
        circular = any(one.waits_for_dependents for one in node.dependents)
        return Delete("Foreground", unblock=circular)
    return Delete("Background")
