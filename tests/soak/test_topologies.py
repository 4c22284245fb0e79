"""Every planet that ships comes up with real nodes, serves every city, and goes without a trace."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from netlab import paths, planetfile, start
from netlab.clock import wait_until
from netlab.lab import Lab
from tests.support.joined import ask, wait_until_joined
from tests.support.lab import poplab, say
from tests.support.machine import snapshot

pytestmark = [pytest.mark.soak, pytest.mark.usefixtures("no_lab")]

SHIPPED = planetfile.shipped()


@contextmanager
def running(path: Path) -> Iterator[Lab]:
    before = snapshot()
    lab, fresh = start.up(start.Wish(planet=path), say)
    assert fresh
    wait_until_joined(lab)
    yield lab
    start.down()
    assert snapshot() == before


@pytest.fixture(params=SHIPPED.values(), ids=list(SHIPPED))
def planet(request: pytest.FixtureRequest) -> Iterator[Lab]:
    with running(request.param) as lab:
        yield lab


def test_it_serves_every_city_where_bgp_leads_it(planet: Lab) -> None:
    for city, way in paths.catchments(planet.topology).items():
        answer = ask(planet.city(city), "identity")
        assert (answer.status, answer.headers["edge-pop"]) == (200, way[-1]), answer
        assert planet.city(city).get("/pop", family=6).pop == way[-1]
    found = json.loads(poplab("map", "--json").stdout)
    assert {city["served_by"]["v4"] == city["expected"] for city in found["cities"]} == {True}


def test_two_machines_of_one_pop_share_its_requests() -> None:
    with running(SHIPPED["two-gpus-one-pop"]) as lab:
        nyc = lab.city("nyc")
        for node in ("iad-b", "iad-c"):
            assert lab.node(node).popctl("models", "prefetch", "identity", "--tier", "device").returncode == 0
        wait_until(
            lambda: (
                {ask(nyc, "identity").headers["edge-served-by"] for _ in range(20)} == {"iad-b/0", "iad-c/0"}
            ),
            "both answer",
            within_s=20,
        )
