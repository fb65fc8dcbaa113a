"""Randomised lifecycles on the real server, in slices that end: see ``world`` for who does what and what must hold.

The long form is ``make soak``: a hundred slices of a hundred lifecycles.
"""

from __future__ import annotations

import pytest
from tests.operators.vehicles.world import World, live

from fleetplane.operators.vehicles import plan
from fleetplane.testing import run_virtually


def slice_of(seed: int, lifecycles: int) -> World:
    try:
        return run_virtually(live(seed, lifecycles))
    except BaseException as error:
        error.add_note(f"replay with seed={seed}, lifecycles={lifecycles}")
        raise


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_no_two_are_active_and_nothing_stays(seed: int) -> None:
    world = slice_of(seed, 30)
    assert world.lifecycles >= 30
    assert world.looks > 100
    assert world.deaths > 0
    assert sum(line.lost for line in world.lines) > 0


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100))
def test_ten_thousand_lifecycles(seed: int) -> None:
    world = slice_of(1000 + seed, 100)
    assert world.lifecycles >= 100
    assert world.cuts > 0


def test_the_finalizer_is_ours_and_always_the_same() -> None:
    assert plan.FINALIZER == "vehicles.fleetplane.io/cleanup"
