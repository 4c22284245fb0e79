"""What fits on the disk and in host memory, and who has to go for it.

`make_room` reads entries and returns victims or a refusal; `Ledger` is the book that the
one owner of the disk keeps: every byte of the store is an entry in it, also bytes that are
only reserved and bytes that are unlinked but still mapped by somebody. No I/O, no clock, and
no idea of what a blob holds. `keep_order` is the eviction policy: what is worth least per byte
goes first (`edge.policy.worth`), of a large one only what is needed counts whole, among equals the
least recently held.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Final, NamedTuple

from edge.policy.worth import NOTHING, Worth, loss_per_byte_gained


class Shelf(IntEnum):
    """Kinds of entries, in the order in which they are given up."""

    QUARANTINE = 0
    INGEST = 1
    BLOBS = 2
    MANIFESTS = 3
    #: Files that are not ours: counted, never touched.
    STRANGERS = 4


class Entry(NamedTuple):
    """One file (or directory) of the store, by its path in it; `movable` if it may go now."""

    key: str
    shelf: Shelf
    size_bytes: int
    last_held_ms: float
    movable: bool
    worth: Worth = NOTHING


class Fits(NamedTuple):
    """There is room once these are gone, in this order; nothing else has to go."""

    victims: tuple[str, ...]


class Refused(NamedTuple):
    """Not even without everything that may go: so many bytes are lacking."""

    missing_bytes: int


def keep_order(entry: Entry, lacking_bytes: float = math.inf) -> tuple[bool, int, float, float, str]:
    """Who goes first: the smallest of these. The key itself only makes the order total."""
    loss = loss_per_byte_gained(entry.worth.per_byte, entry.size_bytes, lacking_bytes)
    return entry.worth.spared, entry.shelf, loss, entry.last_held_ms, entry.key


def make_room(entries: Iterable[Entry], capacity_bytes: int, wanted_bytes: int) -> Fits | Refused:
    """Which movable entries must go so that `wanted_bytes` more fit into `capacity_bytes`.

    No victim in the answer is superfluous: without any one of them it would not fit.
    """
    entries = list(entries)
    lacking = sum(entry.size_bytes for entry in entries) + wanted_bytes - capacity_bytes
    if lacking <= 0:
        return Fits(())
    movable = sorted(
        (entry for entry in entries if entry.movable and entry.size_bytes),
        key=lambda entry: keep_order(entry, lacking),
    )
    chosen: list[Entry] = []
    freed = 0
    for entry in movable:
        if freed >= lacking:
            break
        chosen.append(entry)
        freed += entry.size_bytes
    if freed < lacking:
        return Refused(lacking - freed)
    # A late, large victim may make earlier, small ones superfluous: spare the worthiest of those.
    for entry in reversed(chosen.copy()):
        if freed - entry.size_bytes >= lacking:
            chosen.remove(entry)
            freed -= entry.size_bytes
    return Fits(tuple(entry.key for entry in chosen))


def excess(entries: Iterable[Entry], quota_bytes: int) -> tuple[str, ...]:
    """Oldest entries that must go until the rest is within the quota."""
    ordered = sorted(entries, key=keep_order)
    total = sum(entry.size_bytes for entry in ordered)
    gone: list[str] = []
    for entry in ordered:
        if total <= quota_bytes:
            break
        gone.append(entry.key)
        total -= entry.size_bytes
    return tuple(gone)


def host_missing_bytes(held: Mapping[str, int], wanted: Mapping[str, int], capacity_bytes: int) -> int:
    """Bytes lacking to hold the blobs `wanted` beside those `held` (digest -> size); 0 if they fit.

    A blob that two models share counts once.
    """
    together = {**held, **wanted}
    return max(0, sum(together.values()) - capacity_bytes)


_SHELVES: Final = {shelf.name.lower(): shelf for shelf in Shelf}


def shelf_of(key: str) -> Shelf:
    """The shelf of a path in the store: its first segment; unknown ones are strangers."""
    return _SHELVES.get(key.partition("/")[0], Shelf.STRANGERS)


class Ledger:
    """Every byte of one store. Not thread-safe: the event loop of the owner is its only user.

    An entry that is `leaving` is counted but no longer there for anybody: its unlink is
    under way, or done while somebody still has it mapped. Pins are kept by key, whether the
    entry exists or not, so that what is about to arrive is safe from the start.
    """

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.used_bytes = 0
        self._sizes: dict[str, int] = {}
        self._last_held_ms: dict[str, float] = {}
        self._pins: Counter[str] = Counter()
        self._leaving: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return key in self._sizes and key not in self._leaving

    def size_bytes(self, key: str) -> int:
        """Bytes of an entry, 0 if there is none."""
        return self._sizes.get(key, 0)

    def last_held_ms(self, key: str) -> float:
        """When it was last held; minus infinity if there is none."""
        return self._last_held_ms.get(key, -math.inf)

    def keys(self, shelf: Shelf) -> list[str]:
        """Entries of one shelf that are there."""
        return [key for key in self._sizes if shelf_of(key) is shelf and key not in self._leaving]

    def put(self, key: str, size_bytes: int, now_ms: float) -> None:
        """Enter or resize. The caller has made room before: a ledger is a book, not a guard."""
        self.used_bytes += size_bytes - self._sizes.get(key, 0)
        self._sizes[key] = size_bytes
        self._last_held_ms[key] = now_ms
        self._leaving.discard(key)

    def drop(self, key: str) -> None:
        """The bytes are free. Unknown keys are fine."""
        self.used_bytes -= self._sizes.pop(key, 0)
        self._last_held_ms.pop(key, None)
        self._leaving.discard(key)

    def leave(self, key: str) -> None:
        """The entry is on its way out; it still counts."""
        self._leaving.add(key)

    def stay(self, key: str) -> None:
        """It could not go after all."""
        self._leaving.discard(key)

    def pin(self, key: str) -> None:
        """Must not go until `unpin`; counted."""
        self._pins[key] += 1

    def unpin(self, key: str, now_ms: float) -> None:
        """Give back one pin; `now_ms` is when it was last held."""
        if self._pins[key] <= 1:
            del self._pins[key]
        else:
            self._pins[key] -= 1
        if key in self._sizes:
            self._last_held_ms[key] = now_ms

    def pinned(self, key: str) -> bool:
        """Is there a pin on it?"""
        return self._pins[key] > 0

    def entries(
        self, busy: Iterable[str] = (), value: Callable[[str, int], Worth] = lambda key, size: NOTHING
    ) -> list[Entry]:
        """The book as `make_room` reads it; `busy` may not go although nothing pins it."""
        unmovable = self._leaving.union(busy)
        return [
            Entry(
                key,
                shelf := shelf_of(key),
                size,
                self._last_held_ms[key],
                shelf is not Shelf.STRANGERS and key not in unmovable and self._pins[key] == 0,
                value(key, size),
            )
            for key, size in self._sizes.items()
        ]
