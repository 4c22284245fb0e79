"""edge.weights.feeds: whom a fetch may ask, as others come and fall behind and as it becomes this node's turn."""

from collections.abc import Iterator

import pytest

from edge.weights.feeds import Feeds
from edge.weights.growth import Growth
from edge.weights.sources import ORIGIN, Kind, Site

FRA, AMS, IAD = Site(Kind.REGION, "fra-a"), Site(Kind.REGION, "ams-a"), Site(Kind.FAR, "iad-a")


class Source:
    """A source that has these chunks."""

    def __init__(self, *chunks: int) -> None:
        self.chunks = chunks

    def range(self, path: str, start: int, end: int, *, object_bytes: int) -> Iterator[bytes]:
        yield b""

    def exceeds(self, mine: Growth | None) -> bool:
        return any(mine is None or not mine.has(index) for index in self.chunks)


def grown(*chunks: int) -> Growth:
    growth = Growth(100, 10)
    for index in chunks:
        growth.add(index)
    return growth


@pytest.mark.parametrize(
    ("sentence", "holders", "ahead", "mine", "outside_too", "asked"),
    [
        ("nobody has it and it is another one's turn", {}, {}, grown(), False, []),
        ("nobody has it and it is this node's turn", {}, {}, grown(), True, [IAD, ORIGIN]),
        ("another one is at it", {}, {FRA: (1,)}, grown(), False, [FRA]),
        ("who is at it has nothing that is not here: it may come", {}, {FRA: (1,)}, grown(1), False, [FRA]),
        ("in this node's turn such a one is not waited for", {}, {FRA: (1,)}, grown(1), True, [IAD, ORIGIN]),
        ("in this node's turn what others have is taken from them", {}, {FRA: (1,), AMS: (2,)}, grown(1), True, [AMS, IAD, ORIGIN]),
        ("nothing is open here", {}, {FRA: (1,)}, None, True, [FRA, IAD, ORIGIN]),
        ("who has all of it is asked as such", {FRA: (1,)}, {FRA: (), AMS: (2,)}, grown(), False, [FRA, AMS]),
        ("who has all of it is asked in any case", {FRA: ()}, {}, grown(1), True, [FRA, IAD, ORIGIN]),
    ],
)  # fmt: skip
def test_who_is_asked(
    sentence: str,
    holders: dict[Site, tuple[int, ...]],
    ahead: dict[Site, tuple[int, ...]],
    mine: Growth | None,
    outside_too: bool,
    asked: list[Site],
) -> None:
    feeds = Feeds({IAD: Source(), ORIGIN: Source()}, lambda: mine)
    for site, chunks in ahead.items():
        feeds.add_ahead(site, Source(*chunks))
    feeds.set_holders({site: Source(*chunks) for site, chunks in holders.items()})
    feeds.outside_too = outside_too
    assert list(feeds) == asked, sentence
    assert len(feeds) == len(asked)
    assert set(feeds.known) == set(ahead)


def test_a_source_that_is_not_asked_any_more_still_ends_what_it_began() -> None:
    fra = Source(1)
    feeds = Feeds({}, grown)
    feeds.set_holders({FRA: fra})
    feeds.set_holders({})
    assert list(feeds) == []
    assert feeds[FRA] is fra
