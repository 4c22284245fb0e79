"""The schedule of a chaos run: reproducible, and by its rules whatever the seed."""

from itertools import pairwise

import pytest

from netlab import chaosplan, faults, faulttarget, planetfile
from netlab.chaosplan import Planned

PLANET = planetfile.load(planetfile.PLANET)
TWO = planetfile.load(planetfile.find("two-workers"))
SECONDS = 600.0
SEEDS = range(40)


def drawn(seed: int, seconds: float = SECONDS) -> tuple[Planned, ...]:
    return chaosplan.plan(PLANET, seed=seed, seconds=seconds)


def test_the_same_seed_gives_the_same_plan() -> None:
    assert drawn(7) == drawn(7)
    assert drawn(7) != drawn(8)


def slow(one: Planned) -> bool:
    special = one.conditions or one.how == chaosplan.DRAIN
    return not special and faults.way(faulttarget.parse(one.target, PLANET).kind, one.how).slow


@pytest.mark.parametrize("planet", [PLANET, TWO], ids=["planet", "two workers"])
def test_every_plan_keeps_the_rules(planet: chaosplan.Topology) -> None:
    doors = {node.name for node in planet.nodes if node.ingress}
    for seed in range(20):
        planned = chaosplan.plan(planet, seed=seed, seconds=SECONDS)
        assert planned, "ten minutes are enough to break something"
        for one in planned:
            active = [other for other in planned if other.at_s <= one.at_s < other.until_s]
            targets = [faulttarget.parse(other.target, planet) for other in active]
            assert len(active) <= chaosplan.AT_ONCE
            assert len({chaosplan.place(target) for target in targets}) == len(targets), "two of one place"
            hit = set().union(*(chaosplan.ingress_of(planet, target) for target in targets))
            assert hit < doors, f"seed {seed}: no ingress is left at {one.at_s}"


def test_it_begins_and_ends_calmly() -> None:
    for seed in SEEDS:
        for seconds in (20.0, 60.0, SECONDS):
            planned = drawn(seed, seconds)
            lead_s = min(chaosplan.LEAD_S, chaosplan.LEAD_SHARE * seconds)
            tail_s = min(chaosplan.TAIL_S, chaosplan.TAIL_SHARE * seconds)
            assert all(one.at_s >= round(lead_s, 1) for one in planned)
            assert all(one.until_s <= seconds - tail_s + 0.1 for one in planned)


def test_restarts_of_nodes_are_rare() -> None:
    for seed in SEEDS:
        begins = [one.at_s for one in drawn(seed) if slow(one)]
        gaps = [later - sooner for sooner, later in pairwise(begins)]
        assert all(gap >= chaosplan.SLOW_EVERY_S - 0.1 for gap in gaps)


def test_everything_is_drawn_sooner_or_later() -> None:
    seen = {(one.kind, one.how) for seed in range(10) for one in drawn(seed, 7200.0)}
    assert seen == {(choice.target.kind, choice.how) for choice in chaosplan.choices(PLANET)}


def test_a_run_too_short_breaks_nothing() -> None:
    assert drawn(1, 2.0) == ()
