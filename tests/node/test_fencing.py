"""Self-fencing and succession, decided on values: who may start, who must stop, who goes on."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.node.made import container, pod

from fleetplane.node.fencing import GROUP, SELF_FENCING, SelfFencing, seconds_of
from fleetplane.node.observed import PodNotes, Promotion

PAUSED = "node.fleetplane.io/paused"


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def monotonic(self) -> float:
        return self.time


def worker(*, frozen: bool = False, promoted: bool = False, own: str = "", group: bool = True) -> Any:
    notes = {GROUP: "g"} if group else {}
    notes |= {PAUSED: "true"} if frozen else {}
    notes |= {SELF_FENCING: own} if own else {}
    made = pod(container("main"), meta={"annotations": notes}, nodeName="here")
    ended: list[Any] = []
    return SimpleNamespace(
        pod=made,
        uid=made.uid,
        notes=PodNotes(promotion=Promotion("x") if promoted else None),
        ended=ended,
        has_promise=True,
        fail=ended.append,
        say=lambda *a, **k: None,
    )


def fencing(clock: Clock, *workers: Any, promise: float | None = 20.0, folder: Path | None = None) -> SelfFencing:
    files = (folder / "memory", folder / "disk") if folder is not None else (None, None)
    return SelfFencing(clock, lambda: workers, lambda _node: promise, *files)  # type: ignore[arg-type]


def test_who_may_run_once_is_stopped_before_the_promise_is_over() -> None:
    clock, active, frozen, promoted, other = (
        Clock(),
        worker(),
        worker(frozen=True),
        worker(frozen=True, promoted=True),
        worker(group=False),
    )
    made = fencing(clock, active, frozen, promoted, other)
    made.renewed("here", clock.time)
    clock.time += 17.9
    made.look()
    assert made.is_fresh(active)
    assert not active.ended
    clock.time += 0.2
    made.look()
    assert not made.is_fresh(active)
    assert active.ended[0].reason == "SelfFenced"
    assert active.ended[0].grace_seconds == 0
    assert promoted.ended, "what the node let go on is active too"
    assert not frozen.ended
    assert not other.ended


def test_a_pod_may_promise_for_itself() -> None:
    clock, own = Clock(), worker(group=False, own="8")
    made = fencing(clock, own, promise=None)
    made.renewed("here", clock.time)
    clock.time += 5.9
    made.look()
    assert not own.ended
    clock.time += 0.2
    made.look()
    assert own.ended


@pytest.mark.parametrize("text", ["", "soon", "-1", "0", "inf", "nan"])
def test_a_promise_that_cannot_be_read_is_none(text: str) -> None:
    assert seconds_of(text) is None


def test_without_a_promise_nobody_is_stopped() -> None:
    clock, active = Clock(), worker()
    made = fencing(clock, active, promise=None)
    clock.time += 10_000
    made.look()
    assert not active.ended
    assert made.is_fresh(active)
    assert made.may_start(active)


def test_a_restarted_agent_goes_on_counting_and_a_rebooted_one_waits_for_contact(tmp_path: Path) -> None:
    clock, active, frozen = Clock(), worker(), worker(frozen=True)
    fencing(clock, active, folder=tmp_path).renewed("here", clock.time)

    clock.time += 15
    again = fencing(clock, active, frozen, promise=None, folder=tmp_path)
    again.recall("here")
    assert again.may_start(active)
    clock.time += 5
    assert not again.may_start(active)
    again.look()
    assert active.ended

    (tmp_path / "memory").unlink()  # what a reboot leaves of volatile storage
    rebooted = fencing(clock, active, frozen, folder=tmp_path)
    rebooted.recall("here")
    assert not rebooted.may_start(active), "somebody else may have its place by now"
    assert rebooted.may_start(frozen)
    rebooted.renewed("here", clock.time)
    assert not rebooted.may_start(active), "a renewal does not tell who has its place"
    rebooted.synced()
    assert rebooted.may_start(active)
