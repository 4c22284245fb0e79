"""What is brought near is worth it: a device full of dearer models keeps them, a floor is kept before anybody asks."""

from collections import Counter
from typing import Any

import pytest

from netlab.clock import now_s, wait_until
from netlab.lab import Lab
from netlab.probe import Answer
from tests.support import narrow as little
from tests.support.joined import evict, prefetch, route, state, wait_until_joined, wait_until_warm
from tests.support.lab import Keeper
from tests.support.load import Asked, Load

pytestmark = pytest.mark.lab

DEAR = ("home-a", "home-b")
#: Beacons and probes into nrt are 4 kB/s.
NOISE_BYTES_PER_S = 10_000


@pytest.fixture
def planet(narrow: Lab) -> Lab:
    narrow.wan.mend()
    wait_until_joined(narrow)
    return narrow


def hydration(lab: Lab, node: str) -> Any:
    return state(lab, node)["hydration"]


def fill_tokyo(lab: Lab, model: str) -> None:
    """nrt's device is full of DEAR, and `model` is at iad alone."""
    for node in ("iad-b", "fra-a", "nrt-a"):
        for name in (*DEAR, model):
            evict(lab, node, name, disk=name == model and node != "iad-b")
    for name in DEAR:
        prefetch(lab, "nrt-a", name)
        wait_until_warm(lab, "nrt-a", "nrt-a/0", name)
    prefetch(lab, "iad-b", model)
    wait_until_warm(lab, "nrt-a", "iad-b/0", model)
    wait_until_warm(lab, "nrt-a", "nrt-a/0", model, warm=False)


def asked_beside_the_dear(
    lab: Lab, model: str, body: bytes, for_s: float
) -> tuple[list[Answer], list[Asked]]:
    """What `model` was answered in tyo, and what the two dear ones were, that were asked for all the time."""
    tyo = lab.city("tyo")
    one, other = (Load(tyo, f"/run/{name}", little.IDENTITY, connections=1) for name in DEAR)
    answers = []
    with one, other:
        for load in (one, other):
            load.wait_until_asked(100)
        since_s = now_s()
        while now_s() - since_s < for_s:
            answers.append(tyo.post(f"/run/{model}", body))
    return answers, one.history + other.history


def test_a_device_full_of_dearer_models_keeps_them(planet: Lab) -> None:
    """Two models fill nrt's device and are asked for all the time; a third, of iad, now and then."""
    fill_tokyo(planet, "remote")
    before = hydration(planet, "nrt-a")
    answers, dear = asked_beside_the_dear(planet, "remote", little.row(little.REMOTE_SIDE), for_s=6.0)
    assert {answer.status for answer in answers} == {200}
    assert {answer.headers["edge-served-by"] for answer in answers} == {"iad-b/0"}, "it stayed where it was"
    assert {answer.headers["edge-residency"] for answer in answers} == {"device"}
    assert {route(answer)[1]["reason"] for answer in answers} == {"cold-here"}
    assert {(asked.outcome, asked.served_by) for asked in dear} == {("200", "nrt-a/0")}
    after = hydration(planet, "nrt-a")
    assert after["loaded"] == before["loaded"], after
    whys = {why for why, count in after["left"].items() if count > before["left"].get(why, 0)}
    assert whys & {"dearer-here", "no-room"}, after


def test_a_model_that_loads_fast_does_not_drive_out_dearer_ones(planet: Lab) -> None:
    fill_tokyo(planet, "home-c")
    answers, _ = asked_beside_the_dear(planet, "home-c", little.IDENTITY, for_s=3.0)
    loads = Counter(answer.headers["edge-residency"] for answer in answers)
    assert set(loads) == {"device"}, f"{loads}: loaded again and again, and so were those that it drove out"


def wait_until_quiet(lab: Lab, pop: str) -> None:
    """Until nothing but noise comes in."""
    seen: list[int] = []

    def quiet() -> bool:
        seen.append(lab.wan.bytes_into([pop]))
        return len(seen) > 1 and seen[-1] - seen[-2] <= NOISE_BYTES_PER_S / 4

    wait_until(quiet, f"nothing is on its way to {pop}", within_s=10, every_s=0.25)


def test_a_floor_is_there_before_anybody_asks(planet: Lab, keeper: Keeper) -> None:
    """`keep: {ap: 1}`: nrt has it on its disk soon after publication, and a cold start moves no weights."""
    size_bytes = little.publish_kept(keeper.narrow_models)

    def on_disk() -> list[str]:
        rows = planet.node("nrt-a").admin("GET", "/edge/models").json["models"]
        return [node for row in rows if row["model"] == "kept" for node in row["on_disk"]]

    wait_until(lambda: "nrt-a" in on_disk(), "nrt-a has what it is to keep", within_s=20)
    assert on_disk() == ["nrt-a"], "and nobody else, whom nobody told to"
    wait_until_quiet(planet, "nrt")
    tyo = planet.city("tyo")
    before, began_s = planet.wan.bytes_into(["nrt"]), now_s()
    cold = tyo.post("/run/kept", little.row(little.KEPT_SIDE))
    moved, passed_s = planet.wan.bytes_into(["nrt"]) - before, now_s() - began_s
    assert (cold.status, cold.headers["edge-served-by"]) == (200, "nrt-a/0"), cold.headers
    assert cold.headers["edge-residency"] == "disk"
    assert cold.headers["edge-egress"].endswith("weights=0")
    assert moved <= NOISE_BYTES_PER_S * max(1.0, passed_s), (
        f"{moved} of {size_bytes} bytes in {passed_s:.2f} s"
    )
