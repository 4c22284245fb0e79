"""Links of the WAN are counted, cut and mended."""

import socket
from collections.abc import Iterator

import pytest

from netlab import names, netns, wanhandle
from netlab.lab import Lab

pytestmark = pytest.mark.lab


@pytest.fixture
def whole(network: Lab) -> Iterator[Lab]:
    """The lab with every link up, before and after."""
    yield network
    network.wan.mend()
    assert network.wan.cuts() == []
    network.wait_until_converged(within_s=30)


def reaches(lab: Lab, origin: str, node: str, within_s: float = 1.0) -> bool:
    """Whether a router of one POP gets a TCP handshake with a node's front door."""

    def knock() -> bool:
        try:
            with socket.create_connection((str(lab.topology.node(node).v4), 80), timeout=within_s):
                return True
        except OSError:
            return False

    return netns.inside(names.router(origin), knock)


def test_bytes_are_counted_by_direction(whole: Lab) -> None:
    before = whole.wan.all_bytes()
    for _ in range(20):
        assert reaches(whole, "iad", "fra-a")
    after = whole.wan.all_bytes()
    assert set(after) == {
        (a.name, b.name) for a in whole.topology.pops for b in whole.topology.pops if a != b
    }
    assert after["iad", "fra"] - before["iad", "fra"] >= 20 * 3 * 66
    assert after["fra", "iad"] - before["fra", "iad"] >= 20 * 74
    assert whole.wan.bytes("iad", "fra") >= after["iad", "fra"]


def test_a_cut_link_swallows_both_directions_and_no_other_link(whole: Lab) -> None:
    whole.wan.cut("fra", "iad")
    assert not reaches(whole, "iad", "fra-a")
    assert not reaches(whole, "fra", "iad-a")
    assert reaches(whole, "iad", "nrt-a")
    assert reaches(whole, "ams", "fra-a")
    whole.wan.mend("iad", "fra")
    assert reaches(whole, "iad", "fra-a")


def test_a_partition_has_two_sides(whole: Lab) -> None:
    whole.partition(["fra", "ams"])
    for near, far in (("fra", "iad-a"), ("fra", "nrt-a"), ("ams", "iad-a"), ("nrt", "fra-a")):
        assert not reaches(whole, near, far, within_s=0.5), (near, far)
    for near, here in (("fra", "ams-a"), ("ams", "fra-a"), ("iad", "nrt-a"), ("nrt", "iad-b")):
        assert reaches(whole, near, here), (near, here)
    assert whole.city("ber").served_by() == "fra"
    assert whole.city("nyc").served_by() == "iad"
    whole.wan.mend()
    for near, far in (("fra", "iad-a"), ("nrt", "fra-a")):
        assert reaches(whole, near, far), (near, far)


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"op": "cut", "from": "w-iad", "to": "w-lhr", "cut": True}, "no pair from 'w-iad' to 'w-lhr'"),
        ({"op": "cut", "from": "w-iad", "to": "w-fra", "cut": "yes"}, "cut is 'yes'; write true or false"),
        ({"op": "cut"}, "no pair from 'None' to 'None'; stats lists them"),
    ],
)
def test_a_wrong_cut_is_refused(whole: Lab, request_: dict[str, str | bool], says: str) -> None:
    assert says in wanhandle.ask(request_)["error"]
    assert whole.wan.cuts() == []


def test_a_link_of_nowhere_is_answered_with_what_there_is(whole: Lab) -> None:
    with pytest.raises(KeyError, match="no POP is called 'lhr'; there are: iad, fra, ams, nrt"):
        whole.wan.cut("iad", "lhr")
