"""A request that names an object: read once into the region that runs it, and from there for everybody."""

import json
import os
from pathlib import Path

import pytest

from netlab.clock import now_s
from netlab.lab import Lab
from netlab.probe import Answer
from tests.support import narrow as little
from tests.support.joined import evict, prefetch, wait_until_joined, wait_until_warm
from tests.support.lab import Keeper
from tests.support.objects import put_object

pytestmark = pytest.mark.lab

#: Beacons and probes into one POP are 4 kB/s.
NOISE_BYTES_PER_S = 10_000
ROWS = 16
NEAREST = {"tyo": "nrt", "ber": "fra"}


@pytest.fixture
def planet(narrow: Lab) -> Lab:
    narrow.wan.mend()
    wait_until_joined(narrow)
    return narrow


def publish(root: Path, name: str, content: bytes) -> int:
    """The bytes that a region which lacks this object reads."""
    put_object(root, name, content)
    return len(content) + (root / f"data/{name}.json").stat().st_size


def bring_near(lab: Lab, model: str) -> None:
    for pop in NEAREST.values():
        for other in little.HOMES:
            evict(lab, f"{pop}-a", other)
        prefetch(lab, f"{pop}-a", model)
        wait_until_warm(lab, f"{pop}-a", f"{pop}-a/0", model)


def asked(lab: Lab, city: str, model: str, name: str) -> Answer:
    answer = lab.city(city).post(f"/run/{model}", json.dumps({"input": {"object": name}}))
    assert answer.status == 200, answer.body
    return answer


def test_a_second_request_in_a_region_reads_nothing_from_outside(planet: Lab, keeper: Keeper) -> None:
    bring_near(planet, "remote")
    row = planet.city("tyo").post("/run/remote", little.row(little.REMOTE_SIDE)).json["outputs"]["y"][0]
    half = b"\0\0\0\x3f" * little.REMOTE_SIDE
    size_bytes = publish(keeper.narrow_models, "halves/rows.f32", half * ROWS)
    for city, pop in NEAREST.items():
        first = asked(planet, city, "remote", "halves/rows.f32")
        assert (first.headers["edge-served-by"], first.headers["edge-egress"]) == (
            f"{pop}-a/0",
            f"req=0;weights={size_bytes}",
        )
        assert len(first.json["outputs"]["y"]) == ROWS
        assert first.json["outputs"]["y"][0] == pytest.approx(row, rel=1e-4, abs=1e-4)
        before, began_s = planet.wan.bytes_into([pop]), now_s()
        second = asked(planet, city, "remote", "halves/rows.f32")
        moved, passed_s = planet.wan.bytes_into([pop]) - before, now_s() - began_s
        assert second.headers["edge-egress"] == "req=0;weights=0"
        assert second.json["outputs"]["y"][-1] == pytest.approx(row, rel=1e-4, abs=1e-4)
        assert moved <= NOISE_BYTES_PER_S * max(1.0, passed_s), f"{moved} of {size_bytes} bytes"


def test_the_region_that_runs_it_reads_it(planet: Lab, keeper: Keeper) -> None:
    """Confined to eu and asked for in tyo: the name goes to fra, and fra's region reads the object."""
    content = os.urandom(1) * 64
    size_bytes = publish(keeper.narrow_models, "far.f32", content)
    first = asked(planet, "tyo", "eu-only", "far.f32")
    assert first.headers["edge-served-by"] == "fra-a/0"
    req, weights = (int(part.partition("=")[2]) for part in first.headers["edge-egress"].split(";"))
    assert 0 < req < size_bytes, "only the name left ap"
    assert weights >= size_bytes, "the object, and the model if it was cold"
    second = asked(planet, "tyo", "eu-only", "far.f32")
    assert second.headers["edge-egress"] == f"req={req};weights=0"


def test_a_name_that_nobody_published_is_told_as_such(planet: Lab) -> None:
    answer = planet.city("ber").post("/run/eu-only", '{"input": {"object": "nobody/ever"}}')
    assert (answer.status, answer.headers["edge-drop-reason"]) == (404, "unknown-object")
    assert "popctl data push FILE nobody/ever" in answer.json["error"]
