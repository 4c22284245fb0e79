"""What is left of a broken link, when its conditions were changed by hand."""

import pytest

from netlab import faultlinks, faulttext
from netlab.faults import WAYS, Fault
from netlab.wanlinks import LinkState, Value

HOWS = ("cut", "one-way", "lossy", "narrow")


def book(*hows: str, target: str = "iad-fra") -> list[Fault]:
    return [Fault(target=target, kind="link", how=how, at_s=0.0) for how in hows]


def link(origin: str, to: str, *, cut: bool = False, **differs: Value) -> LinkState:
    return LinkState(
        origin=origin, to=to, cut=cut, one_way_ms=45, planet_one_way_ms=45, differs=dict(differs)
    )


def test_every_way_of_a_link_is_known() -> None:
    assert set(HOWS) == {way.how for way in WAYS if way.kind == "link"}


@pytest.mark.parametrize(
    ("sentence", "links", "left"),
    [
        ("mended", [], ()),
        ("cut in both directions", [link("iad", "fra", cut=True), link("fra", "iad", cut=True)], HOWS[:2]),
        ("cut in one", [link("fra", "iad", cut=True)], HOWS[:2]),
        ("carries again, and loses", [link("iad", "fra", loss=0.3)], ("lossy",)),
        ("carries again, and is narrow", [link("iad", "fra", rate_bps=1_000_000)], ("narrow",)),
        ("another link is cut", [link("iad", "nrt", cut=True)], ()),
    ],
)
def test_what_is_left(sentence: str, links: list[LinkState], left: tuple[str, ...]) -> None:
    over = {fault.how for fault in faultlinks.over(book(*HOWS), links)}
    assert over == set(HOWS) - set(left), sentence


def test_what_was_changed_by_hand_is_in_no_book() -> None:
    by_hand = link("fra", "iad", loss=0.1)
    assert faultlinks.beside([], [by_hand]) == [by_hand]
    assert faultlinks.beside(book("lossy"), [by_hand]) == []
    assert faultlinks.beside(book("cut", target="iad-nrt"), [by_hand]) == [by_hand]
    told = faulttext.broken_text([], [by_hand], 0.0)
    assert told == "link from fra to iad: 45 ms, loss 10%\n  undo it with `poplab link fra iad --mend`"


def test_only_links_are_struck_out() -> None:
    node = Fault(target="fra-a", kind="node", how="kill", at_s=0.0)
    assert faultlinks.over([node], []) == []
