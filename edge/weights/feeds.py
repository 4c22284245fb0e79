"""All sources of one blob, as of the moment in which they are looked at.

Nodes that have all of it, nodes that are at it too and, only when that is this node's turn, those
outside the region: then a node that is at it too counts only as far as it has what is not here. Who
is who is told from the event loop; a fetch's threads read. Knows no socket, no index and no clock.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Generic, Protocol, TypeVar

from edge.weights.fetch import Ranges
from edge.weights.growth import Growth
from edge.weights.sources import Site


class Partly(Ranges, Protocol):
    """A node that has some of the blob: `edge.weights.ahead.Ahead`."""

    def exceeds(self, mine: Growth | None) -> bool:
        """May it have anything that is not here?"""


P = TypeVar("P", bound=Partly)


class Feeds(Mapping[Site, Ranges], Generic[P]):
    """Iterates over those to be asked now, nearest first; gives any that ever was."""

    def __init__(self, outside: Mapping[Site, Ranges], mine: Callable[[], Growth | None]) -> None:
        self.outside_too = False
        self._outside = dict(outside)
        self._mine = mine
        self._ever: dict[Site, Ranges] = dict(outside)
        self._holders: tuple[Site, ...] = ()
        self._ahead: dict[Site, P] = {}

    def __getitem__(self, site: Site) -> Ranges:
        return self._ever[site]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Site]:
        outside_too, mine, holders = self.outside_too, self._mine(), self._holders
        yield from holders
        for site, ahead in list(self._ahead.items()):
            if site not in holders and not (outside_too and not ahead.exceeds(mine)):
                yield site
        if outside_too:
            yield from self._outside

    @property
    def known(self) -> Mapping[Site, P]:
        """Nodes that are at it too, whether they are to be asked now or not."""
        return self._ahead

    @property
    def right_chunks(self) -> int:
        """How many of it are here."""
        mine = self._mine()
        return mine.count if mine is not None else 0

    def ahead(self) -> list[P]:
        """The nodes that are at it too."""
        return list(self._ahead.values())

    def set_holders(self, holders: Mapping[Site, Ranges]) -> None:
        """Nodes that have all of it."""
        self._ever = {**self._ever, **holders}
        self._holders = tuple(holders)

    def add_ahead(self, site: Site, ahead: P) -> None:
        """A node that is at it too."""
        self._ever = {**self._ever, site: ahead}
        self._ahead = {**self._ahead, site: ahead}
