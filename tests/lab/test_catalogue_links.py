"""Faults of links between POPs: long, lossy, narrow, deaf in one direction, small."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from netlab.clock import now_s, wait_until
from netlab.lab import Lab
from netlab.probe import Answer
from tests.support.blobs import content_digest
from tests.support.joined import IDENTITY, ask, digest_of, evict, state
from tests.support.lab import Keeper
from tests.support.load import Load

pytestmark = pytest.mark.lab

#: What a request may end as that crosses a bad link.
ENDS = {200, 503, 504}


@pytest.fixture(scope="module")
def whole(keeper: Keeper) -> None:
    """Whatever was broken before."""
    keeper.ensure("lab").heal()


@pytest.fixture
def planet(whole: None, lab: Lab) -> Iterator[Lab]:
    for region in ("eu", "us"):
        assert ask(lab.city("lon"), "identity", edge_force_region=region, edge_cold="wait").status == 200
    yield lab
    Lab.running().heal()


def server(answer: Answer) -> str:
    return answer.headers.get("edge-served-by", "")


def asked_until_served_by(lab: Lab, wanted: str, within_s: float, deadline_s: float = 2.0) -> list[Answer]:
    """Everything that lon was answered until `wanted` served it; each within its deadline."""
    answers: list[Answer] = []

    def served() -> bool:
        began_s = now_s()
        answers.append(ask(lab.city("lon"), "identity", edge_deadline_ms=str(int(deadline_s * 1000))))
        assert now_s() - began_s < deadline_s + 1.0
        return server(answers[-1]) == wanted

    wait_until(served, f"lon is served by {wanted}", within_s=within_s)
    return answers


def test_who_hears_nothing_back_goes_elsewhere_and_stays_there(planet: Lab) -> None:
    """fra hears ams and answers, and its answers are lost."""
    with planet.fail("fra-ams", "one-way"):
        answers = asked_until_served_by(planet, "iad-b/0", within_s=20)
        assert {answer.status for answer in answers} <= ENDS
        later = [ask(planet.city("lon"), "identity") for _ in range(20)]
        assert {(answer.status, server(answer)) for answer in later} == {(200, "iad-b/0")}, "no flapping"
        assert server(ask(planet.city("ber"), "identity")) == "fra-a/0", "a POP serves what it has"
    asked_until_served_by(planet, "fra-a/0", within_s=20)


def test_a_far_worker_is_chosen_only_where_the_deadline_allows(planet: Lab) -> None:
    planet.wan.set("fra", "ams", rtt_ms=208)
    lon, ber = planet.city("lon"), planet.city("ber")
    asked_until_served_by(planet, "iad-b/0", within_s=30)
    forced = ask(lon, "identity", edge_force_region="eu", edge_deadline_ms="2000")
    assert (forced.status, server(forced)) == (200, "fra-a/0")
    hurried = ask(lon, "identity", edge_force_region="eu", edge_deadline_ms="100")
    assert hurried.status == 504, (hurried.headers, hurried.text)
    assert hurried.headers["edge-drop-reason"] == "deadline"
    assert hurried.total_ms < 1000
    assert server(ask(ber, "identity", edge_deadline_ms="100")) == "fra-a/0"


@pytest.mark.parametrize(("loss", "ends"), [(0.05, {"200"}), (0.3, {"200", "503", "504"})])
def test_loss_makes_late_and_never_wrong(planet: Lab, loss: float, ends: set[str]) -> None:
    lon, ber = planet.city("lon"), planet.city("ber")
    planet.wan.set("fra", "ams", loss=loss)
    with Load(lon, "/run/identity", IDENTITY, connections=8) as load:
        load.wait_until_asked(100, within_s=60)
        with Load(ber, "/run/identity", IDENTITY, connections=2) as near:
            near.wait_until_asked(50)
    assert {asked.outcome for asked in load.history} <= ends, load.outcomes()
    assert set(near.outcomes()) == {"200"}
    assert {asked.served_by for asked in near.history} == {"fra-a/0"}


def test_a_narrow_link_delays_weights_and_nothing_that_is_loaded(planet: Lab) -> None:
    ber = planet.city("ber")
    assert ask(planet.city("nyc"), "magika", edge_force_region="us", edge_cold="wait").status == 200
    evict(planet, "fra-a", "magika", disk=True)
    for link in ("iad-fra", "fra-nrt", "fra-ams"):
        planet.fail(link, "narrow")
    with Load(ber, "/run/identity", IDENTITY, connections=4) as load:
        load.wait_until_asked(50)
        late = ask(ber, "magika", edge_force_region="eu", edge_cold="wait", edge_deadline_ms="3000")
        assert late.status in (503, 504), late.text
        load.wait_until_asked(50, since_s=now_s())
        planet.heal()
        came = ask(ber, "magika", edge_force_region="eu", edge_cold="wait")
        assert (came.status, server(came)) == (200, "fra-a/0"), came.text
    assert set(load.outcomes()) == {"200"}
    assert {asked.served_by for asked in load.history} == {"fra-a/0"}


LARGE = b"#!/bin/sh\n" + b"echo this file is long\n" * 40_000


#: Each over a link of its own: who was told once remembers for ten minutes.
SMALL = [("fra", "eu", "fra-a/0", False), ("iad", "us", "iad-b/0", True)]


@pytest.mark.parametrize(("far", "region", "worker", "silent"), SMALL, ids=["told", "silent"])
def test_a_large_body_passes_a_link_that_carries_small_packets(
    planet: Lab, far: str, region: str, worker: str, silent: bool
) -> None:
    lon = planet.city("lon")
    assert ask(lon, "magika", edge_force_region=region, edge_cold="wait").status == 200
    planet.wan.set(far, "ams", mtu_bytes=1280, mtu_silent=silent)
    answer = lon.request(
        "POST", "/run/magika", body=LARGE, headers={"edge-force-region": region}, timeout_s=40.0
    )
    assert (answer.status, server(answer)) == (200, worker), answer.text[:300]
    assert answer.json["label"] == "shell"


def largest(lab: Lab, node: str, model: str) -> Path:
    """The model's largest file on that node's disk."""
    store = lab.node(node).home / "store"
    manifest = json.loads((store / "manifests" / f"{digest_of(lab, node, model)}.json").read_text())
    return store / "blobs" / str(max(manifest["files"], key=lambda file: int(file["size_bytes"]))["blake3"])


def flip(blob: Path) -> None:
    """One bit is another."""
    with blob.open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)[0]
        file.seek(1000)
        file.write(bytes([byte ^ 0x40]))


def test_a_bit_that_flipped_on_a_disk_is_never_served(planet: Lab) -> None:
    tyo = planet.city("tyo")
    right = ask(tyo, "magika", edge_force_region="ap", edge_cold="wait")
    assert (right.status, server(right)) == (200, "nrt-a/0")
    blob = largest(planet, "nrt-a", "magika")
    evict(planet, "nrt-a", "magika")
    flip(blob)
    again = ask(tyo, "magika", edge_force_region="ap", edge_cold="wait")
    assert (again.status, server(again), again.json) == (200, "nrt-a/0", right.json)
    assert blob.name in {path.name for path in (blob.parents[1] / "quarantine").iterdir()}, "it was set aside"
    assert content_digest(blob) == blob.name, "and brought again"
    assert state(planet, "nrt-a")["weights"]["index"]["state"] == "up"
