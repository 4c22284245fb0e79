"""Faults of routes: what an open connection feels when its packets go elsewhere, or nowhere."""

import contextlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from netlab import names
from netlab.clock import now_s, wait_until
from netlab.handles import NodeHandle
from netlab.lab import Lab
from tests.support.flap import flapping
from tests.support.flow import BROKEN, Flow
from tests.support.joined import IDENTITY, ask
from tests.support.lab import Keeper
from tests.support.load import Load

pytestmark = pytest.mark.lab

FAMILIES = [4, 6]
CONNECTIONS = 8


@pytest.fixture(scope="module")
def whole(keeper: Keeper) -> None:
    """Whatever was broken before."""
    keeper.ensure("lab").heal()


@pytest.fixture
def planet(whole: None, lab: Lab) -> Iterator[Lab]:
    yield lab
    Lab.running().heal()


@contextlib.contextmanager
def withdrawn(lab: Lab, pop: str) -> Iterator[None]:
    """Its routes are gone at once, and nobody was asked to leave before."""
    lab.pop(pop).withdraw()
    try:
        yield
    finally:
        lab.pop(pop).announce()


@pytest.mark.parametrize("family", FAMILIES)
def test_an_idle_connection_is_reset_when_its_route_moves(planet: Lab, family: int) -> None:
    ber = planet.city("ber")
    with Flow(ber, family=family) as old:
        assert old.pop() == "fra"
        with withdrawn(planet, "fra"):
            ber.wait_until_served_by("ams", within_ms=3000, family=family)
            began_s = now_s()
            with pytest.raises(BROKEN):
                old.pop()
            assert now_s() - began_s < 1.0, "it is told, and does not wait for its own patience to end"
            with Flow(ber, family=family) as new:
                assert new.pop() == "ams"


def test_a_small_answer_comes_whole_or_not_at_all_when_the_route_moves(planet: Lab) -> None:
    ber = planet.city("ber")
    assert ask(ber, "identity", edge_cold="wait").status == 200
    # The load ends first: the way back is a move too.
    with (
        contextlib.ExitStack() as fault,
        Load(ber, "/run/identity", IDENTITY, connections=CONNECTIONS) as load,
    ):
        load.wait_until_asked(100)
        fault.enter_context(withdrawn(planet, "fra"))
        moved_s = now_s()
        load.wait_until_asked(100, since_s=moved_s)
    assert set(load.outcomes()) <= {"200", "reset", "closed"}, "nobody took a part for the whole"
    lost = sum(asked.outcome != "200" for asked in load.history)
    assert lost <= CONNECTIONS, f"one on each connection at most: {load.outcomes()}"
    assert "ams" in {asked.pop for asked in load.since(moved_s)}


#: 32 times 384 numbers come back.
MANY_TEXTS = json.dumps({"input": [f"Sentence {n} of many." for n in range(32)]}).encode()


def test_a_large_answer_that_the_route_cuts_short_is_seen_to_be_short(planet: Lab) -> None:
    ber = planet.city("ber")
    assert ask(ber, "minilm", edge_cold="wait").status == 200
    with Flow(ber, timeout_s=30.0, small=True) as old:
        answer = old.ask("/run/minilm", MANY_TEXTS, edge_cold="wait")
        assert answer.status == 200
        assert int(answer.headers["content-length"]) > 100_000
        assert answer.read(1 << 14)
        with withdrawn(planet, "fra"):
            ber.wait_until_served_by("ams", within_ms=3000)
            with pytest.raises(BROKEN):
                answer.read()


def test_without_any_route_new_ones_are_told_at_once_and_open_ones_wait(planet: Lab) -> None:
    ber = planet.city("ber")
    doors = [node.name for node in planet.topology.nodes if node.ingress]
    with Flow(ber, timeout_s=1.0) as old, contextlib.ExitStack() as broken:
        assert old.pop() == "fra"
        for door in doors:
            broken.enter_context(planet.fail(f"{door}/bird", "kill"))

        def unreachable() -> bool:
            try:
                ber.get("/pop", timeout_s=1.0)
            except TimeoutError:
                return False
            except OSError as error:
                return error.strerror in ("No route to host", "Network is unreachable")
            return False

        wait_until(unreachable, "a new connection is told that there is no way", within_s=15)
        began_s = now_s()
        assert unreachable()
        assert now_s() - began_s < 0.5
        with pytest.raises((TimeoutError, OSError)):
            old.pop()


