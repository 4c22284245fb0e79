"""What a node remembers of transfers (edge/proxy/estimates.py): learned by source, shared with what is under way."""

import pytest

from edge.policy.estimate import BELIEVED_MS
from edge.policy.facts import Rates, Tier
from edge.proxy.estimates import TELLING_BYTES, Estimates, Scored
from edge.wire.calls import Ensured, Fetching

MIB = 1 << 20


class Node:
    def __init__(self) -> None:
        self.fetching: dict[str, Fetching] = {}
        self.scores: list[tuple[str, float]] = []
        self.now_ms = 0.0
        self.estimates = Estimates(
            Rates,
            lambda: self.fetching,
            on_scored=lambda source, ratio: self.scores.append((source, ratio)),
            now_ms=lambda: self.now_ms,
        )

    def comes(self, digest: str, done: int, total: int, per_s: float = 0.0) -> None:
        self.fetching[digest] = Fetching(digest, done, total, per_s)

    def expect(self, digest: str, mib: int, source: Tier = Tier.ORIGIN) -> float:
        return self.estimates.fetch_ms(digest, source, mib * MIB)


def test_what_is_here_takes_no_time():
    node = Node()
    assert [node.expect("a", 10, tier) for tier in (Tier.DEVICE, Tier.HOST, Tier.DISK)] == [0.0] * 3


def test_each_source_is_learned_by_itself():
    node = Node()
    before = node.expect("a", 10, Tier.REGION)
    for mib in (5, 10, 20, 40):
        node.estimates.fetched("x", Ensured("origin", mib * MIB, 100.0 * mib))
    assert node.expect("a", 10) == pytest.approx(1_000.0, rel=0.1)
    assert node.expect("a", 10, Tier.REGION) == before


@pytest.mark.parametrize(
    "ensured", [Ensured("disk", 0, 5.0), Ensured("origin", 0, 5.0), Ensured("moon", MIB, 5.0)]
)
def test_what_moved_nothing_teaches_nothing(ensured):
    node = Node()
    before = node.expect("a", 10)
    node.estimates.fetched("x", ensured)
    assert node.expect("a", 10) == before


def test_another_that_is_under_way_shares_the_path_and_is_no_reason_to_think_it_slow():
    node = Node()
    for mib in (5, 10, 20) * 4:
        node.estimates.fetched("x", Ensured("origin", mib * MIB, 100.0 * mib))
    alone = node.expect("a", 10)
    node.comes("b", 0, 10 * MIB)
    assert node.expect("a", 10) == pytest.approx(2 * alone, rel=0.15)
    for mib, ms in ((5, 1_000.0), (10, 2_000.0), (20, 3_000.0)) * 4:
        node.estimates.fetched("x", Ensured("origin", mib * MIB, ms))
    node.fetching.clear()
    assert node.expect("a", 10) == pytest.approx(alone, rel=0.15)


def test_what_began_counts_before_the_store_has_said_so_and_what_ended_does_not_count_after_it():
    node = Node()
    for mib in (5, 10, 20) * 4:
        node.estimates.fetched("x", Ensured("origin", mib * MIB, 100.0 * mib))
    alone = node.expect("a", 10)
    node.estimates.begins("b", 10 * MIB)
    assert node.expect("a", 10) > 1.7 * alone
    node.comes("b", 9 * MIB, 10 * MIB)
    assert node.expect("a", 10) < 1.2 * alone
    node.estimates.ends("b")
    assert node.expect("a", 10) == alone
    node.fetching = {}
    node.comes("b", 0, 10 * MIB)
    assert node.expect("a", 10) > 1.7 * alone, "it is fetched again"


def test_one_that_is_on_its_way_tells_its_own_rate():
    node = Node()
    node.comes("a", TELLING_BYTES, TELLING_BYTES + 10 * MIB, 5.0 * MIB)
    assert node.expect("a", 999) == 2_000.0
    node.comes("a", 9 * MIB, 10 * MIB)
    assert node.expect("a", 999) < node.expect("other", 10), "what has come need not come again"


@pytest.mark.parametrize(
    ("sentence", "idle_ms", "under_way"),
    [
        ("just learned", 0.0, {}),
        ("doubted, as nobody tried for so long", 3 * BELIEVED_MS, {}),
        ("shared with another", 0.0, {"b": Fetching("b", 0, 10 * MIB)}),
        ("on its way, at a rate of its own", 0.0, {"a": Fetching("a", 5 * MIB, 10 * MIB, 2.0 * MIB)}),
    ],
)
def test_an_operator_is_told_what_the_router_expects(sentence, idle_ms, under_way):
    node = Node()
    for mib in (5, 10, 20) * 4:
        node.estimates.fetched("x", Ensured("origin", mib * MIB, 3_000.0 * mib))
    node.now_ms += idle_ms
    node.fetching = under_way
    told = node.estimates.per_source("a", 10 * MIB, wait_ms=0.0, load_ms=0.0)
    assert list(told) == [Tier.DISK, Tier.REGION, Tier.FAR, Tier.ORIGIN]
    for source, seconds in told.items():
        assert seconds == round(node.expect("a", 10, Tier(source)) / 1_000.0, 3), (sentence, source)


def test_what_was_slow_is_doubted_once_nobody_has_tried_for_a_while():
    node = Node()
    for mib in (5, 10, 20) * 4:
        node.estimates.fetched("x", Ensured("origin", mib * MIB, 3_000.0 * mib))
    before = node.expect("a", 10)
    node.now_ms += BELIEVED_MS
    assert node.expect("a", 10) == before / 2


def test_errors_are_told_by_source_and_none_where_nothing_was_expected():
    node = Node()
    node.estimates.scored("m", "origin", 80.0, 100.0)
    node.estimates.scored("m", "origin", 0.0, 100.0)
    assert node.scores == [("origin", pytest.approx(0.2))]
    assert list(node.estimates.recent) == [Scored("m", "origin", 80.0, 100.0)]
