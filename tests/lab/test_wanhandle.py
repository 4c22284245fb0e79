"""Links of a real planet get other conditions, say so, and are mended; from Python and from the shell."""

import json
import statistics
from collections.abc import Iterator

import pytest

from netlab import names, probe
from netlab.lab import Lab
from netlab.wanhandle import WanRefusedError
from tests.support.lab import poplab

pytestmark = pytest.mark.lab


@pytest.fixture
def planet(network: Lab) -> Iterator[Lab]:
    """As it should be, before and after."""
    network.wan.mend()
    yield network
    network.wan.mend()
    assert network.wan.conditions() == []


def rtt_ms(lab: Lab, origin: str, node: str) -> float:
    """Median of five handshakes of a router with a node of another POP."""
    took = []
    for _ in range(5):
        address = str(lab.topology.node(node).v4)
        wire, connect_ms = probe.connect(names.router(origin), address, 80, timeout_s=5.0)
        wire.close()
        took.append(connect_ms)
    return statistics.median(took)


def test_a_link_gets_longer_and_is_mended(planet: Lab) -> None:
    planet.wan.set("iad", "fra", rtt_ms=140)
    assert 140 <= rtt_ms(planet, "iad", "fra-a") < 160
    assert {(link.origin, link.to, link.one_way_ms) for link in planet.wan.conditions()} == {
        ("iad", "fra", 70.0),
        ("fra", "iad", 70.0),
    }
    planet.wan.mend("iad", "fra")
    assert planet.wan.conditions() == []
    assert 90 <= rtt_ms(planet, "iad", "fra-a") < 110


def test_one_direction_may_take_up_the_difference(planet: Lab) -> None:
    planet.wan.set("iad", "fra", rtt_ms=100, loss=0.25, direction="back")
    (link,) = planet.wan.conditions()
    assert (link.origin, link.to, link.differs) == ("fra", "iad", {"one_way_ms": 55.0, "loss": 0.25})
    with pytest.raises(WanRefusedError, match="iad to fra alone takes 45 ms; write a larger RTT"):
        planet.wan.set("iad", "fra", rtt_ms=40, direction="back")
    assert planet.wan.conditions() == [link]


def test_what_cannot_be_is_refused_and_changes_nothing(planet: Lab) -> None:
    with pytest.raises(WanRefusedError, match="loss is 5; write 0 to 1"):
        planet.wan.set("iad", "fra", loss=5, rtt_ms=10)
    with pytest.raises(WanRefusedError, match="iad to iad is no link"):
        planet.wan.set("iad", "iad", rtt_ms=10)
    with pytest.raises(KeyError, match="no POP is called 'lhr'"):
        planet.wan.mend("lhr", "iad")
    assert planet.wan.conditions() == []


def test_a_lost_link_is_counted_by_reason(planet: Lab) -> None:
    planet.wan.set("iad", "nrt", loss=1.0)
    before = planet.wan.counters()["iad", "nrt"]
    with pytest.raises(TimeoutError):
        probe.connect(names.router("iad"), str(planet.topology.node("nrt-a").v4), 80, timeout_s=0.5)
    after = planet.wan.counters()["iad", "nrt"]
    assert after.dropped_by["loss"] > before.dropped_by.get("loss", 0)
    assert after.packets == before.packets


def test_a_watch_counts_the_frames_of_its_window(planet: Lab) -> None:
    with planet.wan.watch() as watch:
        rtt_ms(planet, "iad", "fra-a")
    seen = watch.seen()
    assert seen.frames >= 5 * 3
    assert watch.seen() == seen, "it ended when it was left"
    assert 0 <= seen.late_ratio <= 1


def test_poplab_link_says_what_it_did_and_how_to_undo_it(planet: Lab) -> None:
    did = poplab("link", "iad", "fra", "--rtt", "100", "--loss", "1%", "--rate", "10mbit", "--asym", "there")
    assert did.returncode == 0, did.stderr
    assert did.stdout.splitlines() == [
        "iad - fra: RTT 100 ms, 90 on the planet",
        "iad to fra: 55 ms, loss 1%, at most 10 Mbit/s",
        "fra to iad: 45 ms",
    ]
    assert "undo: poplab link iad fra --mend" in did.stderr
    told = json.loads(poplab("link", "iad", "fra", "--json").stdout)
    assert told["directions"][0]["differs"] == {"one_way_ms": 55.0, "loss": 0.01, "rate_bps": 10_000_000}
    assert "\n          iad to fra: 55 ms, loss 1%, at most 10 Mbit/s\n" in poplab("status").stdout
    assert poplab("link", "iad", "fra", "--mend").stdout.startswith("iad - fra: RTT 90 ms\n")
    assert planet.wan.conditions() == []


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("link", "iad", "lhr", "--down"), 4, "no POP is called 'lhr'"),
        (("link", "iad", "iad", "--down"), 1, "iad to iad is no link; name two POPs"),
        (("link", "iad", "fra", "--mtu", "12"), 1, "mtu_bytes is 12; write 576 to 65535"),
        (("partition", "euu"), 4, "did you mean eu?"),
    ],
)
def test_poplab_refuses_in_one_sentence(
    planet: Lab, arguments: tuple[str, ...], code: int, words: str
) -> None:
    ended = poplab(*arguments)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert words in ended.stderr
    assert planet.wan.conditions() == []


def test_poplab_partition_cuts_and_heals(planet: Lab) -> None:
    planet.wan.set("iad", "fra", loss=0.5, direction="there")
    did = poplab("partition", "eu", "us")
    assert did.stdout.splitlines() == ["2 links are cut", "ams - iad", "fra - iad"]
    assert "undo: poplab partition eu us --heal" in did.stderr
    assert set(planet.wan.cuts()) == {("iad", "fra"), ("fra", "iad"), ("iad", "ams"), ("ams", "iad")}
    down = poplab("link", "iad", "nrt", "--down", "--asym", "there")
    assert "iad to nrt: 80 ms, cut\nnrt to iad: 80 ms\n" in down.stdout
    assert poplab("partition", "--heal").stdout.startswith("3 links carry again\n")
    assert planet.wan.cuts() == []
    assert [link.differs for link in planet.wan.conditions()] == [{"loss": 0.5}], "other conditions stay"