LAST, AWAY = "announced as the last one: no other node announces", "withdrawn: drained by the operator"


@contextlib.contextmanager
def all_drained(lab: Lab) -> Iterator[list[NodeHandle]]:
    """Every node that has a door, all at once; serving again afterwards."""
    doors = [lab.node(node.name) for node in lab.topology.nodes if node.ingress]
    with ThreadPoolExecutor(len(doors)) as pool:
        try:
            list(pool.map(NodeHandle.drain, doors))
            yield doors
        finally:
            list(pool.map(NodeHandle.undrain, doors))


def announcements(nodes: list[NodeHandle]) -> set[str]:
    return {str(node.admin("GET", "/edge/state").json["tree"]["announcement"]) for node in nodes}


def test_where_every_pop_is_drained_the_nearest_says_so_until_one_is_back(planet: Lab) -> None:
    ber, tyo = planet.city("ber"), planet.city("tyo")
    assert ask(ber, "identity", edge_cold="wait").status == 200
    with all_drained(planet) as doors:
        wait_until(lambda: announcements(doors) == {LAST}, "every door is open again", within_s=10)
        for city, pop in ((ber, "fra"), (tyo, "nrt")):
            city.wait_until_served_by(pop, within_ms=2000)
            for family in FAMILIES:
                refused = city.post("/run/identity", IDENTITY, family=family)
                told = (refused.status, refused.headers["edge-drop-reason"], refused.headers["edge-pop"])
                assert told == (503, "last-one", pop), refused.text
                assert 1 <= int(refused.headers["retry-after"]) <= 3
                assert city.get("/v2/health/live", family=family).status == 200
        planet.node("iad-a").undrain()
        ber.wait_until_served_by("iad", within_ms=5000)
        assert ask(ber, "identity").status == 200
        others = [node for node in doors if node.name != "iad-a"]
        wait_until(lambda: announcements(others) == {AWAY}, "the others are away again", within_s=5)
    for city, pop in ((ber, "fra"), (tyo, "nrt")):
        city.wait_until_served_by(pop, within_ms=5000)


@pytest.mark.parametrize("family", FAMILIES)
def test_who_was_served_by_a_pop_that_vanished_is_reset_by_the_next(planet: Lab, family: int) -> None:
    """The router misses it (BFD), moves the route, and the next POP knows nothing of the connection."""
    ber = planet.city("ber")
    with Flow(ber, family=family, timeout_s=10.0) as old:
        assert old.pop() == "fra"
        with planet.fail("fra-a", "blackhole"):
            ber.wait_until_served_by("ams", within_ms=3000 + 2000, family=family)
            with pytest.raises(BROKEN):
                old.pop()


def test_a_cut_link_whose_route_is_kept_is_silence_and_open_connections_outlive_it(planet: Lab) -> None:
    lon = planet.city("lon")
    with withdrawn(planet, "ams"):
        lon.wait_until_served_by("fra", within_ms=3000)
        with Flow(lon, timeout_s=10.0) as old:
            assert old.pop() == "fra"
            planet.wan.cut("fra", "ams")
            assert lon.served_by() == "(TimeoutError)"
            hop = planet.next_hop(names.router("ams"), planet.topology.vip4)
            assert hop is not None, "nobody was told"
            assert hop.via == planet.topology.pop("fra").wan4
            planet.wan.uncut("fra", "ams")
            assert old.pop() == "fra"


def test_a_link_that_flaps_moves_no_route_and_costs_next_to_nothing(planet: Lab) -> None:
    lon = planet.city("lon")
    assert ask(lon, "identity", edge_cold="wait").status == 200
    before = planet.sessions("r-ams")
    with Load(lon, "/run/identity", IDENTITY, connections=CONNECTIONS) as load:
        with flapping(planet, "fra", "ams") as deeds:
            wait_until(lambda: len(deeds) >= 10, "five times down and up", within_s=10)
            moved_s = now_s()
        load.wait_until_asked(100, since_s=moved_s)
    bad = sum(asked.outcome != "200" for asked in load.history)
    assert bad <= 0.01 * len(load.history), load.outcomes()
    assert planet.sessions("r-ams") == before
    assert all(before.values())
