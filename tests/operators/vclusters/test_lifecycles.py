"""Randomised lives of clusters of pods: the invariants hold, whatever happens in whatever order (see ``lives``)."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.operators.vclusters.lives import live

SHORT = range(200)
LONG = range(100_000)
PHASES = {"Waiting", "Waiting Network Connection", "Installing", "Running", "Paused", "Restarting", "Fail"}


def test_random_lives_keep_the_invariants_and_come_to_what_is_wanted() -> None:
    phases: Counter[str] = Counter()
    identities: Counter[int] = Counter()
    for seed in SHORT:
        life = live(seed)
        phases.update(life.phases)
        identities[life.identities] += 1
    assert set(phases) == PHASES, "what never happens is not tested"
    assert identities[1] > len(SHORT) // 2, "most control planes are made once"


def test_a_life_is_told_again_by_its_seed() -> None:
    first, second = live(7), live(7)
    assert (first.records, first.now, first.machines.log) == (second.records, second.now, second.machines.log)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_random_lives() -> None:
    for seed in LONG:
        live(seed)
